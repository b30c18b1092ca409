"""What the trigger does, on the worker: poll a subject until it settles."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from genai_operators.exceptions import ClusterUnavailable, GenaiError

if TYPE_CHECKING:
    from genai_operators.compute.watch import Subject, WorkloadSubject

STATUS_TIMEOUT = "timeout"
#: How long polls may go on failing (the store or the cluster is away) before the wait itself fails.
POLL_PATIENCE_S = 300.0


class Log(Protocol):
    """A task's log."""

    def info(self, event: str, *args: object) -> Any:
        """A line."""

    def warning(self, event: str, *args: object) -> Any:
        """A line that stands out."""


def start(subject: WorkloadSubject, *, log: Log) -> None:
    """Take the first step. A cluster that does not answer now is asked again by whoever waits."""
    try:
        for line in subject.start().lines:
            log.info("%s", line)
    except ClusterUnavailable as error:
        log.warning("%s: %s; looking again", type(error).__name__, error)


def wait(subject: Subject, *, deadline: float | None, poll_interval: float, log: Log) -> dict[str, Any]:
    """How it settled, or ``{"status": "timeout"}``.

    :param deadline: in seconds since the epoch. :param poll_interval: seconds, unless a poll says when the next is due.
    :raises GenaiError: looking at it failed, for good or for longer than :data:`POLL_PATIENCE_S`.
    """
    failing_since: float | None = None
    while deadline is None or time.time() <= deadline:
        try:
            poll = subject.poll()
        except GenaiError as error:
            failing_since = failing_since or time.monotonic()
            if not error.retry_helps or time.monotonic() - failing_since > POLL_PATIENCE_S:
                raise
            log.warning("%s: %s; looking again", type(error).__name__, error)
            time.sleep(poll_interval)
            continue
        failing_since = None
        for line in poll.lines:
            log.info("%s", line)
        if poll.settled is not None:
            return poll.settled
        if not poll.more:
            time.sleep(poll_interval if poll.next_s is None else poll.next_s)
    return {"status": STATUS_TIMEOUT}
