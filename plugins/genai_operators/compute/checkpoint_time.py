"""How long checkpoints take, as the workload reports it, and whether it has time enough for the last one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genai_operators.compute.contract import Attempt

#: Under this name a workload reports, as progress, how long a checkpoint took: from when it was decided on, at the end
#: of a step, to when it was in the store. In seconds. Of those of an attempt the heartbeat keeps the longest.
CHECKPOINT_FIGURE = "checkpoint_seconds"
#: The next one may take longer, and a step has to end first.
SAFETY = 2.0


def with_longest(before: Mapping[str, Any], figures: Mapping[str, Any]) -> dict[str, Any]:
    """``figures`` on top of those ``before``; of the durations of checkpoints the longest stays."""
    merged = {**before, **figures}
    if CHECKPOINT_FIGURE in merged:
        merged[CHECKPOINT_FIGURE] = max(checkpoint_s(before), checkpoint_s(figures))
    return merged


def checkpoint_s(figures: Mapping[str, Any]) -> float:
    """The duration that ``figures`` tell; 0 where they tell none."""
    told = figures.get(CHECKPOINT_FIGURE)
    return float(told) if isinstance(told, int | float) else 0.0


def longest_checkpoint_s(attempt: Attempt) -> float:
    """Longest checkpoint of the attempts before this one; 0 where none reported any. One request an attempt."""
    earlier = [
        Attempt(store=attempt.store, directory=attempt.directory, number=number) for number in range(1, attempt.number)
    ]
    beats = [each.store.find_json(each.path("heartbeat.json")) or {} for each in earlier]
    return max((checkpoint_s(beat.get("progress") or {}) for beat in beats), default=0.0)


def too_short(grace_s: float, figures: Mapping[str, Any]) -> str | None:
    """A warning for the log, where the grace is less than twice the longest checkpoint."""
    longest = checkpoint_s(figures)
    if grace_s >= SAFETY * longest:
        return None
    return (
        f"a checkpoint took {longest:.1f} s, but from SIGTERM to SIGKILL there are only {grace_s:.0f} s: the last one "
        f"may be cut short. Set grace_s to at least {SAFETY * longest:.0f}."
    )
