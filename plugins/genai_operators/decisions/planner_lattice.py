"""When does a canary of known badness cross a boundary? Exact first passage on a lattice, without simulation.

At one propensity the evidence depends only on the number of bad events n and on how many of them fell on the canary, c.
So the distribution of the first n at which a boundary c(n) is crossed follows from one vector recursion. The lowered
last bets of the product (``sequential_harm``) are left out: the forecast is late by a few percent, never early.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.sequential_harm import RATIOS, WEIGHTS
from genai_operators.decisions.sequential_health import relative_prior

Floats = NDArray[np.float64]

LARGEST_EVENTS = 20_000
"""Bad events looked ahead; what is not decided by then counts as never."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Passage:
    """Distribution of the first crossing, in bad events. Arrays of shape (events + 1,), cumulative probabilities."""

    harm: Floats
    health: Floats

    def harm_quantile(self, probability: float) -> float:
        """Bad events until harm is proved with this probability; infinite if never."""
        return _quantile(self.harm, probability)

    def health_quantile(self, probability: float) -> float:
        """Bad events until health is proved with this probability; infinite if never."""
        return _quantile(self.health, probability)


def _quantile(cumulative: Floats, probability: float) -> float:
    place = int(np.searchsorted(cumulative, probability))
    return float(place) if place < len(cumulative) else math.inf


def passage(
    *,
    propensity: float,
    ratio: float,
    harm_ratio: float,
    harm_threshold: float,
    margin: float,
    health_threshold: float,
    events: int = LARGEST_EVENTS,
    enough: float = 0.95,
) -> Passage:
    """First crossing of the harm boundary (from below) and the health boundary (from above), whichever comes first.

    :param propensity: of the canary, in (0, 1), constant.
    :param ratio: true ratio of the bad rates, canary to champion.
    :param harm_threshold: e-value that proves harm; infinite to leave harm out. ``health_threshold``: likewise.
    :param enough: stop when the probability of having crossed reaches this.
    """
    share = propensity * ratio / (propensity * ratio + 1.0 - propensity)
    upper = _upper(propensity, harm_ratio, harm_threshold, events)
    lower = _lower(propensity, margin, health_threshold, events)
    alive = np.zeros(64)
    alive[0] = 1.0
    harm, health = [0.0], [0.0]
    for n in range(1, events + 1):
        if alive[-1] > 0.0:
            alive = np.concatenate([alive, np.zeros(len(alive))])
        alive[1:] = alive[1:] * (1.0 - share) + alive[:-1] * share
        alive[0] *= 1.0 - share
        top, bottom = min(upper[n], len(alive)), max(lower[n] + 1, 0)
        harm.append(harm[-1] + float(alive[top:].sum()))
        health.append(health[-1] + float(alive[:bottom].sum()))
        alive[top:] = 0.0
        alive[:bottom] = 0.0
        if harm[-1] + health[-1] >= enough:
            break
    return Passage(harm=np.array(harm), health=np.array(health))


def _upper(propensity: float, harm_ratio: float, threshold: float, events: int) -> NDArray[np.int64]:
    """For each n the smallest c that proves harm (n + 1 where none does)."""
    never = np.arange(events + 1, dtype=np.int64) + 1
    if not math.isfinite(threshold):
        return never
    gain = np.log(RATIOS)
    loss = np.log((propensity * RATIOS * harm_ratio + 1 - propensity) / (propensity * harm_ratio + 1 - propensity))
    return _boundary(gain, loss, np.log(WEIGHTS), math.log(threshold), events, rising=True)


def _lower(propensity: float, margin: float, threshold: float, events: int) -> NDArray[np.int64]:
    """For each n the largest c that proves health (-1 where none does)."""
    if not math.isfinite(threshold):
        return np.full(events + 1, -1, dtype=np.int64)
    ratios, weights = relative_prior(margin)
    gain = np.log(ratios / margin)
    loss = np.log((propensity * ratios + 1 - propensity) / (propensity * margin + 1 - propensity))
    return _boundary(gain, loss, np.log(weights), math.log(threshold), events, rising=False)


def _boundary(
    gain: Floats, loss: Floats, log_weights: Floats, log_threshold: float, events: int, *, rising: bool
) -> NDArray[np.int64]:
    """Bisection over c, for all n at once: the evidence rises with c (harm) or falls with it (health)."""
    n = np.arange(events + 1, dtype=np.int64)
    low, high = np.full(events + 1, -1, dtype=np.int64), n + 1  # the answer lies in [low + 1, high]
    while np.any(high - low > 1):
        middle = (low + high) // 2
        logs = log_weights[:, None] + np.outer(gain, middle) - np.outer(loss, n)
        top = logs.max(axis=0)
        proved = top + np.log(np.exp(logs - top).sum(axis=0)) >= log_threshold
        moves_down = proved if rising else ~proved
        open_ = high - low > 1
        high = np.where(open_ & moves_down, middle, high)
        low = np.where(open_ & ~moves_down, middle, low)
    return high if rising else low
