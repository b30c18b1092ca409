"""What met the candidate: requests, users, tokens, money. Counted at once, whatever the statistics say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from genai_operators.release.plan import ReleasePlan
from genai_operators.serving.contract import RequestFact

if TYPE_CHECKING:
    from genai_operators.decisions.sequential import Exposure as SequentialExposure


@dataclass
class Exposure:
    """The use of the blast radius.

    Requests and users count where the gateway chose the candidate; tokens also where a tester asked for it by header,
    as they cost the same. Users are counted in a sketch of a kilobyte: exactly below 128, then within about 9 %.

    :param by_percent: requests of (champion, candidate) by the share that was asked for, in percent.
    """

    requests: int = 0
    tokens: int = 0
    by_percent: dict[float, list[int]] = field(default_factory=dict)
    _sketch: bytes = b""

    def add(self, facts: Iterable[RequestFact]) -> None:
        """Count requests of either arm."""
        from genai_operators.decisions.sequential_once import hashes_of, smallest

        units: list[str | None] = []
        for fact in facts:
            canary = fact.variant == "canary"
            self.by_percent.setdefault(round(fact.propensity * 100, 6), [0, 0])[canary] += 1
            self.tokens += fact.tokens if canary and fact.tokens else 0
            if canary and fact.assigned:
                self.requests += 1
                units.append(fact.unit)
        if units:
            hashes, known = hashes_of(units)
            self._sketch = smallest(self._used(0.0).smallest_hashes, hashes[known]).tobytes()

    @property
    def users(self) -> int:
        """Distinct users."""
        return round(self._used(0.0).users)

    def used(self, plan: ReleasePlan, *, serving_s: float) -> SequentialExposure:
        """What the budget is held against.

        :param serving_s: how long the candidate's server has run. It costs while it waits, too.
        """
        cost = self.tokens / 1000 * plan.cost_per_1k_tokens + serving_s / 3600 * plan.cost_per_hour
        return self._used(cost)

    def _used(self, cost: float) -> SequentialExposure:
        import numpy as np

        from genai_operators.decisions.sequential import Exposure as SequentialExposure

        return SequentialExposure(
            requests=self.requests,
            tokens=self.tokens,
            cost_millionths=round(cost * 1e6),
            smallest_hashes=np.frombuffer(self._sketch, dtype=np.uint32),
        )
