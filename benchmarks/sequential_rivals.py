"""What others do, on the same releases: 50 requests/s, 5 % canary, 1 % bad, one hour, a look each minute.

The thresholds of the fixed rules (2 % of errors against a base of 1 %) are a choice; what counts is how sensitive they
are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

REQUESTS_PER_S = 50.0
SHARE = 0.05
BASE_RATE = 0.01
MINUTES = 60


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Requests and bad ones of each minute, shapes (releases, minutes)."""

    canary: NDArray[np.int64]
    canary_bad: NDArray[np.int64]
    champion: NDArray[np.int64]
    champion_bad: NDArray[np.int64]


def traffic(*, releases: int, ratio: float, seed: int) -> Traffic:
    """One hour of each release."""
    random = np.random.default_rng(seed)
    size = (releases, MINUTES)
    canary = random.poisson(60 * REQUESTS_PER_S * SHARE, size)
    champion = random.poisson(60 * REQUESTS_PER_S * (1 - SHARE), size)
    return Traffic(
        canary=canary,
        canary_bad=random.binomial(canary, min(1.0, BASE_RATE * ratio)),
        champion=champion,
        champion_bad=random.binomial(champion, BASE_RATE),
    )


def _z(seen: Traffic) -> Floats:
    """Pooled two-proportion z statistic of all minutes up to each."""
    n, x = seen.canary.cumsum(axis=1), seen.canary_bad.cumsum(axis=1)
    m, y = seen.champion.cumsum(axis=1), seen.champion_bad.cumsum(axis=1)
    pooled = (x + y) / (n + m)
    spread = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / n + 1 / m), 1e-300))
    return (x / n - y / m) / spread


def peeking_z(seen: Traffic, *, alpha: float = 0.05) -> Booleans:
    """A one-sided z-test each minute, as if each were the only one. Stops: shape (releases, minutes)."""
    return _z(seen) > special.ndtri(1 - alpha)


def one_look_z(seen: Traffic, *, alpha: float = 0.05) -> Booleans:
    """One z-test after the hour."""
    stops = np.zeros(seen.canary.shape, dtype=bool)
    stops[:, -1] = _z(seen)[:, -1] > special.ndtri(1 - alpha)
    return stops


def obrien_fleming(seen: Traffic, *, alpha: float = 0.05) -> Booleans:
    """Group-sequential with the O'Brien-Fleming boundary at each of 60 equal looks, one-sided."""
    looks = np.arange(1, MINUTES + 1)
    return _z(seen) > obrien_fleming_constant(alpha=alpha) * np.sqrt(MINUTES / looks)


def obrien_fleming_constant(*, alpha: float, paths: int = 200_000) -> float:
    """Boundary of the largest of 60 equal looks at a Brownian motion, by simulation with a fixed seed."""
    random = np.random.default_rng(7)
    highest = np.full(paths, -np.inf)
    position = np.zeros(paths)
    for _ in range(MINUTES):
        position += random.standard_normal(paths)
        highest = np.maximum(highest, position)
    return float(np.quantile(highest / np.sqrt(MINUTES), 1 - alpha))


def fixed_threshold(seen: Traffic, *, limit: float = 0.02, failures: int = 0) -> Booleans:
    """Rollout controllers: the canary's error rate of the last minute above ``limit``, more than ``failures`` times."""
    return np.cumsum(seen.canary_bad > limit * seen.canary, axis=1) > failures


def ratio_threshold(seen: Traffic, *, factor: float = 1.5, window: int = 5) -> Booleans:
    """The canary's error rate of the last ``window`` minutes above ``factor`` times the champion's."""

    def recent(column: NDArray[np.int64]) -> NDArray[np.int64]:
        total = np.cumsum(column, axis=1)
        total[:, window:] = (
            total[:, window:] - total[:, :-window].copy() if window < total.shape[1] else total[:, window:]
        )
        return total

    canary, champion = recent(seen.canary_bad.copy()), recent(seen.champion_bad.copy())
    stops = canary * recent(seen.champion.copy()) > factor * champion * recent(seen.canary.copy())
    stops[:, : window - 1] = False
    return stops


def mann_whitney(seen: Traffic, *, tolerance: float = 0.25, confidence: float = 0.98) -> Booleans:
    """A judge of 60 minutely error rates, once: the interval of the shift lies above a tolerance band around zero."""
    stops = np.zeros(seen.canary.shape, dtype=bool)
    canary, champion = seen.canary_bad / seen.canary, seen.champion_bad / seen.champion
    for release in range(len(canary)):
        shifted = canary[release] - tolerance * abs(np.median(canary[release][:, None] - champion[release]))
        p_value = stats.mannwhitneyu(shifted, champion[release], alternative="greater").pvalue
        stops[release, -1] = p_value < (1 - confidence) / 2
    return stops


def summary(stops: Booleans) -> tuple[float, float]:
    """(share of releases that were stopped, median minute of the stop)."""
    stopped = stops.any(axis=1)
    minute = float(np.median(stops[stopped].argmax(axis=1) + 1)) if stopped.any() else float("inf")
    return float(stopped.mean()), minute
