"""The customary sizes of a difference between two samples, each with its confidence interval. They describe, the
displacement decides (:mod:`genai_operators.decisions.drift_displacement`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from genai_operators.decisions.drift_chi_square import noncentrality_interval
from genai_operators.decisions.drift_displacement import Displacement
from genai_operators.decisions.drift_permutation import permutation_p_value, relabelled_counts

Counts = NDArray[np.int64]


PERMUTED_UP_TO = 1_000
"""Rows of the smaller sample up to which the p-value of PSI is permuted."""

DESCRIPTIVE_LEVEL = 0.01
"""Permutations of a figure that only describes need not resolve less."""


@dataclass(frozen=True)
class Effect:
    """A distance between two samples.

    :param interval: at the confidence asked for; None where the measure has none.
    :param p_value: against no difference, where the measure has a test.
    """

    value: float
    interval: tuple[float, float] | None
    p_value: float | None = None


def population_stability_index(
    first: Counts, second: Counts, *, confidence: float = 0.95, generator: np.random.Generator | None = None
) -> Effect:
    """PSI = sum of (p - q) ln(p / q), each share smoothed by half a row.

    :param first: rows of each bin, shape (k,), k <= 20, bins taken from both samples pooled.
    :param generator: permutes the p-value of small samples; without one it is always the chi-square one.
    :returns: value; interval by inverting the noncentral chi-square; p of PSI / (1/n + 1/m) against chi-square(k - 1).

    Source: Yurdakul and Naranjo 2020, "Statistical properties of the population stability index".
    """
    value, unit, degrees = _psi(first, second), _unit(first, second), len(first) - 1
    if degrees < 1:
        return Effect(0.0, (0.0, 0.0), 1.0)
    low, high = noncentrality_interval(value / unit, degrees, confidence)
    if generator is None or min(int(first.sum()), int(second.sum())) > PERMUTED_UP_TO:
        p_value = float(special.chdtrc(degrees, value / unit))
    else:
        p_value = _permuted_psi(first, second, generator)
    return Effect(value, (low * unit, high * unit), p_value)


def _permuted_psi(first: Counts, second: Counts, generator: np.random.Generator) -> float:
    pooled, n = first + second, int(first.sum())

    def draw(count: int) -> NDArray[np.float64]:
        chosen = relabelled_counts(pooled, n, draws=count, generator=generator)
        return _psi_rows(chosen, pooled - chosen)

    return permutation_p_value(_psi(first, second), draw, level=DESCRIPTIVE_LEVEL).p_value


def jensen_shannon_distance(first: Counts, second: Counts, *, confidence: float = 0.95) -> Effect:
    """Square root of the Jensen-Shannon divergence in bits, 0..1; counts of pooled bins or categories, shape (k,).

    The interval inverts the noncentral chi-square, which 8 ln 2 JSD / (1/n + 1/m) is to second order.
    Source: Menéndez et al. 1997, "The Jensen-Shannon divergence".
    """
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2
    nats = float((special.rel_entr(p, middle) + special.rel_entr(q, middle)).sum() / 2)
    degrees, unit = len(first) - 1, _unit(first, second)
    if degrees < 1:
        return Effect(0.0, (0.0, 0.0))
    low, high = (bound * unit / 8 for bound in noncentrality_interval(8 * nats / unit, degrees, confidence))
    value, lower, upper = (math.sqrt(min(1.0, x / math.log(2))) for x in (nats, low, high))
    return Effect(value, (lower, upper))


def wasserstein_distance(
    values: NDArray[np.float64], first: Counts, second: Counts, *, confidence: float = 0.95
) -> Effect:
    """Area between the two distribution functions, in the column's unit.

    :param values: ascending grid, shape (k,), with the rows of both samples at each point.

    The interval adds and subtracts the noise that a Brownian bridge over this grid has (triangle inequality): honest,
    and wide when an outlier stretches the grid.
    """
    n, m = int(first.sum()), int(second.sum())
    f, g = np.cumsum(first) / n, np.cumsum(second) / m
    value = float((np.abs(f - g)[:-1] * np.diff(values)).sum())
    variance = _grid_variance(values, first) / n + _grid_variance(values, second) / m
    noise = Displacement(effect=value, scale=math.sqrt(variance)).noise((1 - confidence) / 2)
    return Effect(value, (max(0.0, value - noise), value + noise))


def _psi(first: Counts, second: Counts) -> float:
    return float(_psi_rows(first[None, :], second[None, :])[0])


def _psi_rows(first: Counts, second: Counts) -> NDArray[np.float64]:
    bins = first.shape[1]
    p = (first + 0.5) / (first.sum(axis=1, keepdims=True) + bins / 2)
    q = (second + 0.5) / (second.sum(axis=1, keepdims=True) + bins / 2)
    total: NDArray[np.float64] = ((p - q) * np.log(p / q)).sum(axis=1)
    return total


def _unit(first: Counts, second: Counts) -> float:
    return float(1 / first.sum() + 1 / second.sum())


def _grid_variance(values: NDArray[np.float64], counts: Counts) -> float:
    shares = counts / counts.sum()
    mean = float((values * shares).sum())
    return float((np.square(values - mean) * shares).sum())
