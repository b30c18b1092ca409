"""How long a pod gets between SIGTERM and SIGKILL: at least twice what a checkpoint has taken."""

from __future__ import annotations

from genai_operators.compute.contract import Attempt
from genai_operators.compute.kubernetes.settings import DEFAULT_GRACE_S

#: Under this name a workload reports the duration of its longest checkpoint, in seconds, as progress.
CHECKPOINT_FIGURE = "checkpoint_seconds"
SAFETY = 2.0


def grace_s(attempt: Attempt, chosen: float | None) -> float:
    """Seconds for the last checkpoint. :param chosen: by the user; it holds whatever was measured."""
    return chosen if chosen is not None else max(DEFAULT_GRACE_S, SAFETY * measured_checkpoint_s(attempt))


def measured_checkpoint_s(attempt: Attempt) -> float:
    """Longest checkpoint that the attempt before this one reported; 0 where none did."""
    if attempt.number == 1:
        return 0.0
    before = Attempt(store=attempt.store, directory=attempt.directory, number=attempt.number - 1)
    heartbeat = attempt.store.find_json(before.path("heartbeat.json")) or {}
    told = (heartbeat.get("progress") or {}).get(CHECKPOINT_FIGURE)
    return float(told) if isinstance(told, int | float) else 0.0
