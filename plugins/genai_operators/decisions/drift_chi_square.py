"""Two-sample chi-square: both sides are samples. Taking the reference for the truth alarms at 42-73 %."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from genai_operators.decisions.drift_bins import pool_rare
from genai_operators.decisions.drift_permutation import permutation_p_value, relabelled_counts

PERMUTED_UP_TO = 1_000
"""Rows of the smaller sample up to which the p-value is permuted: the chi-square tail is not to be trusted there."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class ChiSquare:
    """:param degrees: categories left after pooling, less one; 0 means that there was nothing to compare."""

    statistic: float
    degrees: int
    p_value: float


def chi_square(
    first: Counts, second: Counts, *, level: float, generator: np.random.Generator | None = None
) -> ChiSquare:
    """Do two samples of categories come from one distribution?

    Categories with an expected count below 5 are pooled; then chi-square with k - 1 degrees, or for small samples a
    permutation of the pooled rows (when a ``generator`` is given). The p-value is that of Pearson's statistic or of the
    likelihood ratio, whichever is larger: far in the tail Pearson's is too small by orders of magnitude when a rare
    category of a small window grows.

    :param first: rows of each category, shape (k,); at least one row.
    :param second: likewise, same order.
    :param level: smallest level at which a decision will be taken; bounds the number of permutations.
    """
    first, second, _ = pool_rare(first, second)
    degrees = len(first) - 1
    statistic = two_sample_statistic(first, second)
    if degrees < 1:
        return ChiSquare(0.0, 0, 1.0)
    tail = float(special.chdtrc(degrees, min(statistic, likelihood_ratio(first, second))))
    n, m = int(first.sum()), int(second.sum())
    if generator is None or min(n, m) > PERMUTED_UP_TO:
        return ChiSquare(statistic, degrees, tail)
    pooled = first + second
    kept = pooled > 0

    def draw(count: int) -> NDArray[np.float64]:
        chosen = relabelled_counts(pooled[kept], n, draws=count, generator=generator)
        gap = chosen * math.sqrt(m / n) - (pooled[kept] - chosen) * math.sqrt(n / m)
        statistics: NDArray[np.float64] = (gap * gap / pooled[kept]).sum(axis=1)
        return statistics

    return ChiSquare(statistic, degrees, permutation_p_value(statistic, draw, level=level, tail=tail).p_value)


def two_sample_statistic(first: Counts, second: Counts) -> float:
    """Pearson's statistic of the 2 x k table; empty categories add nothing."""
    n, m = int(first.sum()), int(second.sum())
    pooled = first + second
    gap = first * math.sqrt(m / n) - second * math.sqrt(n / m)
    return float((gap * gap / np.maximum(pooled, 1)).sum())


def likelihood_ratio(first: Counts, second: Counts) -> float:
    """The G statistic of the 2 x k table."""
    n, m = int(first.sum()), int(second.sum())
    pooled = first + second
    expected_first, expected_second = pooled * (n / (n + m)), pooled * (m / (n + m))
    terms = special.rel_entr(first, expected_first) + special.rel_entr(second, expected_second)
    return float(2 * terms.sum())


def noncentrality_interval(statistic: float, degrees: int, confidence: float) -> tuple[float, float]:
    """Confidence interval of the noncentrality behind a chi-square statistic, by inverting its distribution.

    A percentile bootstrap misses 10-100 % here, because the statistic is biased upward and bounded by 0.
    Source: Steiger 2004, "Beyond the F test", Psychological Methods 9.
    """
    tail = (1 - confidence) / 2
    return noncentrality(statistic, degrees, 1 - tail), noncentrality(statistic, degrees, tail)


def noncentrality(statistic: float, degrees: int, probability: float) -> float:
    """The noncentrality at which P(chi-square <= statistic) is ``probability``; 0 when the central one is below."""
    if degrees < 1 or special.chdtr(degrees, statistic) <= probability:
        return 0.0
    low, high = 0.0, statistic + 10 * math.sqrt(2 * degrees + 4 * statistic) + 50
    for _ in range(200):
        middle = (low + high) / 2
        if special.chndtr(statistic, degrees, middle) > probability:
            low = middle
        else:
            high = middle
        if high - low <= 1e-10 * max(1.0, high):
            break
    return (low + high) / 2
