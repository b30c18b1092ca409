from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest

from genai_operators.compute.contract import Artifact, Attempt, Result, Workload, code_digest
from genai_operators.decisions.verdict import Check, Outcome, Verdict
from genai_operators.exceptions import BadWorkload
from genai_operators.store import Store

DATA = Artifact(uri="file:///a/data", digest="d1")
WORKLOAD = Workload(
    kind="fine_tune", params={"seed": 1, "recipe": {"b": 2, "a": 1}}, inputs={"data": DATA}, code_digest="c"
)


class TestFingerprint:
    def test_is_the_same_for_the_same_content(self) -> None:
        again = Workload(
            kind="fine_tune", params={"recipe": {"a": 1, "b": 2}, "seed": 1}, inputs={"data": DATA}, code_digest="c"
        )
        assert again.fingerprint == WORKLOAD.fingerprint

    def test_ignores_where_an_input_lies(self) -> None:
        moved = replace(WORKLOAD, inputs={"data": Artifact(uri="s3://bucket/elsewhere", digest="d1")})
        assert moved.fingerprint == WORKLOAD.fingerprint

    @pytest.mark.parametrize(
        "change",
        [
            {"kind": "evaluate"},
            {"params": {"seed": 2, "recipe": {"a": 1, "b": 2}}},
            {"inputs": {"data": Artifact(uri="file:///a/data", digest="d2")}},
            {"inputs": {"other": DATA}},
            {"code_digest": "c2"},
            {"nonce": "run_1"},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_changes_with_whatever_changes_the_result(self, change: dict[str, object]) -> None:
        assert replace(WORKLOAD, **change).fingerprint != WORKLOAD.fingerprint  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", [{1, 2}, float("nan"), b"bytes"])
    def test_refuses_what_is_not_json(self, value: object) -> None:
        with pytest.raises(BadWorkload, match="fine_tune"):
            _ = replace(WORKLOAD, params={"x": value}).fingerprint


def test_code_digest_covers_the_workloads() -> None:
    assert len(code_digest()) == 64


def test_an_attempt_has_a_name_that_suits_a_kubernetes_job(store: Store) -> None:
    name = Attempt(store=store, directory=WORKLOAD.directory, number=12).name
    assert name.startswith("fine-tune-")
    assert name.endswith("-12")
    assert len(name) <= 63


class TestResult:
    RECORD: ClassVar[dict[str, object]] = {
        "version": 1,
        "attempt": 2,
        "verdict": Verdict.of("evaluation", [Check(name="exact", outcome=Outcome.FAIL)]).to_json(),
        "outputs": {"model": {"uri": "file:///m", "digest": "x"}},
        "metrics": {"loss": 0.5},
        "report_uri": None,
        "seconds": 3.5,
        "peak_memory_bytes": 10,
        "something_newer": True,
    }

    def test_is_read(self) -> None:
        result = Result.from_json(self.RECORD)
        assert result.attempt == 2
        assert result.outputs == {"model": Artifact(uri="file:///m", digest="x")}
        assert result.verdict is not None
        assert result.verdict.outcome is Outcome.FAIL

    @pytest.mark.parametrize("broken", [{"version": 2}, {"attempt": None}, {"outputs": {"model": {}}}, {"metrics": 3}])
    def test_a_broken_one_is_named_as_such(self, broken: dict[str, object]) -> None:
        with pytest.raises(BadWorkload, match="result"):
            Result.from_json({**self.RECORD, **broken})
