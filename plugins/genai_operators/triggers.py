"""The one trigger: wait until a workload or a release settles, and show what it says meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk.module_loading import import_string  # type: ignore[attr-defined]  # re-exported
from airflow.triggers.base import BaseTrigger, TriggerEvent

from genai_operators.compute.owners import Owner
from genai_operators.compute.reconcile import FINISHED_STATES
from genai_operators.compute.watch import POLL_PATIENCE_S, STATUS_TIMEOUT
from genai_operators.exceptions import GenaiError

if TYPE_CHECKING:
    from genai_operators.compute.watch import Poll, Subject


#: A trigger of less age does not fire. The scheduler fails a task that is resumed before it has heard that the process
#: which deferred it is gone (apache/airflow#72716; on a busy machine that takes seconds), and a try is lost.
LEAST_AGE_S = 5.0


class SettleTrigger(BaseTrigger):
    """Polls a subject until it is settled.

    The event is what the subject says when it settled, ``{"status": "timeout"}`` past the deadline (a deferral timeout
    of Airflow calls neither us nor the operator, so the deadline is ours), or ``{"status": "failed", "error",
    "message"}`` when looking at it fails; always with ``subject``, its arguments, as ``dag.test()`` of Airflow 3.3
    resumes a task with nothing but the event.

    Losing this trigger loses nothing: the subject's state is in the store, and the next trigger goes on from there. It
    cancels the subject in one case only: Airflow says that the task has ended without us.

    :param subject_class: dotted path of a :class:`~genai_operators.compute.watch.Subject`.
    :param subject_kwargs: its arguments, plain JSON.
    :param owner: the waiting task: ``dag_id``, ``run_id``, ``task_id``, ``map_index``.
    :param poll_interval: seconds between two polls, unless a poll says when the next is due.
    :param deadline: when to stop waiting, in seconds since the epoch; ``None`` waits for ever.
    """

    def __init__(
        self,
        *,
        subject_class: str,
        subject_kwargs: dict[str, Any],
        owner: dict[str, Any],
        poll_interval: float = 2.0,
        deadline: float | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's base class is untyped
        self.subject_class = subject_class
        self.subject_kwargs = subject_kwargs
        self.owner = owner
        self.poll_interval = poll_interval
        self.deadline = deadline
        self._subject: Subject | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What makes an equal trigger elsewhere."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "subject_class": self.subject_class,
                "subject_kwargs": self.subject_kwargs,
                "owner": self.owner,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll in a thread (a subject blocks for its requests), log, and fire once."""
        began = time.monotonic()
        event = await self._settled()
        if self.trigger_id is not None:  # a scheduler has sent it; `dag.test()` runs without one
            await asyncio.sleep(LEAST_AGE_S - (time.monotonic() - began))
        yield event

    async def _settled(self) -> TriggerEvent:
        failing_since: float | None = None
        while True:
            try:
                poll = await asyncio.to_thread(self._poll)
                failing_since = None
            except GenaiError as error:
                failing_since = failing_since or time.monotonic()
                if not error.retry_helps or time.monotonic() - failing_since > POLL_PATIENCE_S:
                    return self._event({"status": "failed", "error": type(error).__name__, "message": str(error)})
                self.log.warning("%s: %s; looking again", type(error).__name__, error)
                await asyncio.sleep(self.poll_interval)
                continue
            for line in poll.lines:
                self.log.info("%s", line)
            if poll.settled is not None:
                return self._event(poll.settled)
            if self.deadline is not None and time.time() > self.deadline:
                return self._event({"status": STATUS_TIMEOUT})
            if not getattr(poll, "more", False):
                next_s = getattr(poll, "next_s", None)
                await asyncio.sleep(self.poll_interval if next_s is None else next_s)

    async def on_kill(self) -> None:
        """Cancel the subject if Airflow says that its task has ended.

        A triggerer that slept through its heartbeat is told to drop triggers that another one runs by now, in the same
        way as for a task that somebody marked failed; a cleared task will adopt what runs. So the task's state decides.
        """
        state = await asyncio.to_thread(task_state, Owner.from_json(self.owner))
        if state not in FINISHED_STATES:
            self.log.info("dropped while the task is %s: what it waits for goes on", state)
            return
        self.log.info("the task is %s: cancelling what it waited for", state)
        await asyncio.to_thread(self._open().cancel, f"its task is {state}")

    def _open(self) -> Subject:
        if self._subject is None:
            subject: Subject = import_string(self.subject_class)(**self.subject_kwargs)
            self._subject = subject
        return self._subject

    def _event(self, settled: Mapping[str, Any]) -> TriggerEvent:
        payload = {**settled, "subject": self.subject_kwargs}
        return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's class is untyped

    def _poll(self) -> Poll:
        return self._open().poll()


def task_state(owner: Owner) -> str | None:
    """Airflow's state of a task instance, from within a task or a trigger (not on the trigger's own event loop).

    ``None``: it has none at present (it was cleared, or is not scheduled yet). ``"removed"``: there is no such task.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    answer: Mapping[str, Mapping[str, Any]] = RuntimeTaskInstance.get_task_states(
        dag_id=owner.dag_id, task_ids=[owner.task_id], run_ids=[owner.run_id], map_index=owner.map_index
    )
    # The API names a mapped instance "<task>_<index>" (get_task_instance_states of airflow-core 3.3).
    name = owner.task_id if owner.map_index < 0 else f"{owner.task_id}_{owner.map_index}"
    states = answer.get(owner.run_id, {})
    if name not in states:
        return "removed"
    return None if states[name] is None else str(states[name])
