"""The drift workload on the example data: silent on usual traffic, loud on the later one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from genai_operators.compute.contract import Artifact
from genai_operators.decisions.policy_facts import (
    Attempt,
    AttemptOutcome,
    Facts,
    PolicySettings,
    Trigger,
    to_json,
)
from genai_operators.decisions.verdict import Outcome
from genai_operators.exceptions import DataError
from genai_operators.serving.batches import batch_path, encode
from genai_operators.store import Store
from genai_operators.workloads.context import WorkloadOutput
from genai_operators.workloads.drift import drift
from genai_operators.workloads.records import Record
from genai_operators.workloads.reference import Reference
from tests.fakes.workload_process import ROOT, context_of


def example(name: str) -> list[Record]:
    lines = (ROOT / "include/data/support_bot" / f"{name}.jsonl").read_text().splitlines()
    return [Record.from_json({**json.loads(line), "source": "train"}) for line in lines]


@pytest.fixture
def reference(tmp_path: Path) -> Artifact:
    folder = tmp_path / "dataset"
    folder.mkdir()
    Reference.learn(example("first")).save(folder / "profile.json")
    store = Store.open(tmp_path / "store")
    return Artifact(uri=store.uri_of("dataset"), digest=store.upload_directory(folder, "dataset").digest)


def check(tmp_path: Path, reference: Artifact, records: list[Record], **params: object) -> WorkloadOutput:
    context = context_of(
        tmp_path,
        params={"model": "m", "window": {"first": 0, "last": 0}, "minimum_rows": 150, **params},
        inputs={"dataset": reference},
    )
    lines = [
        {
            "kind": "request",
            "request_id": r.id,
            "status": 200,
            "messages": [m.as_dict() for m in r.prompt],
            "answer": "",
        }
        for r in records
    ]
    context.store.put(batch_path("m", "text", 0), encode([{"kind": "batch"}, *lines]))
    return drift(context)


def outcome(output: WorkloadOutput) -> Outcome:
    assert output.verdict is not None
    return output.verdict.outcome


class TestDriftOfTheExample:
    @pytest.mark.parametrize("start", range(0, 1500, 300))
    def test_usual_traffic_is_silent(self, tmp_path: Path, reference: Artifact, start: int) -> None:
        assert outcome(check(tmp_path, reference, example("usual")[start : start + 300])) is Outcome.PASS

    def test_later_traffic_alarms_already_as_a_part(self, tmp_path: Path, reference: Artifact) -> None:
        mixed = example("usual")[:200] + example("later")[:100]
        assert outcome(check(tmp_path, reference, mixed)) is Outcome.FAIL

    def test_few_rows_say_nothing(self, tmp_path: Path, reference: Artifact) -> None:
        assert outcome(check(tmp_path, reference, example("later")[:100])) is Outcome.INCONCLUSIVE

    def test_no_rows_say_nothing(self, tmp_path: Path, reference: Artifact) -> None:
        assert outcome(check(tmp_path, reference, [])) is Outcome.INCONCLUSIVE

    def test_the_report_holds_no_text(self, tmp_path: Path, reference: Artifact) -> None:
        now = datetime(2026, 5, 1, 12, tzinfo=UTC)
        facts = Facts(now=now, champion_epoch=3, trained_at=now - timedelta(days=20), new_rows=300)
        tried = Attempt(at=now - timedelta(days=9), trigger=Trigger.DRIFT, outcome=AttemptOutcome.NO_HELP)
        policy = {"facts": to_json(facts), "history": [to_json(tried)], "settings": to_json(PolicySettings())}
        output = check(tmp_path, reference, example("later")[:300], policy=policy)
        assert output.report is not None
        page = output.report.html()
        assert "the traffic drifted and 300 new labelled rows are there" in page
        for shown in ("Each fact against its threshold", "300 of 5,000", "2026-04-22 12:00 UTC", "no help"):
            assert shown in page
        assert not [r.id for r in example("later")[:300] if r.question in page]

    def test_an_unknown_feature_is_named(self, tmp_path: Path, reference: Artifact) -> None:
        with pytest.raises(DataError, match=r"'mood'.*prompt\.words"):
            check(tmp_path, reference, example("usual")[:200], features=["mood"])
