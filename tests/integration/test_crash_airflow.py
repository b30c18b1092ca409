"""The same promises as in ``test_crash_compute.py``, kept inside a real Airflow whose processes are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from genai_operators.compute import attempts, owners
from genai_operators.compute.owners import Owner
from genai_operators.compute.reconcile import reconcile_workloads
from tests.fakes.airflow_platform import AirflowPlatform
from tests.fakes.checkpointing import final_state
from tests.fakes.workload_run import WorkloadRun, wait_for

pytestmark = pytest.mark.slow

PATIENCE_S = 120.0  # Airflow on two busy cores
DEFERRED, ON_WORKER = "checkpointing_deferred", "checkpointing_on_worker"


class TaskRun:
    """A run of the DAG around a checkpointing workload that waits at its last step until it is let go."""

    def __init__(self, platform: AirflowPlatform, folder: Path, dag: str) -> None:
        self.platform = platform
        self.dag = dag
        self.workload = WorkloadRun(folder, until=str(folder / "gate"))
        self.id = platform.trigger(dag, settings=self.workload.params, store=self.workload.store.uri)
        wait_for(lambda: self._find_directory(), what="the workload", patience_s=PATIENCE_S)
        wait_for(self.workload.began, patience_s=PATIENCE_S)

    def _find_directory(self) -> bool:
        """The operator's workload has an input as well, so its fingerprint is another."""
        found = self.workload.store.list("active")
        if found:
            self.workload.directory = self.workload.store.get_json(found[0].path)["directory"]
        return bool(found)

    @property
    def state(self) -> str | None:
        state: str | None = self.platform.task(self.dag, self.id)["state"]
        return state

    def wait_for_state(self, *states: str | None) -> None:
        wait_for(lambda: self.state in states, what=f"{states}, not {self.state}", patience_s=PATIENCE_S)

    def triggerer(self) -> int | None:
        """Which one runs the trigger now."""
        job = self.platform.task(self.dag, self.id)["triggerer_job"]
        return None if job is None else int(job["id"])

    def wait_for_trigger(self) -> None:
        """Until a trigger looks at it: a task that ends before that is for reconciling to find."""
        self.wait_for_state("deferred")
        wait_for(
            lambda: "attempt 1: running" in self.platform.log(self.dag, self.id, 1),
            what="the trigger's first look",
            patience_s=PATIENCE_S,
        )

    def is_cancelled(self) -> bool:
        return attempts.is_cancelled(self.workload.attempt())

    def finish(self, *, attempts_begun: int = 1) -> None:
        """Let it go; it must end green, with one process at any time."""
        self.workload.let_finish()
        self.wait_for_state("success")
        assert self.workload.witnessed("TWICE") == []
        assert len(self.workload.witnessed("begin")) == attempts_begun
        assert self.workload.state() == final_state(20)
        assert list(owners.active(self.workload.store)) == []

    def wait_for_stop(self) -> None:
        wait_for(lambda: attempts.recorded_ending(self.workload.attempt()), what="the stop", patience_s=PATIENCE_S)
        assert self.workload.newest() == 1


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Iterator[AirflowPlatform]:
    platform = AirflowPlatform(tmp_path_factory.mktemp("airflow"), project_root)
    yield platform
    platform.end()


@pytest.fixture
def start(platform: AirflowPlatform, tmp_path: Path) -> Iterator[Callable[..., TaskRun]]:
    runs: list[TaskRun] = []

    def start(dag: str = DEFERRED) -> TaskRun:
        if dag == DEFERRED and "triggerer" not in platform.processes:
            platform.start("triggerer")
        runs.append(TaskRun(platform, tmp_path, dag))
        return runs[-1]

    yield start
    for run in runs:
        run.workload.end_everything()


def task_process(run: TaskRun) -> psutil.Process:
    """The process in which the task's code runs: the one that has just joined the workload's owners."""
    pid = run.platform.task(run.dag, run.id)["pid"]
    return psutil.Process(int(pid))


class TestTriggerer:
    def test_killed_and_another_started(self, platform: AirflowPlatform, start: Callable[..., TaskRun]) -> None:
        run = start()
        run.wait_for_state("deferred")
        platform.kill("triggerer")
        platform.start("triggerer")
        run.finish()
        log = platform.log(run.dag, run.id, 1)
        for number in range(1, 21):
            assert f"1:{number:06d} line of step {number}" in log
        assert "1:progress step 20 of 20 (100 %)" in log

    def test_asleep_while_another_took_over(self, platform: AirflowPlatform, start: Callable[..., TaskRun]) -> None:
        run = start()
        run.wait_for_state("deferred")
        asleep = wait_for(run.triggerer, what="a triggerer", patience_s=PATIENCE_S)
        platform.signal("triggerer", signal.SIGSTOP)
        platform.start("second triggerer")

        wait_for(lambda: run.triggerer() not in (None, asleep), what="another triggerer", patience_s=PATIENCE_S)
        platform.signal("triggerer", signal.SIGCONT)
        # It learns that the trigger is no longer its own, and drops it as if somebody had killed the task.
        wait_for(lambda: "what it waits for goes on" in platform.log(run.dag, run.id, 1), patience_s=PATIENCE_S)
        assert not run.is_cancelled()
        platform.kill("triggerer")
        run.finish()
        platform.kill("second triggerer")


class TestUser:
    def test_marks_it_failed(self, platform: AirflowPlatform, start: Callable[..., TaskRun]) -> None:
        run = start()
        run.wait_for_trigger()
        platform.mark(run.dag, run.id, "failed")
        run.wait_for_stop()

    def test_clears_it(self, platform: AirflowPlatform, start: Callable[..., TaskRun]) -> None:
        run = start()
        run.wait_for_state("deferred")
        platform.clear(run.dag, run.id)
        run.wait_for_state("running", "deferred")
        assert not run.is_cancelled()
        run.finish()

    def test_marks_it_failed_while_no_triggerer_lives(
        self, platform: AirflowPlatform, start: Callable[..., TaskRun]
    ) -> None:
        run = start()
        run.wait_for_state("deferred")
        platform.kill("triggerer")
        platform.mark(run.dag, run.id, "failed")

        def state_of(owner: Owner) -> str | None:
            state: str | None = platform.task(owner.dag_id, owner.run_id)["state"]
            return state

        assert not run.is_cancelled()
        reconcile_workloads(run.workload.store, state_of)
        run.wait_for_stop()


class TestWorker:
    def test_killed_while_it_waits_is_tried_again_and_adopts(self, start: Callable[..., TaskRun]) -> None:
        run = start(ON_WORKER)
        os.kill(task_process(run).pid, signal.SIGKILL)
        wait_for(lambda: run.platform.task(run.dag, run.id)["try_number"] == 2, patience_s=PATIENCE_S)
        run.finish()

    def test_scheduler_killed_with_its_workers(self, platform: AirflowPlatform, start: Callable[..., TaskRun]) -> None:
        run = start()
        run.wait_for_state("deferred")
        platform.kill("scheduler")
        platform.start("scheduler")
        run.finish()
