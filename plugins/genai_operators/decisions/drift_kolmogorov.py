"""Two-sample Kolmogorov-Smirnov test on counts over a common, ordered grid."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

from genai_operators.decisions.drift_bins import group_counts, quantile_groups
from genai_operators.decisions.drift_permutation import permutation_p_value, relabelled_counts

EXACT_UP_TO = 10_000
"""Largest n * m for which the exact distribution is counted out."""

ONE_SAMPLE_EXACT_UP_TO = 5_000
"""Largest effective size for which the far tail is Smirnov's exact one; beyond it the approximation is within 0.5 %."""

TIED_SHARE = 0.02
"""A grid point with more of the pooled rows than this makes the continuous null distribution conservative: permute."""

PERMUTED_BINS = 128

Counts = NDArray[np.int64]


def kolmogorov_distance(first: Counts, second: Counts) -> float:
    """Largest difference between the cumulative shares of two samples, 0..1; counts (k,) over one ordered grid."""
    return float(np.abs(np.cumsum(first) / first.sum() - np.cumsum(second) / second.sum()).max())


def kolmogorov_p_value(
    first: Counts, second: Counts, *, exact_grid: bool, level: float, generator: np.random.Generator
) -> float:
    """P(distance at least as large | one distribution).

    Exact where n * m <= ``EXACT_UP_TO`` and no values tie; else the one-sample distribution at n * m / (n + m)
    (scipy's ``kstwo``); where values tie, both are conservative and a permutation of pooled bins takes over.

    :param first: rows at each grid point, shape (k,), ascending in value; at least one row.
    :param second: likewise for the other sample.
    :param exact_grid: is each grid point one value? A bucketed grid hides the order inside a bucket: not exact.
    :param level: smallest level at which a decision will be taken; bounds the number of permutations.
    """
    n, m = int(first.sum()), int(second.sum())
    distance = kolmogorov_distance(first, second)
    pooled = first + second
    if exact_grid and pooled.max() == 1 and n * m <= EXACT_UP_TO:
        return exact_survival(distance, n, m)
    # The distance lies on multiples of 1 / lcm(n, m); half a step makes up for it (Kim 1969). It matters when n = m.
    bound = asymptotic_survival(distance - 0.5 / math.lcm(n, m), n * m / (n + m))
    # A bound that is significant needs no permutation: with ties it is larger than the probability (Noether 1963).
    if pooled.max() <= max(1.0, TIED_SHARE * (n + m)) or bound <= level:
        return bound
    return _permuted(first, second, level=level, generator=generator)


def exact_survival(distance: float, n: int, m: int) -> float:
    """P(D >= distance) for samples of ``n`` and ``m`` values without ties, by the lattice recursion of Hodges 1957.

    Carries the probability of having left the band, so that small p-values keep their relative precision.
    """
    limit = round(distance * n * m)
    first = np.arange(n + 1)
    left = np.zeros(n + 1)
    for step in range(n + m + 1):
        second = step - first
        reachable = (second >= 0) & (second <= m)
        if step:
            come = np.concatenate([[0.0], left[:-1]]) * first / step
            left = come + left * (step - first) / step
        outside = np.abs(first * m - second * n) >= limit
        left = np.where(reachable, np.where(outside, 1.0, left), 0.0)
    return float(min(1.0, left[n]))


def asymptotic_survival(distance: float, size: float) -> float:
    """P(D >= distance) of the one-sample statistic at an effective ``size``; scipy's ``kstwo`` to 6e-4 from size 20.

    Body: Kolmogorov's limit at a corrected argument (Vrbik 2018, "Small-sample corrections to Kolmogorov-Smirnov test
    statistic"). Tail: twice the one-sided exact probability (Smirnov), of which the two-sided one falls short by
    nothing that matters below 5 %.
    """
    if distance <= 0:
        return 1.0
    root = math.sqrt(size)
    scaled = distance * root
    body = float(special.kolmogorov(scaled + 1 / (6 * root) + (scaled - 1) / (4 * size)))
    if body > 0.05 or size > ONE_SAMPLE_EXACT_UP_TO:
        return body
    return min(1.0, 2.0 * float(special.smirnov(max(1, round(size)), distance)))


def _permuted(first: Counts, second: Counts, *, level: float, generator: np.random.Generator) -> float:
    labels = quantile_groups(first + second, PERMUTED_BINS)
    first, second = group_counts(first, labels), group_counts(second, labels)
    pooled, n = first + second, int(first.sum())
    m = int(second.sum())
    whole = np.cumsum(pooled)

    def draw(count: int) -> NDArray[np.float64]:
        chosen = np.cumsum(relabelled_counts(pooled, n, draws=count, generator=generator), axis=1)
        distances: NDArray[np.float64] = np.abs(chosen / n - (whole - chosen) / m).max(axis=1)
        return distances

    return permutation_p_value(kolmogorov_distance(first, second), draw, level=level).p_value
