"""TABLE"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from genai_operators.compute import budget, patience, reconcile
from genai_operators.compute.kubernetes import phases, removal, waiting, watch
from tests.fakes.faults import api_server, capacity, pods, stopping, storage, training, workers  # noqa: F401  adds its rows
from tests.fakes.faults.table import ROWS, Row, Table

SHORTENED: tuple[tuple[ModuleType, str, float], ...] = (
    (phases, "STUCK_AFTER_S", 1.0),
    (removal, "STUCK_AFTER_S", 1.0),
    (removal, "NODE_LOST_AFTER_S", 2.0),
    (waiting, "IMAGE_GRACE_S", 3.0),
    (watch, "WATCH_S", 5),
    (budget, "USAGE_INTERVAL_S", 0.5),
    (patience, "CANCEL_PATIENCE_S", 8.0),
    (reconcile, "CANCEL_PATIENCE_S", 8.0),
)


@pytest.fixture(scope="module")
def impatience() -> Iterator[None]:
    """What waits for a minute or more in production waits for seconds here."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, seconds in SHORTENED:
            patch.setattr(module, name, seconds)
        yield


@pytest.fixture(scope="module")
def table(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, impatience: None
) -> Iterator[Table]:
    """The rows that were asked for, begun."""
    logging.getLogger(watch.__name__).setLevel(logging.ERROR)  # of clusters whose row is over
    asked = {str(item.callspec.params["row"]) for item in request.session.items if is_row(item)}
    table = Table([row for row in ROWS if str(row) in asked], tmp_path_factory.mktemp("faults"))
    yield table
    table.end()
    watch.end_watches()


def is_row(item: Any) -> bool:
    return "row" in getattr(getattr(item, "callspec", None), "params", {})


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row, table: Table) -> None:
    table.result(row)
