"""How far an estimate may be off, and how own runs narrow it: the same for peaks and for times.

The logarithm of measured over estimated is normal around a bias that each kind of run (method, sharding, GPU) has for
itself; the biases are normal around zero. So a kind without own runs gets the whole spread, and with every run its
interval moves to where the measurements are. Source: normal-normal empirical Bayes (Efron and Morris 1973).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import Any

from genai_operators.exceptions import DataError

RESIDUALS_VERSION = 1
LARGEST_LOG_RATIO = 0.7
"""A measurement more than twice, or less than half, its estimate counts as that much: a typing error, another model."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Standard deviations of log ratios: ``between`` kinds of run, and ``within`` one kind."""

    between: float
    within: float


MEMORY_SPREAD = Spread(between=0.06, within=0.05)
"""Its one-sided 99 % bound without own runs is a factor of 1.20, the default margin."""

TIME_SPREAD = Spread(between=0.22, within=0.10)


@dataclass(frozen=True, kw_only=True)
class Factor:
    """What to multiply an estimate with. ``runs`` of one's own stand behind it."""

    lower: float
    expected: float
    upper: float
    runs: int


@dataclass(frozen=True)
class Residuals:
    """Log ratios of measured to estimated per kind of run: (how many, their sum). Frozen; order does not matter."""

    spread: Spread
    kinds: Mapping[str, tuple[int, float]] = field(default_factory=dict)

    def observe(self, kind: str, *, estimated: float, measured: float) -> Residuals:
        """With one more run.

        :raises DataError: a figure that is not a positive number.
        """
        return self._add(kind, _log_ratio(estimated=estimated, measured=measured))

    def observe_out_of_memory(self, kind: str, *, estimated: float, capacity: float) -> Residuals:
        """A run that ran out of memory needed more than ``capacity``: counted as one within-spread more."""
        return self._add(kind, _log_ratio(estimated=estimated, measured=capacity) + self.spread.within)

    def factor(self, kind: str, *, confidence: float = 0.99) -> Factor:
        """Predictive factors of the next run of ``kind``; ``lower`` and ``upper`` are one-sided at ``confidence``."""
        if not 0.5 < confidence < 1:
            raise DataError(f"margin: confidence is {confidence}; between 0.5 and 1")
        runs, total = self.kinds.get(kind, (0, 0.0))
        precision = self.spread.between**-2 + runs * self.spread.within**-2
        mean = total * self.spread.within**-2 / precision
        wide = NormalDist().inv_cdf(confidence) * math.sqrt(1 / precision + self.spread.within**2)
        return Factor(lower=math.exp(mean - wide), expected=math.exp(mean), upper=math.exp(mean + wide), runs=runs)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        kinds = {name: list(self.kinds[name]) for name in sorted(self.kinds)}
        spread = {"between": self.spread.between, "within": self.spread.within}
        return {"version": RESIDUALS_VERSION, "spread": spread, "kinds": kinds}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Residuals:
        """:raises DataError: a record of another version."""
        if record.get("version") != RESIDUALS_VERSION:
            raise DataError(f"residuals version {record.get('version')!r}; this code reads {RESIDUALS_VERSION}")
        kinds = {name: (int(count), float(total)) for name, (count, total) in record["kinds"].items()}
        return cls(spread=Spread(**record["spread"]), kinds=kinds)

    def _add(self, kind: str, log_ratio: float) -> Residuals:
        runs, total = self.kinds.get(kind, (0, 0.0))
        return replace(self, kinds={**self.kinds, kind: (runs + 1, total + log_ratio)})


def memory_residuals() -> Residuals:
    """No own runs yet, of peaks."""
    return Residuals(MEMORY_SPREAD)


def time_residuals() -> Residuals:
    """No own runs yet, of times."""
    return Residuals(TIME_SPREAD)


def _log_ratio(*, estimated: float, measured: float) -> float:
    for name, value in (("estimated", estimated), ("measured", measured)):
        if not (math.isfinite(value) and value > 0):
            raise DataError(f"margin: {name} is {value}; a positive number is needed")
    return max(-LARGEST_LOG_RATIO, min(LARGEST_LOG_RATIO, math.log(measured / estimated)))
