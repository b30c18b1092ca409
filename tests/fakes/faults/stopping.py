"""A task that nobody wants any more: asked to stop in each phase, then gone from the cluster."""

from __future__ import annotations

from typing import Any

from genai_operators.compute import attempts
from genai_operators.compute.watch import WorkloadSubject
from tests.fakes.faults.table import CANCELLED, ROWS
from tests.fakes.kubernetes_run import ClusterRun
from tests.fakes.workload_run import wait_for

Settled = dict[str, Any]
WAITS: dict[str, Any] = {"waits": True}


def cancel(run: ClusterRun, arguments: dict[str, Any], subject: WorkloadSubject) -> Settled:
    """As the trigger does once Airflow says that its task failed; then what another triggerer is told."""
    subject.cancel("its task is failed")
    return run.drive(WorkloadSubject(**arguments))


def submit(run: ClusterRun) -> tuple[dict[str, Any], WorkloadSubject]:
    arguments = run.arguments()
    subject = WorkloadSubject(**arguments)
    subject.start()
    return arguments, subject


@ROWS.row("cancelled", "queued", "starting", ends=CANCELLED, begun=0, params=WAITS)
def before_it_runs(run: ClusterRun, phase: str) -> Settled:
    """What has not begun cannot be asked: it is taken out, and can never begin."""
    if phase == "queued":
        run.cluster.faults.hold_scheduling()
    else:
        run.cluster.faults.refuse_image(run.cluster.image)
    arguments, subject = submit(run)
    run.drive(subject, until=run.pods)
    settled = cancel(run, arguments, subject)
    wait_for(lambda: not run.jobs() and not run.pods(), what="the end of its Job")
    return settled


@ROWS.row("cancelled", "running", ends=CANCELLED, params=WAITS)
def while_it_runs(run: ClusterRun) -> Settled:
    """It checkpoints first."""
    arguments, subject = submit(run)
    run.drive(subject, until=lambda: run.checkpoint() >= 5)
    settled = cancel(run, arguments, subject)
    wait_for(lambda: attempts.recorded_ending(run.attempt()), what="its last checkpoint")
    return settled


@ROWS.row("cancelled", "preempted", ends=CANCELLED, params=WAITS)
def while_it_is_preempted(run: ClusterRun) -> Settled:
    """The pod that replaces it finds that nobody wants it, and does not begin."""
    return between_pods(run, comes=True)


@ROWS.row("cancelled", "no machine comes", ends=CANCELLED, params=WAITS)
def while_no_machine_comes(run: ClusterRun) -> Settled:
    """Nobody can hear of it: reconciling takes it out."""
    return between_pods(run, comes=False)


def between_pods(run: ClusterRun, *, comes: bool) -> Settled:
    arguments, subject = submit(run)
    run.drive(subject, until=lambda: run.checkpoint() >= 5)
    pod = run.pod()
    run.cluster.faults.hold_scheduling()
    run.cluster.faults.preempt(pod)
    run.drive(subject, until=lambda: [each for each in run.pods() if each["metadata"]["name"] != pod])
    settled = cancel(run, arguments, subject)
    run.cluster.faults.hold_scheduling(held=not comes)
    return settled


@ROWS.row("cancelled, then cleared", "while it stops", params=WAITS, jobs=2, begun=2, heard=2)
def cleared(run: ClusterRun) -> Settled:
    """Whoever wants it again resumes it as the next attempt."""
    _, subject = submit(run)
    run.drive(subject, until=lambda: run.checkpoint() >= 5)
    subject.cancel("its task is failed")
    assert attempts.is_cancelled(run.attempt())
    again = run.submit()
    run.drive(again, until=lambda: run.starts(2))
    return run.finish(again)
