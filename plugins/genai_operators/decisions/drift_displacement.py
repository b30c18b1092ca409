"""The effect that an alarm is judged by: which share of the rows moved, 0..1, with a bound that holds far in the tail.

*Categories*: total variation distance, the share of rows that would have to change category.

*Numbers*: both samples on the percentile scale of their equal mixture, twice the area between the two distribution
functions there. For samples of which one lies to the right of the other it is the absolute Cliff's delta,
|P(X < Y) - P(X > Y)|; for two values it is the total variation distance; it is 0 only for equal distributions. It is
a Wasserstein distance of ranks, hence indifferent to units, monotone transformations and outliers. A shift by 0.1
standard deviations of a normal column is 0.056, by 0.2 0.11, by 0.5 0.28.

Both are norms of a difference, so by the triangle inequality what is observed exceeds the truth by at most the norm of
the sampling noise. That noise is a Brownian bridge (numbers) or a multinomial (categories), whose tail is known; hence
the p-value of 'the effect is at most ...'.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

Counts = NDArray[np.int64]

_ZEROS = -special.ai_zeros(60)[1] / 2 ** (1 / 3)  # of Ai', in Johnson and Killeen's scale
_SERIES_UP_TO = 1.2


@dataclass(frozen=True)
class Displacement:
    """An effect and the size of its sampling noise.

    :param effect: share of the rows that moved, 0..1.
    :param scale: standard deviation of the signed noise; of that of the most uncertain set of categories.
    :param degrees: 0 for numbers; categories less one for categories.
    :param mean_noise: expected norm of the noise (categories only).
    """

    effect: float
    scale: float
    degrees: int = 0
    mean_noise: float = 0.0

    def p_value(self, at_most: float = 0.0) -> float:
        """P(observing this effect or more | true effect <= ``at_most``); an upper bound, so never too small."""
        return self._noise_survival(self.effect - at_most)

    def interval(self, level: float) -> tuple[float, float]:
        """The effects that neither side rejects at ``level``: each bound holds with probability 1 - ``level``.

        The lower bound is above x exactly when ``p_value(x) < level``.
        """
        noise = self.noise(level)
        return max(0.0, self.effect - noise), min(1.0, self.effect + noise)

    def _noise_survival(self, size: float) -> float:
        if size <= 0:
            return 1.0
        if self.scale == 0:
            return 0.0
        if self.degrees == 0:
            return bridge_area_survival(size / self.scale / math.sqrt(12))
        # The noise is the largest over sets A of categories; two bounds, by Cauchy-Schwarz and by Borell-TIS.
        cauchy = float(special.chdtrc(self.degrees, (size / self.scale) ** 2))
        excess = max(0.0, size - self.mean_noise) / self.scale
        return min(1.0, cauchy, math.exp(-0.5 * excess * excess))

    def noise(self, level: float) -> float:
        """The norm that sampling noise exceeds with probability ``level`` at most."""
        if self.degrees == 0:
            return bridge_area_quantile(level) * self.scale * math.sqrt(12)
        cauchy = self.scale * math.sqrt(float(special.chdtri(self.degrees, level)))
        return min(cauchy, self.mean_noise + self.scale * math.sqrt(-2 * math.log(level)))


def rank_displacement(first: Counts, second: Counts) -> Displacement:
    """Displacement between two samples of numbers.

    :param first: rows at each point of an ascending common grid, shape (k,); at least one row.
    :param second: likewise for the other sample.

    The scale is the Brunner-Munzel standard error of Cliff's delta, at least its value under equal distributions.
    """
    n, m = int(first.sum()), int(second.sum())
    f, g = first / n, second / m
    f_rank, g_rank = np.cumsum(f) - f / 2, np.cumsum(g) - g / 2
    effect = float((np.abs(f_rank - g_rank) * (f + g)).sum())
    rank = f_rank + g_rank  # twice the percentile in the equal mixture
    spread = _variance(rank, f) / n + _variance(rank, g) / m
    pooled = _variance(rank, (first + second) / (n + m)) * (1 / n + 1 / m)
    return Displacement(effect=effect, scale=math.sqrt(max(spread, pooled)))


def category_displacement(first: Counts, second: Counts) -> Displacement:
    """Total variation distance between two samples of categories, counts of shape (k,) in one order."""
    n, m = int(first.sum()), int(second.sum())
    p, q, both = first / n, second / m, (first + second) / (n + m)
    noise = np.sqrt(np.maximum(both * (1 - both) * (1 / n + 1 / m), p * (1 - p) / n + q * (1 - q) / m))
    widest = max(_widest(both) * (1 / n + 1 / m), _widest(p) / n + _widest(q) / m)
    return Displacement(
        effect=float(np.abs(p - q).sum() / 2),
        scale=math.sqrt(widest),
        degrees=max(1, int((first + second > 0).sum()) - 1),
        mean_noise=float(noise.sum() / math.sqrt(2 * math.pi)),
    )


def _widest(shares: NDArray[np.float64]) -> float:
    """Largest P(A) (1 - P(A)) that a set A of categories can have; a quarter unless one category has over half."""
    largest = float(shares.max(initial=0.0))
    return largest * (1 - largest) if largest > 0.5 else 0.25


def bridge_area_survival(area: float) -> float:
    """P(integral of |Brownian bridge| > area).

    Source: Johnson and Killeen 1983, "An explicit formula for the c.d.f. of the L1 norm of the Brownian bridge",
    Annals of Probability 11; beyond 1.2 its normal tail (standard deviation 1/sqrt(12)), matched to 0.1 %.
    """
    if area <= 0:
        return 1.0
    if area > _SERIES_UP_TO:
        return float(2 * special.ndtr(-area * math.sqrt(12)) * (1 + 0.053 / area**2))
    scaled = area / _ZEROS**1.5
    with np.errstate(under="ignore"):
        terms = np.exp(-2 / (27 * scaled**2)) * scaled ** (-1 / 3) * special.airy((3 * scaled) ** (-4 / 3))[0]
    inside = math.sqrt(math.pi / 2) * 3 ** (2 / 3) * float((terms / _ZEROS**1.5).sum())
    return min(1.0, max(0.0, 1 - inside))


@lru_cache(maxsize=1024)
def bridge_area_quantile(level: float) -> float:
    """The area that the integral of |Brownian bridge| exceeds with probability ``level``, 0 < level <= 1."""
    low, high = 0.0, 1.0
    while bridge_area_survival(high) > level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if bridge_area_survival(middle) > level else (low, middle)
    return high


def _variance(values: NDArray[np.float64], shares: NDArray[np.float64]) -> float:
    mean = float((values * shares).sum())
    return float((np.square(values - mean) * shares).sum())
