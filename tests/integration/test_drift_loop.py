"""Drift checks whose workloads are computed by the process that the supervisor starts, through the operator's store."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute.contract import Result, Workload
from tests.fakes.drift_traffic import DAY, HOUR, MONDAY, DriftLoop, example
from tests.fakes.workload_process import WorkloadProcess

FIRST, USUAL, LATER = (example(name) for name in ("first", "usual", "later"))


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DriftLoop:
    loop = DriftLoop(tmp_path, monkeypatch, drift={"features": ["prompt.words", "prompt.out_of_vocabulary"]})
    loop.crown(FIRST)
    return loop


def process_of(loop: DriftLoop, workload: Workload, tmp_path: Path) -> WorkloadProcess:
    return WorkloadProcess(loop.store, workload, sys.executable, tmp_path / "scratch-of-processes")


def day(loop: DriftLoop, tmp_path: Path, number: int, records: Any) -> dict[str, Any]:
    loop.now = MONDAY + number * DAY + 11 * HOUR
    loop.serve(records, 200, judged=50)
    loop.now += HOUR
    run = f"scheduled__{number}"
    process = process_of(loop, loop.build(run), tmp_path)
    code, output = process.run()
    assert code == 0, output
    return loop.finish(run, Result.from_json(process.result()))


@pytest.mark.slow
class TestDriftInProcesses:
    def test_days_are_judged_together_and_the_alarm_asks_for_a_retraining(
        self, loop: DriftLoop, tmp_path: Path
    ) -> None:
        found = [day(loop, tmp_path, number, USUAL if number < 2 else LATER) for number in range(3)]
        assert [check["policy"] for check in found] == ["wait"] * 2 + ["retrain"]
        assert loop.events[0]["why"] == "Retrain: the traffic drifted and 150 new labelled rows are there."
        page = loop.store.get(loop.store.path_of(loop.record().report or "")).decode()
        for words in ("Retrain or wait?", "Over time", "Windows", "Kinds of prompts", "150 new labelled rows"):
            assert words in page
        asked = {message["content"] for line in _text_of(loop, 2) for message in line["messages"]}
        assert not [text for text in asked if text in page]

    def test_a_killed_process_is_repeated_to_the_same_answer(self, loop: DriftLoop, tmp_path: Path) -> None:
        day(loop, tmp_path, 0, USUAL)
        loop.now += DAY
        loop.serve(LATER, 200)
        workload = loop.build("run")
        process = process_of(loop, workload, tmp_path)
        killed = process.start(attempt=1)
        assert killed.stdout is not None
        killed.stdout.readline()  # it has begun
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert not loop.store.exists(f"{workload.directory}/result.json")
        loop.now += HOUR
        assert loop.build("run").fingerprint == workload.fingerprint
        code, output = process.run(attempt=2)
        assert code == 0, output
        code, output = process.run(attempt=3)  # a zombie comes late: it computes the same, and changes nothing
        assert "another attempt had finished first" in output
        found = [
            loop.store.get(f"{workload.directory}/attempts/{attempt}/output/{part}")
            for part in ("watch/watch.json", "profile/profile.json", "profile/embeddings.npz")
            for attempt in (2, 3)
        ]
        assert found[0::2] == found[1::2]
        assert loop.finish("run", Result.from_json(process.result()))["alarm"] is not None

    def test_a_period_that_was_tampered_with_is_refused(self, loop: DriftLoop, tmp_path: Path) -> None:
        day(loop, tmp_path, 0, USUAL)
        path = loop.store.path_of(f"{loop.record().profile.uri}/profile.json")
        loop.store.put(path, loop.store.get(path).replace(b'"rows": 200', b'"rows": 201'))
        loop.now += DAY
        loop.serve(USUAL, 200)
        code, output = process_of(loop, loop.build("run"), tmp_path).run()
        assert code == 65
        assert "profile.json does not match its manifest" in output

    def test_a_reference_of_another_kind_is_named(self, loop: DriftLoop, tmp_path: Path) -> None:
        loop.serve(USUAL, 200)
        workload = loop.build("run")
        loop.store.delete("datasets/1/profile.json")
        code, output = process_of(loop, workload, tmp_path).run()
        assert code == 65
        assert "profile.json is missing" in output


def _text_of(loop: DriftLoop, number: int) -> list[dict[str, Any]]:
    from genai_operators.serving.batches import read_batch

    return (read_batch(loop.store, "m", "text", number) or [])[1:]
