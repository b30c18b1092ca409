"""The cluster's API is away, overloaded, forgetful, or refuses the token."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.fakes.faults.table import ROWS
from tests.fakes.kubernetes_run import ClusterRun
from tests.fakes.workload_run import wait_for

Settled = dict[str, Any]
WAITS: dict[str, Any] = {"waits": True}
#: Longer than the four tries of a request (2 s), the heartbeat (2 s), and the longest time between two polls (10 s).
OUTAGE_S = 12.0
MINUTE_S = 60.0
#: Requests in a row that are answered with an error: twice as many as one request is tried.
STORM = 8


def reach(run: ClusterRun, phase: str, *, trouble: Callable[[], Any]) -> Settled:
    """Bring the run to a phase, make trouble there, and finish."""
    if phase == "submit":
        trouble()
        return run.finish(run.submit())
    if phase == "starting":
        run.cluster.faults.hold_scheduling()
        subject = run.submit()
        run.drive(subject, until=run.pods)
        trouble()
        run.cluster.faults.hold_scheduling(held=False)
        return run.finish(subject)
    subject = run.submit()
    run.drive(subject, until=lambda: run.began() and run.checkpoint() >= 5)
    trouble()
    run.cluster.faults.drop_watches()  # whoever connects again meets it
    return run.finish(subject)


@ROWS.row("API server gone for 12 s", "submit", "starting", "running", params=WAITS)
def gone(run: ClusterRun, phase: str) -> Settled:
    return reach(run, phase, trouble=lambda: run.cluster.faults.outage(OUTAGE_S))


@ROWS.row("API server gone for a minute", "running", params=WAITS, slow=True)
def gone_for_a_minute(run: ClusterRun) -> Settled:
    """The workload, which needs the store only, computes and checkpoints meanwhile."""
    subject = run.submit()
    run.drive(subject, until=run.began)
    back = time.monotonic() + MINUTE_S
    run.cluster.faults.outage(MINUTE_S)
    run.drive(subject, until=lambda: time.monotonic() > back)
    assert run.checkpoint() >= 15
    assert any("looking again" in line for line in run.lines)
    return run.finish(subject)


@ROWS.row("API server overloaded (429)", "submit", "running", params=WAITS)
def overloaded(run: ClusterRun, phase: str) -> Settled:
    return reach(run, phase, trouble=lambda: run.cluster.faults.fail_requests(429, count=STORM))


@ROWS.row("API server broken (500, 503, 504)", "submit", "running", params=WAITS)
def broken(run: ClusterRun, phase: str) -> Settled:
    def storm() -> None:
        for code in (500, 503, 504):
            run.cluster.faults.fail_requests(code, count=STORM)

    return reach(run, phase, trouble=storm)


@ROWS.row("token expired (401)", "submit", "running", params=WAITS)
def token_expired(run: ClusterRun, phase: str) -> Settled:
    """A token provider has written a new one; the client in memory has the old."""
    run.cluster.api_client()
    if phase == "submit":  # the client of this connection exists already
        assert run.created() == 0
        run.open_client()
    return reach(run, phase, trouble=run.cluster.rotate_token)


@ROWS.row("watch expired (410)", "running", params=WAITS)
def watch_expired(run: ClusterRun) -> Settled:
    return disturb_watches(run, lambda: run.cluster.faults.expire_watches(4))


@ROWS.row("watch dropped", "running, three times", params=WAITS)
def watch_dropped(run: ClusterRun) -> Settled:
    def drop() -> None:
        for _ in range(3):
            wait_for(lambda: run.cluster.faults.figures()["watches"] >= 2, what="the watches")
            assert run.cluster.faults.drop_watches() >= 2

    return disturb_watches(run, drop)


@ROWS.row("watch stalled", "running, then preempted", params=WAITS, begun=2)
def watch_stalled(run: ClusterRun) -> Settled:
    """The connection is there, but nothing comes: what happens meanwhile is seen when the server ends it."""
    return disturb_watches(run, run.cluster.faults.stall_watches, also=preempt)


def preempt(run: ClusterRun) -> None:
    pod = run.pod()
    run.cluster.faults.preempt(pod)
    run.pod(but=[pod])


def disturb_watches(
    run: ClusterRun, trouble: Callable[[], Any], also: Callable[[ClusterRun], None] | None = None
) -> Settled:
    subject = run.submit()
    run.drive(subject, until=lambda: run.began() and run.cluster.faults.figures()["watches"] >= 2)
    trouble()
    run.drive(subject, until=lambda: run.checkpoint() >= 10)
    if also is not None:
        also(run)
    return run.finish(subject)
