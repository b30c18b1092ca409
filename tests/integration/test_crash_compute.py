"""kill -9 of whatever takes part in a workload, at any moment: one process at a time, one result, every line.

Workers, triggerers, supervisors and workloads are real processes here; only Airflow's own part (trying a task again,
moving a trigger to another triggerer) is played by the test.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute import attempts
from genai_operators.compute.reconcile import reconcile_workloads
from tests.fakes.checkpointing import KIND, final_state
from tests.fakes.workload_run import LOCAL, PATIENCE_S, WorkloadRun, environment, owner, wait_for

STEPS = 20


class Platform:
    """Starts workers and triggerers of one task, and collects its log."""

    def __init__(self, run: WorkloadRun) -> None:
        self.run = run
        self.log: list[str] = []
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, role: str, arguments: dict[str, Any], *point: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.fakes.crashing", role, json.dumps(arguments), *point]
        self.processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return self.processes[-1]

    def finish(self, process: subprocess.Popen[str]) -> dict[str, Any] | None:
        """Wait for its end; what it answered, or ``None`` if it was killed. What it said goes to the log."""
        said = process.communicate(timeout=PATIENCE_S)[0].splitlines()
        answer = None
        if process.returncode == 0:
            answer = json.loads(said.pop())
        self.log.extend(said)
        assert process.returncode in (0, -signal.SIGKILL)
        return answer

    def worker(self, *point: str) -> dict[str, Any] | None:
        """One try of the task, up to the moment when it defers."""
        arguments = {
            "store": self.run.store.uri,
            "kind": KIND,
            "params": self.run.params,
            "backend": LOCAL,
            "owner": owner().to_json(),
        }
        return self.finish(self.start("worker", arguments, *point))

    def triggerer(self, arguments: dict[str, Any], *point: str) -> dict[str, Any] | None:
        return self.finish(self.start("triggerer", arguments, *point))

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        self.run.end_everything()


@pytest.fixture
def platform(tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    for name, value in environment(tmp_path, project_root).items():
        monkeypatch.setenv(name, value)
    platform = Platform(WorkloadRun(tmp_path, steps=STEPS, until=str(tmp_path / "gate")))
    yield platform
    platform.end()


def assert_undisturbed(platform: Platform, *, attempts_begun: int) -> None:
    """One process at any time, each attempt begun once, and the bytes of a run that nobody disturbed."""
    run = platform.run
    assert run.witnessed("TWICE") == []
    begun = [line.split()[1] for line in run.witnessed("begin")]
    assert begun == [f"attempt={number}" for number in range(1, attempts_begun + 1)]
    assert len(run.witnessed("done")) == 1
    assert run.state() == final_state(STEPS)


def assert_every_line_shown(platform: Platform) -> None:
    """Lines of each attempt, numbered from 1 without a gap; at most one chunk of them twice."""
    run = platform.run
    for number in range(1, run.newest() + 1):
        infos = run.store.list(run.attempt(number).path("log"))
        written = [line for info in infos for line in run.store.get(info.path).decode().splitlines()]
        shown = [line.removeprefix(f"{number}:") for line in platform.log if line.startswith(f"{number}:0")]
        assert sorted(set(shown)) == written
        longest = max((len(run.store.get(info.path).decode().splitlines()) for info in infos), default=0)
        assert len(shown) - len(written) <= longest


class TestKilledWorker:
    @pytest.mark.parametrize(
        "point",
        [
            ("before", "spec.json"),
            ("before", "owners/"),
            ("after", "owners/"),
            ("before", "claim.json"),
            ("after", "claim.json"),
            ("during", "launch"),
            ("after", "start"),
        ],
        ids=" ".join,
    )
    def test_the_retry_meets_the_same_job(self, platform: Platform, point: tuple[str, str]) -> None:
        assert platform.worker(*point) is None
        arguments = platform.worker()
        assert arguments is not None
        platform.run.let_finish()
        settled = platform.triggerer(arguments)
        assert settled is not None
        assert settled["status"] == "succeeded"
        assert_undisturbed(platform, attempts_begun=1)
        assert_every_line_shown(platform)

    def test_five_times_in_a_row_at_random_moments(self, platform: Platform) -> None:
        moments = random.Random(5)
        for _ in range(5):
            arguments = {
                "store": platform.run.store.uri,
                "kind": KIND,
                "params": platform.run.params,
                "backend": LOCAL,
                "owner": owner().to_json(),
            }
            process = platform.start("worker", arguments)
            time.sleep(moments.uniform(0.05, 0.6))
            process.kill()
            platform.finish(process)
        answer = platform.worker()
        assert answer is not None
        platform.run.let_finish()
        assert platform.triggerer(answer) is not None
        assert_undisturbed(platform, attempts_begun=1)


def deferred(platform: Platform) -> dict[str, Any]:
    arguments = platform.worker()
    assert arguments is not None
    return arguments


class TestKilledTriggerer:
    @pytest.mark.parametrize("point", [("before", "shown/"), ("after", "shown/")], ids=" ".join)
    def test_another_goes_on_where_it_was(self, platform: Platform, point: tuple[str, str]) -> None:
        arguments = deferred(platform)
        wait_for(lambda: platform.run.store.exists(platform.run.attempt().path("log/000000.txt")))
        assert platform.triggerer(arguments, *point) is None
        platform.run.let_finish()
        assert platform.triggerer(arguments) is not None
        assert_undisturbed(platform, attempts_begun=1)
        assert_every_line_shown(platform)

    def test_one_that_slept_while_another_took_over_disturbs_nothing(self, platform: Platform) -> None:
        arguments = deferred(platform)
        sleeper = platform.start("triggerer", arguments)
        wait_for(platform.run.began)
        sleeper.send_signal(signal.SIGSTOP)
        platform.run.kill_child()  # while it sleeps, its successor claims the next attempt
        successor = platform.start("triggerer", arguments)
        wait_for(lambda: platform.run.began(2))
        sleeper.send_signal(signal.SIGCONT)
        platform.run.let_finish()
        for process in (sleeper, successor):
            settled = platform.finish(process)
            assert settled is not None
            assert settled["status"] == "succeeded"
        assert_undisturbed(platform, attempts_begun=2)

    def test_while_it_claims_the_next_attempt(self, platform: Platform) -> None:
        arguments = deferred(platform)
        wait_for(platform.run.began)
        platform.run.kill_child()
        assert platform.triggerer(arguments, "after", "claim.json") is None
        platform.run.let_finish()
        assert platform.triggerer(arguments) is not None
        assert_undisturbed(platform, attempts_begun=2)


class TestKilledWorkload:
    def test_resumes_by_itself_from_its_checkpoint(self, platform: Platform) -> None:
        arguments = deferred(platform)
        wait_for(lambda: attempts.newest_checkpoint_step(platform.run.store, platform.run.directory) >= 10)
        platform.run.kill_child()
        platform.run.let_finish()
        assert platform.triggerer(arguments) is not None
        assert_undisturbed(platform, attempts_begun=2)
        assert_every_line_shown(platform)
        assert "from=0" not in platform.run.witnessed("begin attempt=2")[0]

    def test_a_checkpoint_that_was_cut_short_is_passed_over(self, platform: Platform) -> None:
        arguments = deferred(platform)
        wait_for(lambda: attempts.newest_checkpoint_step(platform.run.store, platform.run.directory) >= 15)
        platform.run.kill_child()
        wait_for(lambda: attempts.recorded_ending(platform.run.attempt()))
        newest = attempts.newest_checkpoint_step(platform.run.store, platform.run.directory)
        platform.run.store.put(f"{platform.run.attempt().prefix}/checkpoints/{newest}/state.txt", b"cut sh")
        platform.run.let_finish()
        assert platform.triggerer(arguments) is not None
        assert_undisturbed(platform, attempts_begun=2)
        assert f"from={newest} " not in platform.run.witnessed("begin attempt=2")[0]

    @pytest.mark.parametrize("also", ["supervisor alone", "supervisor and triggerer"])
    def test_its_supervisor_takes_it_along_and_the_next_attempt_resumes(self, platform: Platform, also: str) -> None:
        arguments = deferred(platform)
        wait_for(platform.run.began)
        child = platform.run.child()
        triggerer = platform.start("triggerer", arguments)
        platform.run.kill_supervisor()
        wait_for(lambda: not child.is_alive())
        if also.endswith("triggerer"):
            triggerer.kill()
            platform.finish(triggerer)
            triggerer = platform.start("triggerer", arguments)
        platform.run.let_finish()
        settled = platform.finish(triggerer)
        assert settled is not None
        assert settled["status"] == "succeeded"
        assert_undisturbed(platform, attempts_begun=2)

    def test_everything_at_once_and_the_task_tried_again(self, platform: Platform) -> None:
        triggerer = platform.start("triggerer", deferred(platform))
        wait_for(platform.run.began)
        supervisor, child = platform.run.supervisor(), platform.run.child()
        triggerer.kill()
        for process in (supervisor, child):
            os.kill(process.pid, signal.SIGKILL)
        arguments = deferred(platform)
        platform.run.let_finish()
        assert platform.triggerer(arguments) is not None
        assert_undisturbed(platform, attempts_begun=2)

    def test_a_zombie_that_wakes_up_changes_nothing(self, platform: Platform) -> None:
        """An attempt that everybody took for dead finishes after its successor: the first result stands."""
        arguments = deferred(platform)
        platform.run.let_finish()
        assert platform.triggerer(arguments) is not None
        before = platform.run.store.get(f"{platform.run.directory}/result.json")
        env = {
            **os.environ,
            "GENAI_WORKLOAD_URI": platform.run.store.uri_of(platform.run.directory),
            "GENAI_ATTEMPT": "2",
            "GENAI_SCRATCH": str(platform.run.witness.parent / "zombie"),
        }
        zombie = subprocess.run([sys.executable, "-m", "genai_operators.workloads.main"], env=env, check=False)
        assert zombie.returncode == 0
        assert platform.run.store.get(f"{platform.run.directory}/result.json") == before


class TestMarkedFailed:
    def test_with_no_triggerer_alive_it_is_stopped_within_a_reconcile(self, platform: Platform) -> None:
        triggerer = platform.start("triggerer", deferred(platform))
        wait_for(platform.run.began)
        triggerer.kill()
        child = platform.run.child()
        assert len(reconcile_workloads(platform.run.store, lambda _owner: "failed")) == 1
        wait_for(lambda: not child.is_alive())
        wait_for(lambda: attempts.recorded_ending(platform.run.attempt()))
        assert platform.run.newest() == 1

    def test_a_triggerer_that_wakes_up_afterwards_starts_nothing(self, platform: Platform) -> None:
        sleeper = platform.start("triggerer", deferred(platform))
        wait_for(platform.run.began)
        sleeper.send_signal(signal.SIGSTOP)
        reconcile_workloads(platform.run.store, lambda _owner: "failed")
        wait_for(lambda: attempts.recorded_ending(platform.run.attempt()))
        sleeper.send_signal(signal.SIGCONT)
        settled = platform.finish(sleeper)
        assert settled is not None
        assert settled["status"] == "cancelled"
        assert platform.run.newest() == 1

    def test_clearing_it_afterwards_resumes_from_the_checkpoint(self, platform: Platform) -> None:
        deferred(platform)
        wait_for(platform.run.began)
        child = platform.run.child()
        reconcile_workloads(platform.run.store, lambda _owner: "failed")
        arguments = deferred(platform)  # while it is still stopping
        wait_for(lambda: not child.is_alive())
        platform.run.let_finish()
        assert platform.triggerer(arguments) is not None
        assert_undisturbed(platform, attempts_begun=2)
