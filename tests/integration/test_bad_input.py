"""Bad input, of every kind: one clear message, and nothing half-done.

Each row is one thing that goes wrong for a model in production (:mod:`tests.fakes.mishaps`), met where its user would
meet it. The message names the file, line or field and says what to do; registry, ledger, gateway and the results in
the store are what they were.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from genai_operators.exceptions import (
    DataError,
    GatewayUnavailable,
    GenaiError,
    LedgerConflict,
    ManifestMismatch,
    NonFiniteLoss,
    RegistryUnavailable,
    SignatureInvalid,
    SpecError,
    StorageFull,
    UnsafeWeights,
)
from tests.fakes import mishaps
from tests.fakes.dag_runs import use_empty_bundle
from tests.fakes.production import Production

pytestmark = pytest.mark.slow


@dataclass(frozen=True, kw_only=True)
class Row:
    """What goes wrong, and what its user is told.

    :param where: the message names this.
    :param advice: it says to do this.
    :param promotions: new entries of the ledger.
    """

    name: str
    arrange: Callable[[Production], mishaps.Act]
    kind: type[GenaiError]
    where: str
    advice: str
    promotions: int = 0
    marks: tuple[pytest.MarkDecorator, ...] = ()


ROWS = [
    Row(
        name="invalid YAML",
        arrange=mishaps.invalid_yaml,
        kind=SpecError,
        where=r"^include/models/bot_\w+\.yaml:3:\d+: ",
        advice=r"expected ',' or '\]'",
    ),
    Row(
        name="unknown key",
        arrange=mishaps.unknown_key,
        kind=SpecError,
        where=r"^include/models/bot_\w+\.yaml:4:3: unknown key 'margn' in evaluate",
        advice=r"did you mean 'margin'\?",
    ),
    Row(
        name="missing data file",
        arrange=mishaps.missing_file,
        kind=DataError,
        where=r"data\.train: include/data/rows\.jsonl does not exist",
        advice=r"Put the file there, or correct data\.train",
    ),
    Row(
        name="malformed JSONL line",
        arrange=mishaps.malformed_line,
        kind=DataError,
        where=r"include/data/rows\.jsonl, line 4: not JSON \(.*, column 14\)",
        advice=r"mend or delete it",
    ),
    Row(
        name="empty data set",
        arrange=mishaps.empty_file,
        kind=DataError,
        where=r"include/data/rows\.jsonl: the file holds no rows",
        advice=r"Give it at least one",
    ),
    Row(
        name="pickle to start from",
        arrange=mishaps.pickle_to_start_from,
        kind=UnsafeWeights,
        where=r"file://\S+/include/base: no \.safetensors file; pytorch_model\.bin is a pickle",
        advice=r"Convert the weights",
        marks=(pytest.mark.workload_env,),
    ),
    Row(
        name="pickle among the trained weights",
        arrange=mishaps.pickle_among_the_weights,
        kind=UnsafeWeights,
        where=r"^file://\S+/output/model: optimizer\.pt is in a format that can run code",
        advice=r"Convert the weights to safetensors",
    ),
    Row(
        name="weights are not what the training wrote",
        arrange=mishaps.changed_weights,
        kind=ManifestMismatch,
        where=r"output/model: model\.safetensors does not match its manifest",
        advice=r"Restore it, or produce the directory again",
    ),
    Row(
        name="files in the registry were changed",
        arrange=mishaps.changed_in_the_registry,
        kind=ManifestMismatch,
        where=r"^bot_\w+ v2: .*config\.json does not match its manifest",
        advice=r"do not use it",
    ),
    Row(
        name="signed by a stranger",
        arrange=mishaps.signed_by_a_stranger,
        kind=SignatureInvalid,
        where=r"^bot_\w+ v2: .*model\.sig was made with the key \w+, which is not among the 1 trusted keys",
        advice=r"Sign the model with a trusted key, or add that key if you trust it",
    ),
    Row(
        name="NaN loss",
        arrange=mishaps.diverging,
        kind=NonFiniteLoss,
        where=r"\(gradient norm nan\) at step \d of 6: the training diverged",
        advice=r"Lower learning_rate \(1e\+30\) in the recipe",
        marks=(pytest.mark.workload_env,),
    ),
    Row(
        name="full disk under the workload",
        arrange=mishaps.full_scratch,
        kind=StorageFull,
        where=r"no space left on the disk that holds \S*/scratch",
        advice=r"free some and run again$",
    ),
    Row(
        name="full disk under the store",
        arrange=mishaps.full_store,
        kind=StorageFull,
        where=r"no space left writing file://\S*/store/\S+",
        advice=r"free some and run again$",
    ),
    Row(
        name="MLflow down",
        arrange=mishaps.mlflow_down,
        kind=RegistryUnavailable,
        where=r"MLflow at http://127\.0\.0\.1:\d+ does not answer",
        advice=r"genai_mlflow",
    ),
    Row(
        name="gateway down",
        arrange=mishaps.gateway_down,
        kind=GatewayUnavailable,
        where=r"the gateway does not answer at http://127\.0\.0\.1:\d+",
        advice=r"`make status` shows what runs",
    ),
    Row(
        name="two promotions at once",
        arrange=mishaps.two_promotions,
        kind=LedgerConflict,
        where=r"expected epoch 1, found epoch 2: promote v[23] by v[23]",
        advice=r"look at the new champion and decide again",
        promotions=1,
    ),
    Row(
        name="two releases at once",
        arrange=mishaps.two_releases,
        kind=LedgerConflict,
        where=r"release \S+ of bot_\w+ is under way",
        advice=r"to stop the other one, mark its task failed",
    ),
]


@pytest.fixture
def production(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    mlflow_uri: str,
    airflow_database: None,
) -> Iterator[Production]:
    use_empty_bundle(tmp_path / "no-dags", monkeypatch)
    with contextlib.ExitStack() as disks:
        production = Production(tmp_path, mlflow_uri=mlflow_uri, setenv=monkeypatch.setenv, disk=disks.enter_context)
        if request.node.get_closest_marker("workload_env"):
            production.connection(
                "compute_local", extra={"workload_python": request.getfixturevalue("workload_python")}
            )
        yield production


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name, marks=row.marks) for row in ROWS])
def test_is_one_clear_message_and_nothing_half_done(row: Row, production: Production) -> None:
    act = row.arrange(production)
    before = production.standing()

    failures = act()

    assert len(failures) == 1, failures
    error, message = failures[0].error, str(failures[0].error)
    assert type(error) is row.kind, message
    assert re.search(row.where, message), message
    assert re.search(row.advice, message), message
    assert "Traceback" not in message
    assert failures[0].tries == 1, "a retry would meet the same"
    after = production.standing()
    assert after.ledger[: len(before.ledger)] == before.ledger
    assert len(after.ledger) == len(before.ledger) + row.promotions
    assert after.versions == before.versions
    assert after.traffic == before.traffic
    assert after.results == before.results
