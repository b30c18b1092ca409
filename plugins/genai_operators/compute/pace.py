"""How often to look at an attempt on a shared platform: often while something is about to happen, then ever less."""

from __future__ import annotations

import time
from collections.abc import Callable

from genai_operators.compute.contract import Phase
from genai_operators.compute.standing import Standing

#: Bounds of the time between two looks, in seconds.
SHORTEST_S = 0.5
LONGEST_S = 10.0
#: Until its first line an attempt that starts or runs is looked at at least this often.
LONGEST_BEFORE_FIRST_LINE_S = 2.0
#: The time between two looks, as a share of the time for which it has been in its phase.
SHARE = 0.1


class Pace:
    """Of one workload. What it remembers may be lost: then it looks more often for a while."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._at: tuple[int, Phase] | None = None
        self._since = 0.0
        self._heard_of = 0

    def next_s(self, standing: Standing, *, said: bool) -> float:
        """Seconds until the next look. :param said: the workload has just said something."""
        now, at = self._monotonic(), (standing.attempt, standing.phase)
        if at != self._at:
            self._at, self._since = at, now
        if said:
            self._heard_of = standing.attempt
        awaited = standing.phase in (Phase.STARTING, Phase.RUNNING) and self._heard_of != standing.attempt
        longest = LONGEST_BEFORE_FIRST_LINE_S if awaited else LONGEST_S
        return min(max(SHORTEST_S, SHARE * (now - self._since)), longest)
