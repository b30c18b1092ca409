"""Rates and differences of rates: intervals and tests for right-or-wrong items."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from genai_operators.exceptions import DataError

Alternative = Literal["two-sided", "greater", "less"]

_BISECTIONS = 60
"""Halvings of the interval [-1, 1] in which a score bound is sought: below the resolution of a float."""


def wilson(successes: int, *, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided score interval of a rate.

    :param successes: whole number in [0, n].
    :param n: at least 1.
    :raises DataError: counts that cannot be.
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= successes <= n or n < 1:
        raise DataError(f"wilson: {successes} successes of {n} items; need 0 <= successes <= n and n >= 1")
    z = _two_sided_z(confidence)
    rate, square = successes / n, z * z
    centre = (rate + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n))
    lower = 0.0 if successes == 0 else max(0.0, centre - half)
    upper = 1.0 if successes == n else min(1.0, centre + half)
    return lower, upper


def rule_of_three(n: int, *, confidence: float = 0.95) -> float:
    """One-sided upper bound of a rate of which no case was seen in ``n`` items; about 3 / n at 95 %.

    Exact: ``1 - (1 - confidence) ** (1 / n)``.

    :raises DataError: ``n`` below 1.
    Source: Hanley & Lippman-Hand 1983, "If nothing goes wrong, is everything all right?".
    """
    if n < 1:
        raise DataError(f"rule_of_three: n is {n}, needs at least 1 item")
    return -math.expm1(math.log1p(-_level(confidence)) / n)


def mcnemar_exact(*, gained: int, lost: int, alternative: Alternative = "two-sided") -> float:
    """p-value of the exact McNemar test: given that an item changed, was it as likely gained as lost?

    :param gained: items that the candidate has right and the baseline wrong.
    :param lost: the reverse.
    :param alternative: ``greater``: the candidate gains more than it loses.
    :raises DataError: a negative count.
    Source: McNemar 1947; the binomial test with probability one half on the discordant pairs.
    """
    if min(gained, lost) < 0:
        raise DataError(f"mcnemar_exact: counts must not be negative, got gained {gained}, lost {lost}")
    changed = gained + lost
    if changed == 0:
        return 1.0
    if alternative == "greater":
        return float(special.bdtr(lost, changed, 0.5))
    if alternative == "less":
        return float(special.bdtr(gained, changed, 0.5))
    return min(1.0, 2.0 * float(special.bdtr(min(gained, lost), changed, 0.5)))


def score_statistics(
    difference: float, *, gained: NDArray[np.int64], lost: NDArray[np.int64], n: int
) -> NDArray[np.float64]:
    """Score statistics of "the difference of paired rates is ``difference``"; about standard normal if it is.

    :param difference: candidate minus baseline, in (-1, 1).
    :param gained: shape (m,), items of ``n`` that only the candidate has right. ``lost``: only the baseline.
    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17.
    """
    observed = gained - lost - n * difference
    a = 2.0 * n
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    restricted = (np.sqrt(np.maximum(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * restricted + difference * (1 - difference))
    sure = np.where(observed == 0, 0.0, np.copysign(np.inf, observed))
    statistics: NDArray[np.float64] = np.where(
        variance > 0, observed / np.sqrt(np.where(variance > 0, variance, 1.0)), sure
    )
    return statistics


def score_interval(*, gained: int, lost: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Two-sided score interval of the difference of paired rates, candidate minus baseline (Tango 1998).

    :param gained: items that only the candidate has right.
    :param lost: items that only the baseline has right.
    :param n: all items, the concordant ones included.
    :raises DataError: counts that cannot be.
    """
    if min(gained, lost) < 0 or gained + lost > n or n < 1:
        raise DataError(f"score_interval: gained {gained}, lost {lost} of {n} items; need gained + lost <= n, n >= 1")
    z = _two_sided_z(confidence)
    return (
        _invert(z, gained=gained, lost=lost, n=n),
        -_invert(z, gained=lost, lost=gained, n=n),
    )


def _invert(z: float, *, gained: int, lost: int, n: int) -> float:
    """Lower bound: the difference at which the statistic equals ``z``. The statistic falls with the difference."""
    low, high = -1.0, (gained - lost) / n
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _statistic(middle, gained=gained, lost=lost, n=n) > z:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _statistic(difference: float, *, gained: int, lost: int, n: int) -> float:
    return float(score_statistics(difference, gained=np.array([gained]), lost=np.array([lost]), n=n)[0])


def _two_sided_z(confidence: float) -> float:
    return float(special.ndtri((1 + _level(confidence)) / 2))


def _level(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise DataError(f"confidence is a probability between 0 and 1 (both excluded), got {confidence}")
    return confidence
