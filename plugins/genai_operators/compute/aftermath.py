"""Why an attempt ended, beyond what its process said: who asked it to stop and why, what it had too little of."""

from __future__ import annotations

from genai_operators.compute.contract import Attempt
from genai_operators.compute.ending import Ending, error_class
from genai_operators.compute.escalation import Trouble
from genai_operators.exceptions import GenaiError, QuotaExceeded


def demanded(attempt: Attempt, ending: Ending) -> GenaiError | None:
    """The failure for whose sake it was asked to stop; ``None`` where it may be resumed for whoever still wants it."""
    if not ending.cancelled:
        return None
    asked = attempt.store.find_json(attempt.path("cancel.json")) or {}
    kind = error_class(asked.get("error"))
    return None if kind is None else kind(asked["reason"])


def trouble_of(ending: Ending, demand: GenaiError | None) -> Trouble | None:
    """What another rung, or another size, may mend."""
    if ending.error == QuotaExceeded.__name__ or isinstance(demand, QuotaExceeded):
        return Trouble.QUEUE
    memory = {"gpu": Trouble.GPU_MEMORY, "host": Trouble.HOST_MEMORY}
    return memory.get(ending.memory_that_ran_out or "")
