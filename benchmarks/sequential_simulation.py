"""Thousands of canary releases side by side: the same evidence as the product, one array axis for the releases.

The factors, priors and weights are the product's own; only the walk is written again, over releases instead of over
requests. ``tests/unit/decisions/test_sequential_simulation.py`` holds both against each other, release by release. Time
is counted in bad events; requests between them are drawn from their exact distribution, so that a rate of 0.1 % costs
no more than 10 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions import sequential_health, sequential_split
from genai_operators.decisions.sequential_harm import WEIGHTS, factors

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

ROUNDING = 1e-12


class HarmReplicas:
    """Evidence of harm in ``count`` releases with ``guardrails`` equal alpha shares."""

    def __init__(self, count: int, *, guardrails: int = 1, alpha: float = 0.05, weights: Floats = WEIGHTS) -> None:
        self.threshold = 1.0 / alpha
        self.guardrails = guardrails
        self.lowers_bets = True
        self.products = np.tile((weights / weights.sum())[None, :, None], (guardrails, 1, count))
        self.scale = np.ones((guardrails, count))
        self.value = np.ones((guardrails, count))

    @property
    def average(self) -> Floats:
        """Combined evidence, shape (count,)."""
        return self.value.mean(axis=0)

    @property
    def largest(self) -> Floats:
        """The largest guardrail's evidence: what a test without alpha shares would look at."""
        return self.value.max(axis=0)

    def add(self, propensity: Floats, canary: Booleans, guardrail: NDArray[np.int64] | None = None) -> None:
        """One bad event in each release, shapes (count,)."""
        place = np.arange(len(canary))
        which = np.zeros(len(canary), dtype=np.int64) if guardrail is None else guardrail
        on_canary, on_champion = factors(propensity, harm_ratio=1.0)
        before, scale = self.products[which, :, place].T, self.scale[which, place]
        raised = scale * (before * on_canary).sum(axis=0)
        room = self.guardrails * (self.threshold - self.average) + self.value[which, place]
        after = before * np.where(canary, on_canary, on_champion)
        mixture = after.sum(axis=0)
        value = scale * mixture
        lowered = (raised > room) & self.lowers_bets
        paid_out = np.maximum((self.value[which, place] - propensity * room) / (1.0 - propensity), value)
        landed = np.where(canary, room, paid_out)
        self.value[which, place] = np.where(lowered, landed, value)
        self.scale[which, place] = np.where(lowered, landed / mixture, scale)
        self.products[which, :, place] = after.T

    def keep(self, which: Booleans) -> None:
        """Leave out releases that ended."""
        self.products, self.scale, self.value = self.products[:, :, which], self.scale[:, which], self.value[:, which]


Controller = Callable[[Any, Booleans, int], Floats]
"""(evidence so far, arm of the last bad event, number of the event) -> propensity of the next request."""


def fixed(share: float) -> Controller:
    """The same weight for ever."""
    return lambda replicas, last, event: np.full(len(last), share)


def stepped(shares: tuple[float, ...], every: int) -> Controller:
    """The next weight after ``every`` bad events."""
    return lambda replicas, last, event: np.full(len(last), shares[min(event // every, len(shares) - 1)])


def chasing(replicas: HarmReplicas | HealthReplicas, last: Booleans, event: int) -> Floats:
    """An adversary that knows the past: large weights while the evidence is low, small ones when it is high."""
    share = np.where(replicas.average < 1.0, 0.5, 0.05)
    return np.where(last, 0.01, share)


def landing(replicas: HarmReplicas, last: Booleans, event: int) -> Floats:
    """An adversary without overshoot: the weight whose next bet comes closest to the threshold from below."""
    shares = np.array([0.002, 0.01, 0.03, 0.08, 0.2, 0.35, 0.5])
    mixture = replicas.products[0] * replicas.scale[0]
    best, distance = np.full(len(last), shares[-1]), np.full(len(last), np.inf)
    for share in shares:
        on_canary, _ = factors(np.full(1, share), harm_ratio=1.0)
        slack = replicas.threshold - (mixture * on_canary).sum(axis=0)
        better = (slack >= 0) & (slack < distance)
        best, distance = np.where(better, share, best), np.where(better, slack, distance)
    return best


@dataclass(frozen=True, kw_only=True)
class HarmRuns:
    """:param events: bad events until the alarm, infinite if none. ``requests``: likewise, in requests of both arms."""

    events: Floats
    requests: Floats

    @property
    def alarms(self) -> int:
        """Releases with an alarm."""
        return int(np.isfinite(self.events).sum())


def simulate_harm(
    *,
    releases: int,
    events: int,
    controller: Controller,
    seed: int,
    ratio: float = 1.0,
    guardrails: int = 1,
    base_rate: float = 0.01,
    alpha: float = 0.05,
    weights: Floats = WEIGHTS,
    weight_read_after: Controller | None = None,
    without_shares: bool = False,
    lowers_bets: bool = True,
) -> HarmRuns:
    """Run releases until their alarm or until ``events`` bad events.

    :param ratio: true ratio of bad rates of the first guardrail; the others are equal in both arms.
    :param weight_read_after: broken on purpose: the evidence uses this weight, chosen when the outcome is known.
    :param lowers_bets: false: bets overshoot the threshold, as in the plain mixture.
    :param without_shares: broken on purpose: every guardrail may use all of ``alpha``.
    """
    random = np.random.default_rng(seed)
    replicas = HarmReplicas(releases, guardrails=guardrails, alpha=alpha, weights=weights)
    replicas.lowers_bets = lowers_bets
    alive, last = np.arange(releases), np.zeros(releases, dtype=bool)
    requests = np.zeros(releases)
    found = HarmRuns(events=np.full(releases, np.inf), requests=np.full(releases, np.inf))
    for event in range(events):
        share = controller(replicas, last, event)
        first_rate = base_rate * (1 - share + share * ratio)
        total = first_rate + base_rate * (guardrails - 1)
        requests += random.geometric(np.minimum(total, 1.0))
        which = _which(random, first_rate / total, guardrails)
        true_ratio = np.where(which == 0, ratio, 1.0)
        last = random.random(len(alive)) < share * true_ratio / (share * true_ratio + 1 - share)
        used = share if weight_read_after is None else weight_read_after(replicas, last, event)
        replicas.add(used, last, which)
        reached = (replicas.largest if without_shares else replicas.average) >= replicas.threshold * (1 - ROUNDING)
        if reached.any():
            found.events[alive[reached]] = event + 1
            found.requests[alive[reached]] = requests[reached]
            alive, last, requests = alive[~reached], last[~reached], requests[~reached]
            replicas.keep(~reached)
            if not len(alive):
                break
    return found


def _which(random: np.random.Generator, first: Floats, guardrails: int) -> NDArray[np.int64]:
    if guardrails == 1:
        return np.zeros(len(first), dtype=np.int64)
    others = random.integers(1, guardrails, size=len(first))
    return np.where(random.random(len(first)) < first, 0, others)


Combination = Callable[[Floats, Floats | None], Floats]


def mixture(relative: Floats, absolute: Floats | None) -> Floats:
    """The product's own combination of the two processes."""
    if absolute is None:
        return relative
    share = sequential_health.RELATIVE_SHARE
    return share * relative + (1 - share) * absolute


def either(relative: Floats, absolute: Floats | None) -> Floats:
    """Broken on purpose: certified as soon as one of the two processes says so."""
    return relative if absolute is None else np.maximum(relative, absolute)


def product(relative: Floats, absolute: Floats | None) -> Floats:
    """Broken on purpose: the processes multiplied as if they were independent."""
    return relative if absolute is None else relative * absolute


@dataclass
class HealthReplicas:
    """What a controller may see of releases that try to certify.

    :param average: evidence of health, shape (count,).
    """

    average: Floats


def simulate_health(
    *,
    releases: int,
    events: int,
    controller: Controller,
    seed: int,
    base_rate: float,
    ratio: float,
    margin: float = 2.0,
    ceiling: float | None = None,
    beta: float = 0.05,
    combine: Combination = mixture,
) -> Floats:
    """Requests of both arms until one guardrail is certified (counted at the next bad event), infinite if never.

    :param controller: chooses the weight until the next bad event, from the evidence and the arms so far.
    :param base_rate: of the champion; the canary's is ``ratio`` times that.
    """
    random = np.random.default_rng(seed)
    ratios, weights = sequential_health.relative_prior(margin)
    logs, canary, bad = np.zeros((len(ratios), releases)), np.zeros(releases), np.zeros(releases)
    alive, requests, found = np.arange(releases), np.zeros(releases), np.full(releases, np.inf)
    evidence, fell = np.ones(releases), np.zeros(releases, dtype=bool)
    for event in range(events):
        share = controller(HealthReplicas(evidence), fell, event)
        canary_bad = share * base_rate * ratio
        rate = (1 - share) * base_rate + canary_bad
        gap = random.geometric(rate)
        requests += gap
        canary += random.binomial(gap - 1, (share - canary_bad) / (1 - rate))
        before = combine(weights @ np.exp(logs), _absolute(canary, bad, ceiling))
        fell = random.random(len(alive)) < canary_bad / rate
        on_champion = np.log((share * margin + 1 - share) / (share * ratios[:, None] + 1 - share))
        logs += on_champion + np.where(fell, np.log(ratios / margin)[:, None], 0.0)
        canary, bad = canary + fell, bad + fell
        evidence = combine(weights @ np.exp(logs), _absolute(canary, bad, ceiling))
        reached = np.maximum(before, evidence) >= 1 / beta
        if reached.any():
            found[alive[reached]] = requests[reached]
            alive, requests, logs = alive[~reached], requests[~reached], logs[:, ~reached]
            canary, bad, evidence, fell = canary[~reached], bad[~reached], evidence[~reached], fell[~reached]
            if not len(alive):
                break
    return found


def split_alarms(
    *,
    releases: int,
    requests: int,
    controller: Controller,
    seed: int,
    odds: float = 1.0,
    repeats: int = 1,
    alpha: float = 0.05,
) -> int:
    """Releases whose split is called broken, by the product's own factors and weights.

    :param odds: true odds of the canary as a multiple of the asked ones.
    :param repeats: broken on purpose: each assignment is counted so often, as if a sticky user's requests were many.
    """
    random = np.random.default_rng(seed)
    ratios = sequential_split.ODDS_RATIOS[:, None]
    logs, last = np.zeros((len(ratios), releases)), np.zeros(releases, dtype=bool)
    evidence, broken = np.ones(releases), np.zeros(releases, dtype=bool)
    for request in range(requests):
        share = controller(HealthReplicas(evidence), last, request)
        last = random.random(releases) < share * odds / (share * odds + 1 - share)
        logs += repeats * (np.where(last, np.log(ratios), 0.0) - np.log(share * ratios + 1 - share))
        evidence = sequential_split.WEIGHTS @ np.exp(np.minimum(logs, 500.0))
        broken |= evidence >= 1 / alpha
    return int(broken.sum())


def _absolute(canary: Floats, bad: Floats, ceiling: float | None) -> Floats | None:
    if ceiling is None:
        return None
    total = np.zeros(len(canary))
    for part, weight in zip(sequential_health.ABSOLUTE_SHARES, sequential_health.ABSOLUTE_WEIGHTS, strict=True):
        gain = (canary - bad) * (math.log1p(-part * ceiling) - math.log1p(-ceiling))
        loss = bad * math.log(part) if part else np.where(bad > 0, -np.inf, 0.0)
        total += weight * np.exp(np.minimum(gain + loss, 500.0))
    return total
