"""Waiting for a workload, with real processes on local compute."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import pytest

from genai_operators.compute import attempts, owners
from genai_operators.compute.watch import WorkloadSubject, describe_progress
from tests.fakes.checkpointing import final_state
from tests.fakes.workload_run import WorkloadRun, owner, wait_for

StartRun = Callable[..., WorkloadRun]


class TestWaiting:
    def test_shows_every_line_and_the_progress_then_settles(self, start_run: StartRun) -> None:
        run = start_run()
        settled = run.drive(run.subject())
        assert settled["status"] == "succeeded"
        assert run.log_numbers() == list(range(1, 23))  # a line of each step, two of the verdict
        assert run.lines[-1].startswith("attempt 1: succeeded")
        assert any("1:progress step 20 of 20 (100 %), loss 0.05" in line for line in run.lines)
        assert run.state() == final_state(20)
        assert run.result().outputs["state"].digest

    def test_is_the_same_event_for_a_second_owner_who_comes_later(self, start_run: StartRun) -> None:
        run = start_run()
        first = run.subject(owner("one"))
        run.drive(first, until=run.began)
        second = run.subject(owner("two"))
        assert run.drive(second)["status"] == run.drive(first)["status"] == "succeeded"
        assert len(run.witnessed("begin")) == 1

    @pytest.mark.parametrize(
        ("trouble", "error", "told"),
        [
            ("data", "DataError", "row 7"),
            ("loss", "NonFiniteLoss", "step 8"),
            ("memory", "OutOfMemory", "smaller batch"),
            ("disk", "StorageFull", "no space left"),
            ("crash", "WorkloadFailed", "something unforeseen"),
        ],
    )
    def test_a_failure_is_told_as_what_it_is(self, start_run: StartRun, trouble: str, error: str, told: str) -> None:
        run = start_run(trouble={"at": 8, "kind": trouble})
        settled = run.drive(run.subject())
        assert (settled["status"], settled["error"]) == ("failed", error)
        assert told in settled["message"]
        assert not run.store.exists(f"{run.directory}/result.json")
        assert run.log_numbers()[:8] == list(range(1, 9))

    def test_a_missing_python_is_told_at_once(self, start_run: StartRun) -> None:
        run = start_run()
        arguments = run.arguments()
        settled = run.drive(WorkloadSubject(**{**arguments, "backend": {"target": "local", "python": "/no/python"}}))
        assert settled["error"] == "ConfigurationError"
        assert "/no/python" in settled["message"]


class TestLostTrigger:
    def test_another_goes_on_where_it_was_and_at_most_one_chunk_shows_twice(
        self, start_run: StartRun, tmp_path: Path
    ) -> None:
        run = start_run(steps=300, step_s=0.01, checkpoint_every=100, until=str(tmp_path / "gate"))
        arguments = run.arguments()
        run.drive(WorkloadSubject(**arguments), until=lambda: _shown_chunks(run) > 2)
        shown, longest_chunk = run.log_numbers(), max(_chunk_lengths(run))
        assert len(shown) > longest_chunk
        run.let_finish()
        run.lines = []
        assert run.drive(WorkloadSubject(**arguments))["status"] == "succeeded"
        again = run.log_numbers()
        assert sorted(set(shown + again)) == list(range(1, 303)), "a line is missing"
        assert len(set(shown) & set(again)) <= longest_chunk


def _shown_chunks(run: WorkloadRun) -> int:
    ends = list(accumulate(_chunk_lengths(run)))
    return sum(end <= len(run.log_numbers()) for end in ends)


def _chunk_lengths(run: WorkloadRun) -> list[int]:
    infos = run.store.list(run.attempt().path("log"))
    return [len(run.store.get(info.path).decode().splitlines()) for info in infos]


class TestCancel:
    def test_lets_it_checkpoint_and_stop_and_a_later_task_resumes(self, start_run: StartRun, tmp_path: Path) -> None:
        run = start_run(until=str(tmp_path / "gate"))
        subject = run.subject()
        run.drive(subject, until=run.began)
        subject.cancel("its task is failed")
        wait_for(lambda: attempts.recorded_ending(run.attempt()), what="the stop")
        assert not run.child().is_alive()
        assert subject.poll().lines == []
        assert run.newest() == 1

        run.let_finish()
        assert run.drive(run.subject(owner("two")))["status"] == "succeeded"
        stopped_at = int(run.witnessed("stop")[0].rpartition("=")[2])
        resumed_from = int(run.witnessed("begin attempt=2")[0].split("from=")[1].split()[0])
        assert resumed_from == stopped_at
        assert run.state() == final_state(20)

    def test_of_one_owner_leaves_it_to_the_other(self, start_run: StartRun, tmp_path: Path) -> None:
        run = start_run(until=str(tmp_path / "gate"))
        first, second = run.subject(owner("one")), run.subject(owner("two"))
        run.drive(first, until=run.began)
        first.cancel("its task is failed")
        run.let_finish()
        assert run.drive(second)["status"] == "succeeded"
        assert len(run.witnessed("begin")) == 1

    def test_before_it_began_means_that_it_never_does(self, start_run: StartRun) -> None:
        run = start_run()
        subject = run.subject()
        attempts.claim(run.store, run.directory, number=1, backend={"target": "local"}, owner=None, step=-1, stalls=0)
        subject.cancel("its task is removed")
        assert list(owners.active(run.store)) == [(run.directory, owner())]
        assert run.witnessed() == []
        assert attempts.recorded_ending(run.attempt()) is not None


@pytest.mark.parametrize(
    ("figures", "line"),
    [
        ({"step": 40, "total": 190, "loss": 1.23456, "eta_s": 71.2}, "step 40 of 190 (21 %), loss 1.235, 0:01:11 left"),
        ({"step": 3, "tokens_per_s": 12345.6}, "step 3, 12,346 tokens/s"),
        ({"phase": "loading"}, "phase loading"),
        ({"step": 0, "total": 0}, "step 0"),
    ],
)
def test_progress_reads_like_a_sentence(figures: dict[str, object], line: str) -> None:
    assert describe_progress(figures) == line
