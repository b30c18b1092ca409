"""Processes of Airflow die: a worker, a triggerer."""

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
    """One that waits itself (``deferrable=False``). The retry, on any worker, meets the job that the first try made."""
    with Processes(run) as processes:
        assert processes.worker(*phase.split()) is None
        return processes.settled(processes.started())


@ROWS.row("worker killed", "after a look", params=WAITS)
def worker_killed_at_last(run: ClusterRun) -> Settled:
    with Processes(run) as processes:
        assert processes.worker("after", "start") is None
        return processes.settled(processes.started())


@ROWS.row(
    "triggerer killed as it submits", "before claim", "before create", "during create", "after create", params=WAITS
)
def triggerer_killed_as_it_submits(run: ClusterRun, phase: str) -> Settled:
    """The worker has deferred at once: in a cluster it is the triggerer that claims and creates."""
    arguments = run.arguments()
    with Processes(run) as processes:
        point = phase.replace("claim", "claim.json").split()
        assert processes.finish(processes.start("triggerer", arguments, *point)) is None
        return processes.settled(arguments)


@ROWS.row("triggerer killed", "queued", "starting", "running", params={**WAITS, "step_s": 0.1})
def triggerer_killed(run: ClusterRun, phase: str) -> Settled:
    """Another one takes the trigger over."""
    if phase == "queued":
        run.cluster.faults.hold_scheduling()
    elif phase == "starting":
        run.cluster.faults.refuse_image(run.cluster.image)
    arguments = run.arguments()
    with Processes(run) as processes:
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


@ROWS.row("worker and triggerer stopped", "while it runs", params=WAITS)
def stopped(run: ClusterRun) -> Settled:
    """As when Airflow is restarted: the worker's ``on_kill`` runs, the triggerer gets SIGTERM. Neither cancels.

    The trigger's own ``on_kill`` needs Airflow to say how the task is; see ``tests/integration/test_crash_airflow.py``.
    """
    arguments = run.arguments()
    with Processes(run) as processes:
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
