"""Processes of Airflow die: a worker, a triggerer, a scheduler that takes its workers along."""

from __future__ import annotations

import signal
import threading
from typing import Any

from tests.fakes.checkpointing_operator import CheckpointingOperator
from tests.fakes.faults.processes import Processes
from tests.fakes.faults.table import ROWS
from tests.fakes.kubernetes_run import ClusterRun
from tests.fakes.workload_run import owner, wait_for

Settled = dict[str, Any]
WAITS: dict[str, Any] = {"waits": True}


@ROWS.row("worker killed", "before create", "during create", "after create", params=WAITS)
def worker_killed(run: ClusterRun, phase: str) -> Settled:
    """The retry of the task, on any worker, meets the job that the first try made."""
    with Processes(run) as processes:
        assert processes.worker(*phase.split()) is None
        return processes.settled(processes.deferred())


@ROWS.row("worker killed", "once deferred", params=WAITS)
def worker_killed_at_last(run: ClusterRun) -> Settled:
    with Processes(run) as processes:
        assert processes.worker("after", "start") is None
        return processes.settled(processes.deferred())


@ROWS.row("triggerer killed", "queued", "starting", "running", params={**WAITS, "step_s": 0.1})
def triggerer_killed(run: ClusterRun, phase: str) -> Settled:
    """Another one takes the trigger over."""
    if phase == "queued":
        run.cluster.faults.hold_scheduling()
    elif phase == "starting":
        run.cluster.faults.refuse_image(run.cluster.image)
    with Processes(run) as processes:
        arguments = processes.deferred()
        triggerer = processes.start("triggerer", arguments)
        wait_for(lambda: run.began() if phase == "running" else run.pods())
        if phase == "running":
            wait_for(lambda: run.chunks_noted() >= 3, what="the triggerer to have shown more than one chunk")
        processes.kill(triggerer)
        if phase == "queued":
            run.cluster.faults.hold_scheduling(held=False)
        elif phase == "starting":
            run.cluster.faults.allow_image(run.cluster.image)
        return processes.settled(arguments)


@ROWS.row("create applied, answer lost", "", params=WAITS)
def answer_lost(run: ClusterRun) -> Settled:
    run.cluster.faults.lose_answers(1, verb="create", resource="jobs")
    return run.finish(run.submit())


@ROWS.row("scheduler restarted", "while its worker waits", params=WAITS)
def scheduler_restarted(run: ClusterRun) -> Settled:
    """It ends its workers, whose ``on_kill`` runs; and a triggerer that is told to stop. Neither cancels."""
    with Processes(run) as processes:
        arguments = processes.deferred()
        triggerer = processes.start("triggerer", arguments)
        wait_for(run.starts)
        CheckpointingOperator(task_id="train", settings=run.params).on_kill()
        processes.kill(triggerer, signal.SIGTERM)
        assert not run.store.exists(run.attempt().path("cancel.json"))
        return processes.settled(arguments)


@ROWS.row("two runs of one fingerprint", "at once", params=WAITS)
def two_runs(run: ClusterRun) -> Settled:
    """Two tasks of different runs begin at the same moment. One computes, both have the result."""
    others = [owner("one"), owner("two")]
    barrier = threading.Barrier(len(others))
    settled: list[Settled] = []

    def task(number: int) -> None:
        barrier.wait()
        subject = run.subject(others[number])
        subject.start()
        if number:  # only one log is looked at
            settled.append(run.watch(subject))
        else:
            run.open_gate()
            settled.append(run.drive(subject))

    threads = [threading.Thread(target=task, args=(number,)) for number in range(len(others))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.settle(others[1])
    assert [each["status"] for each in settled] == ["succeeded"] * len(others)
    return settled[0]
