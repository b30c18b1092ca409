"""The machine is taken away: preemption, eviction, lost nodes, pods that do not go, Jobs deleted by hand."""

from __future__ import annotations

import os
import signal
from typing import Any

from tests.fakes.faults.capacity import LADDER, asked
from tests.fakes.faults.table import ROWS
from tests.fakes.kubernetes_run import ClusterRun
from tests.fakes.workload_run import wait_for

Settled = dict[str, Any]
WAITS: dict[str, Any] = {"waits": True}


def take_away(run: ClusterRun, how: str, *, times: int = 1) -> Settled:
    """Let it reach a further checkpoint, then take its pod; the Job starts another each time."""
    subject = run.submit()
    taken: list[str] = []
    reached = 0
    for _ in range(times):
        beyond = min(reached, run.params["steps"] - 2)  # on a busy machine it may wait at its last step already
        run.drive(subject, until=lambda beyond=beyond: run.checkpoint() > beyond and has_begun(run, len(taken)))  # type: ignore[misc]
        pod = run.pod(but=taken)
        getattr(run.cluster.faults, how)(pod)
        taken.append(pod)
        wait_for(lambda: run.starts() > len(taken), what="the next process")
        reached = run.checkpoint()
    run.drive(subject, until=lambda: run.starts() == times + 1)
    return run.finish(subject)


def has_begun(run: ClusterRun, before: int) -> bool:
    """Whether its code was reached more than ``before`` times; in the pods of a real cluster that cannot be seen."""
    return run.cluster.real or len(run.witnessed("begin")) > before


@ROWS.row("preempted", "once", params=WAITS, begun=2)
def preempted_once(run: ClusterRun) -> Settled:
    return take_away(run, "preempt")


@ROWS.row("preempted", "twice", params={**WAITS, "checkpoint_every": 1}, begun=3)
def preempted_twice(run: ClusterRun) -> Settled:
    return take_away(run, "preempt", times=2)


@ROWS.row("preempted", "5 times", params={**WAITS, "checkpoint_every": 1}, begun=6)
def preempted_five_times(run: ClusterRun) -> Settled:
    return take_away(run, "preempt", times=5)


@ROWS.row("preempted", "before it runs", params=WAITS)
def preempted_before_it_runs(run: ClusterRun) -> Settled:
    run.cluster.faults.refuse_image(run.cluster.image)
    subject = run.submit()
    run.drive(subject, until=run.pods)
    pod = run.pod("Pending")
    run.cluster.faults.preempt(pod)
    run.cluster.faults.allow_image(run.cluster.image)
    return run.finish(subject)


@ROWS.row("preempted", "no other machine within the limit", params=WAITS, jobs=2, begun=2)
def preempted_for_good(run: ClusterRun) -> Settled:
    """The next rung of the ladder is asked for."""
    run.ladder = LADDER
    subject = run.submit(preempted_s=2.0)
    run.drive(subject, until=lambda: run.checkpoint() >= 5)
    run.cluster.faults.hold_scheduling()
    run.cluster.faults.preempt(run.pod())
    run.drive(subject, until=lambda: run.newest() == 2)
    run.cluster.faults.hold_scheduling(held=False)
    settled = run.finish(subject)
    assert asked(run, "memory_bytes") == [rung.memory_bytes for rung in LADDER]
    return settled


@ROWS.row("drained", "running", params=WAITS, begun=2)
def drained(run: ClusterRun) -> Settled:
    """By the eviction API; this needs no fake."""
    subject = run.submit()
    run.drive(subject, until=lambda: run.checkpoint() >= 5)
    pod = run.pod()
    run.cluster.evict_pod(pod)
    run.drive(subject, until=lambda: run.starts() == 2)
    return run.finish(subject)


@ROWS.row("evicted", "running", params=WAITS, begun=2)
def evicted(run: ClusterRun) -> Settled:
    return take_away(run, "evict")


@ROWS.row("container killed without a reason", "running", params=WAITS, jobs=2, begun=2)
def container_killed(run: ClusterRun) -> Settled:
    """Exit code 137 and nothing that says whose fault it is: the Job fails, the next attempt resumes."""
    subject = run.submit()
    run.drive(subject, until=lambda: run.checkpoint() >= 5)
    run.cluster.faults.kill_container(run.pod())
    run.drive(subject, until=lambda: run.began(2))
    return run.finish(subject)


@ROWS.row("node lost", "its processes die with it", params=WAITS, begun=2)
def node_lost(run: ClusterRun) -> Settled:
    return lose_node(run, kill=True)


@ROWS.row("node lost", "its processes live on", params={**WAITS, "alone": False}, begun=2)
def node_cut_off(run: ClusterRun) -> Settled:
    """They reach the store, but nobody reaches them: the zombie ends itself when it sees its successor."""
    return lose_node(run, kill=False)


@ROWS.row("node lost", "and nobody removes its pod", params=WAITS, jobs=2, begun=2)
def node_forgotten(run: ClusterRun) -> Settled:
    """The pod would stay Terminating for ever: it is removed by force, with its Job, once its node was silent."""
    return lose_node(run, kill=True, collect_after_s=None)


def lose_node(run: ClusterRun, **options: Any) -> Settled:
    subject = run.submit()
    run.drive(subject, until=lambda: run.checkpoint() >= 5)
    pod, process = run.pod(), run.child()
    node = run.node(pod)
    run.cluster.faults.lose_node(node, **options)
    run.drive(subject, until=lambda: len(run.witnessed("begin")) == 2)
    wait_for(lambda: not process.is_alive(), what="the end of the process that everybody took for dead")
    run.cluster.faults.heal_node(node)
    return run.finish(subject)


@ROWS.row("pod stuck terminating", "after a preemption", params=WAITS, begun=2)
def stuck(run: ClusterRun) -> Settled:
    """While it is there nothing begins in its place."""
    subject = run.submit()
    run.drive(subject, until=lambda: run.checkpoint() >= 5)
    pod = run.pod()
    run.cluster.faults.stick(pod)
    run.cluster.faults.preempt(pod)
    wait_for(lambda: run.cluster.faults.process_of(pod) == 0, what="the end of its processes")
    beats = iter(range(20))
    run.drive(subject, until=lambda: next(beats, None) is None)
    assert run.starts() == 1
    run.cluster.faults.unstick(pod)
    run.drive(subject, until=lambda: run.starts() == 2)
    return run.finish(subject)


@ROWS.row("Job deleted by hand", "queued", params=WAITS, jobs=2)
def job_deleted_in_the_queue(run: ClusterRun) -> Settled:
    """It had not begun, so the same attempt is launched again."""
    run.cluster.faults.hold_scheduling()
    subject = run.submit()
    run.drive(subject, until=run.pods)
    run.cluster.delete_job(run.attempt().name)
    wait_for(lambda: not run.jobs())
    run.cluster.faults.hold_scheduling(held=False)
    return run.finish(subject)


@ROWS.row("Job deleted by hand", "running", params=WAITS, jobs=2, begun=2)
def job_deleted(run: ClusterRun) -> Settled:
    subject = run.submit()
    run.drive(subject, until=lambda: run.checkpoint() >= 5)
    run.jobs()
    run.cluster.delete_job(run.attempt().name)
    run.drive(subject, until=lambda: run.newest() == 2)
    return run.finish(subject)


@ROWS.row("pod deleted by hand", "running", params=WAITS, jobs=2, begun=2)
def pod_deleted(run: ClusterRun) -> Settled:
    """No disruption, says Kubernetes: the Job fails; the workload had checkpointed, and the next attempt resumes."""
    subject = run.submit()
    run.drive(subject, until=lambda: run.checkpoint() >= 5)
    run.jobs()
    run.cluster.delete_pod(run.pod())
    run.drive(subject, until=lambda: run.newest() == 2)
    return run.finish(subject)


@ROWS.row("killed after its result", "before it could say so", params=WAITS)
def killed_after_the_result(run: ClusterRun) -> Settled:
    """The supervisor sleeps while the workload finishes, and is killed before it wakes up."""
    subject = run.submit()
    run.drive(subject, until=lambda: run.checkpoint() >= 15)
    pod = run.pod()
    os.kill(run.supervisor().pid, signal.SIGSTOP)
    run.open_gate()
    wait_for(lambda: run.store.exists(f"{run.directory}/result.json"), what="the result")
    run.cluster.faults.kill_container(pod)
    return run.drive(subject)


@ROWS.row("no progress", "preempted without a step", ends="NoProgress", params={"step_s": 0.5}, begun=None)
def no_progress(run: ClusterRun) -> Settled:
    """Three times in vain, then it is stopped: two restarts may bring nothing here."""
    subject = run.submit(resumes_without_progress=2)
    taken: list[str] = []

    def preempt_again() -> bool:
        fresh = [pod for pod in run.pods() if pod["metadata"]["name"] not in taken and run.starts() == len(taken) + 1]
        if fresh and len(taken) < 4 and not fresh[0]["metadata"].get("deletionTimestamp"):
            taken.append(fresh[0]["metadata"]["name"])
            run.cluster.faults.preempt(taken[-1], grace_s=0)
        return False

    return run.drive(subject, until=preempt_again)
