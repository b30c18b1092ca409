"""How every operator waits until its subject has settled: in the triggerer, or by the same polls on the worker."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from genai_operators.compute.watch import POLL_PATIENCE_S, STATUS_TIMEOUT
from genai_operators.exceptions import ClusterUnavailable, GenaiError

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from genai_operators.compute.owners import Owner
    from genai_operators.compute.watch import Subject, WorkloadSubject

#: Of a release or a rollback on the worker: one more look, then the next try of the task goes on.
RELEASE_PATIENCE_S = 0.0


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


def defer(
    operator: BaseOperator,
    subject: str,
    arguments: dict[str, Any],
    *,
    owner: Owner,
    poll_interval: float,
    deadline: float | None = None,
) -> NoReturn:
    """Wait in the triggerer; the operator's ``resume`` gets the event.

    :param subject: dotted path of a :class:`~genai_operators.compute.watch.Subject`. :param arguments: its own.
    :param deadline: in seconds since the epoch; then the event says ``timeout``.
    """
    from genai_operators.triggers import SettleTrigger

    operator.defer(
        trigger=SettleTrigger(
            subject_class=subject,
            subject_kwargs=arguments,
            owner=owner.to_json(),
            poll_interval=poll_interval,
            deadline=deadline,
        ),
        method_name="resume",
    )
    raise AssertionError("defer() always raises")


def wait(
    subject: Subject,
    *,
    deadline: float | None,
    poll_interval: float,
    log: Log,
    patience_s: float = POLL_PATIENCE_S,
) -> dict[str, Any]:
    """How it settled, or ``{"status": "timeout"}``.

    :param deadline: in seconds since the epoch. :param poll_interval: seconds, unless a poll says when the next is due.
    :param patience_s: how long polls may go on failing before the wait itself fails.
    :raises GenaiError: looking at it failed, for good or for longer than ``patience_s``.
    """
    failing_since: float | None = None
    while deadline is None or time.time() <= deadline:
        try:
            poll = subject.poll()
        except GenaiError as error:
            failing_since = failing_since or time.monotonic()
            if not error.retry_helps or time.monotonic() - failing_since > patience_s:
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
