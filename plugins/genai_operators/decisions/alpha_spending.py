"""How much error each check of an endless schedule may spend, so that a whole year of checks stays within its level.

Every check of a window of w periods gets the same share; the shares of all checks that fall into a year add up to the
yearly level (Bonferroni over checks, the plainest of the spending functions of Lan and DeMets 1983). That holds under
any dependence, and the dependence here is strong: windows overlap, and all of them share one reference. Multiplying
daily e-values against a shared reference looks better and is wrong: it alarms in 26-95 % of years without drift.
"""

from __future__ import annotations

from dataclasses import dataclass

from genai_operators.exceptions import ConfigurationError

CHECKS_PER_WINDOW = 4
"""A window is looked at so many times while it passes once: more looks find little and cost level."""


@dataclass(frozen=True, kw_only=True)
class SpendingPlan:
    """Windows that double in length, and the error that each look at them may spend.

    :param yearly_level: probability of any false alarm within any year, 0 < level < 1.
    :param windows: lengths in periods, ascending.
    :param periods_per_year: 365 for daily checks, 8,760 for hourly ones.
    :raises ConfigurationError: a level outside (0, 1), no window, or windows out of order.
    """

    yearly_level: float = 0.05
    windows: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    periods_per_year: int = 365

    def __post_init__(self) -> None:
        if not 0 < self.yearly_level < 1:
            raise ConfigurationError(f"the yearly level of drift alarms is {self.yearly_level}; it lies in (0, 1)")
        ascending = list(self.windows) == sorted(set(self.windows))
        if not self.windows or self.windows[0] < 1 or not ascending:
            raise ConfigurationError(f"drift windows are {self.windows}; they are whole periods in ascending order")
        if self.periods_per_year < self.windows[-1]:
            raise ConfigurationError(f"the longest drift window, {self.windows[-1]} periods, is longer than a year")

    def stride(self, window: int) -> int:
        """Periods between two looks at a window of this length."""
        return max(1, window // CHECKS_PER_WINDOW)

    def due(self, period: int) -> tuple[int, ...]:
        """The windows that are looked at in this period (numbered from any fixed day)."""
        return tuple(window for window in self.windows if period % self.stride(window) == 0)

    def level(self, window: int) -> float:
        """What one look at a window of this length may spend. :raises ConfigurationError: not one of the windows."""
        if window not in self.windows:
            raise ConfigurationError(f"{window} periods is not a window of the plan: {self.windows}")
        looks = -(-self.periods_per_year // self.stride(window))
        return self.yearly_level / len(self.windows) / looks
