"""When does a canary of known badness reach a verdict? First passage on a lattice, without simulation.

At one propensity the evidence depends on the number of bad events n and on how many of them fell on the canary, c. So
the distribution of the first verdict follows from one vector recursion over n. The evidence of harm also remembers the
bets that were lowered near its threshold (``sequential_harm``); each point of the lattice carries its mean over the
paths that arrive there, which brings the forecast within a few percent of simulated releases.
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
_FIRST_EVENTS = 256
_GONE = 1e-12
"""Probability below which a point of the lattice is left out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Passage:
    """Distribution of the first verdict, in bad events. Arrays of shape (events + 1,), cumulative probabilities."""

    harm: Floats
    health: Floats

    def harm_quantile(self, probability: float) -> float:
        """Bad events until harm is proved with this probability; infinite if never."""
        return _quantile(self.harm, probability)

    def health_quantile(self, probability: float) -> float:
        """Bad events until health is proved with this probability; infinite if never."""
        return _quantile(self.health, probability)


def _quantile(cumulative: Floats, probability: float) -> float:
    """Between two events linearly, for a forecast of requests is not a whole number of events."""
    place = int(np.searchsorted(cumulative, probability))
    if place >= len(cumulative):
        return math.inf
    if place == 0:
        return 0.0
    before, after = float(cumulative[place - 1]), float(cumulative[place])
    return place - 1 + (probability - before) / (after - before)


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
    """First verdict of harm or of (relative) health, whichever comes first.

    :param propensity: of the canary, in (0, 1), constant.
    :param ratio: true ratio of the bad rates, canary to champion.
    :param harm_threshold: e-value that proves harm; infinite to leave harm out. ``health_threshold``: likewise.
    :param enough: stop when the probability of a verdict reaches this.
    """
    share = propensity * ratio / (propensity * ratio + 1.0 - propensity)
    lattice = _Lattice(propensity, harm_ratio, harm_threshold)
    harm, health = [0.0], [0.0]
    known, lower = 0, np.zeros(0, dtype=np.int64)
    for n in range(1, events + 1):
        if n >= known:  # the boundary is made as far as it is needed
            known = min(max(2 * known, _FIRST_EVENTS), events + 1)
            lower = _lower(propensity, margin, health_threshold, known)
        harm.append(harm[-1] + lattice.step(share))
        health.append(health[-1] + lattice.absorb_below(int(lower[n]) + 1))
        if harm[-1] + health[-1] >= enough:
            break
    return Passage(harm=np.array(harm), health=np.array(health))


class _Lattice:
    """Probability and mean evidence of harm at each c, for the present n."""

    def __init__(self, propensity: float, harm_ratio: float, threshold: float) -> None:
        null = propensity * harm_ratio
        self._null = null / (null + 1.0 - propensity)
        self._threshold = threshold
        self._gain = np.log(RATIOS)
        self._loss = np.log((null * RATIOS + 1.0 - propensity) / (null + 1.0 - propensity))
        self._n = 0
        self._first = 0
        self._alive = np.ones(1)
        self._value = np.ones(1)

    def step(self, share: float) -> float:
        """One more bad event, which falls on the canary with probability ``share``; returns how much proved harm."""
        up, down = self._factors()
        raised = self._value * up
        reached = raised >= self._threshold * (1 - 1e-12)
        on_canary = self._alive * share
        proved = float(on_canary[reached].sum())
        on_canary = np.where(reached, 0.0, on_canary)
        room = self._threshold if math.isfinite(self._threshold) else 0.0
        paid_out = np.where(reached, (self._value - self._null * room) / (1.0 - self._null), self._value * down)
        on_champion = self._alive * (1.0 - share)
        alive = np.append(on_champion, 0.0) + np.append(0.0, on_canary)
        value = np.append(on_champion * paid_out, 0.0) + np.append(0.0, on_canary * raised)
        kept = np.flatnonzero(alive > _GONE)
        low, high = (int(kept[0]), int(kept[-1]) + 1) if len(kept) else (0, 1)
        self._alive = alive[low:high]
        self._value = np.divide(value[low:high], self._alive, out=np.zeros(high - low), where=self._alive > 0)
        self._first += low
        self._n += 1
        return proved

    def absorb_below(self, bound: int) -> float:
        """Take away what has c below ``bound``; returns how much it was."""
        gone = slice(0, max(bound - self._first, 0))
        proved = float(self._alive[gone].sum())
        self._alive[gone] = 0.0
        return proved

    def _factors(self) -> tuple[Floats, Floats]:
        """What the mixture is multiplied by if the next event falls on the canary, and if on the champion."""
        if not math.isfinite(self._threshold):
            ones = np.ones(len(self._alive))
            return ones, ones
        c = self._first + np.arange(len(self._alive))
        logs = np.log(WEIGHTS)[:, None] + np.outer(self._gain, c) - (self._loss * self._n)[:, None]
        weights = np.exp(logs - logs.max(axis=0))
        weights /= weights.sum(axis=0)
        champion = np.exp(-self._loss)
        return (RATIOS * champion) @ weights, champion @ weights


def _lower(propensity: float, margin: float, threshold: float, events: int) -> NDArray[np.int64]:
    """For each n below ``events`` the largest c that proves health (-1 where none does): the evidence falls with c."""
    n = np.arange(events, dtype=np.int64)
    low, high = np.full(events, -1, dtype=np.int64), n + 1
    if not math.isfinite(threshold):
        return low
    ratios, weights = relative_prior(margin)
    gain = np.log(ratios / margin)
    loss = np.log((propensity * ratios + 1 - propensity) / (propensity * margin + 1 - propensity))
    while np.any(high - low > 1):
        middle = (low + high) // 2
        logs = np.log(weights)[:, None] + np.outer(gain, middle) - np.outer(loss, n)
        proved = np.logaddexp.reduce(logs, axis=0) >= math.log(threshold)
        open_ = high - low > 1
        low, high = np.where(open_ & proved, middle, low), np.where(open_ & ~proved, middle, high)
    return low
