"""Identical arms whose failures come in bursts: replicas that die for a while, something that both arms stand on, users
whose every request fails.

Only bad requests are generated, for only they bear on harm. The evidence is the product's own ``update``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from genai_operators.decisions.sequential import Guardrail, Observations, Plan, assess, start, update
from genai_operators.decisions.sequential_units import Units

GUARDRAIL = "errors"


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Replicas behind the gateway, all alike; those of the canary come first.

    :param share: of the traffic that the canary gets. ``canary_replicas``, ``replicas``: how many there are.
    :param outages_per_hour: of each replica. ``outage_s``: how long all of its requests fail.
    :param shared_per_hour: outages of what all replicas stand on: then every request fails, and each replica is seen as
        the cause of its own.
    :param background: rate of other failures. ``ratio``: of the canary's to the champion's.
    """

    share: float = 0.05
    canary_replicas: int = 1
    replicas: int = 20
    requests_per_s: float = 20.0
    hours: float = 2.0
    outages_per_hour: float = 0.4
    outage_s: float = 60.0
    shared_per_hour: float = 0.0
    background: float = 0.002
    ratio: float = 1.0

    @property
    def outage_propensity(self) -> float:
        """Probability that an outage meets the canary, as the product has it: its share of replicas or of traffic."""
        return max(self.share, self.canary_replicas / self.replicas)


def bad_requests(fleet: Fleet, random: np.random.Generator) -> Observations:
    """The bad requests of one release."""
    seconds = fleet.hours * 3600
    worse = fleet.share * fleet.ratio
    count = random.poisson(fleet.background * (worse + 1 - fleet.share) * fleet.requests_per_s * seconds)
    arrival, canary = [random.random(count) * seconds], [random.random(count) < worse / (worse + 1 - fleet.share)]
    cause: list[str | None] = [None] * count
    shared = random.random(random.poisson(fleet.shared_per_hour * fleet.hours)) * seconds
    for replica in range(fleet.replicas):
        on_canary = replica < fleet.canary_replicas
        of_arm = fleet.canary_replicas if on_canary else fleet.replicas - fleet.canary_replicas
        rate = fleet.requests_per_s * (fleet.share if on_canary else 1 - fleet.share) / of_arm
        own = random.random(random.poisson(fleet.outages_per_hour * fleet.hours)) * seconds
        for begin in np.concatenate([own, shared]):
            failed = random.poisson(rate * fleet.outage_s)
            arrival.append(begin + random.random(failed) * fleet.outage_s)
            canary.append(np.full(failed, on_canary))
            cause += [f"replica {replica}"] * failed
    return _sorted(np.concatenate(arrival), np.concatenate(canary), fleet, cause=cause)


def bad_users(
    random: np.random.Generator, *, users: int = 40, share: float = 0.05, requests_each: float = 12.0
) -> Observations:
    """Sticky users, of whom some fail at every request (a prompt that breaks both models)."""
    counts = random.geometric(1 / requests_each, users)
    unit = np.repeat(np.arange(users), counts)
    canary = (random.random(users) < share)[unit]
    return _sorted(random.random(len(unit)) * 3600, canary, Fleet(share=share), unit=[f"user {user}" for user in unit])


def _sorted(
    arrival: np.ndarray,
    canary: np.ndarray,
    fleet: Fleet,
    *,
    cause: list[str | None] | None = None,
    unit: list[str] | None = None,
) -> Observations:
    order = np.argsort(arrival, kind="stable")
    n = len(order)
    return Observations(
        arrival=arrival[order],
        canary=canary[order],
        propensity=np.full(n, fleet.share),
        bad={GUARDRAIL: np.ones(n, dtype=np.int8)},
        cause=None if cause is None else [cause[row] for row in order],
        unit=None if unit is None else [unit[row] for row in order],
        cause_propensity=np.full(n, fleet.outage_propensity),
    )


def false_alarms(*, releases: int, seed: int, fleet: Fleet | None = None, window_s: float = 120.0) -> tuple[int, int]:
    """(alarms, alarms if every failure counts by itself) of identical arms; sticky users where no fleet is given."""
    random = np.random.default_rng(seed)
    plan = Plan(guardrails=(Guardrail(name=GUARDRAIL),), incident_window_s=window_s)
    alarms = naive = 0
    for _ in range(releases):
        seen = bad_users(random) if fleet is None else bad_requests(fleet, random)
        alarms += update(start(plan), seen).harm.alarm is not None
        naive += update(start(plan), replace(seen, cause=None, unit=None)).harm.alarm is not None
    return alarms, naive


def false_certificates(fleet: Fleet, *, releases: int, seed: int, every: int = 10) -> int:
    """Releases that are certified by the ratio alone, looked at after every few failures.

    ``fleet.ratio`` is the margin: by its own failures the canary is not acceptable, and outages do not mend that.
    """
    random = np.random.default_rng(seed)
    plan = Plan(guardrails=(Guardrail(name=GUARDRAIL, margin=fleet.ratio),), split_alpha=None)
    found = 0
    for _ in range(releases):
        seen, state = bad_requests(fleet, random), start(plan)
        for begin in range(0, len(seen), every):
            state = update(state, seen.rows(begin, begin + every))
            if assess(state).evidence[GUARDRAIL].log_health >= -math.log(plan.beta):
                found += 1
                break
    return found


def crowded_alarms(*, releases: int, seed: int) -> int:
    """Alarms of identical arms whose users fail at every request, with a memory that is too small for them."""
    random = np.random.default_rng(seed)
    plan = Plan(guardrails=(Guardrail(name=GUARDRAIL),), split_alpha=None)
    small = replace(start(plan), bad_units=(Units(size=8),))
    return sum(
        update(small, bad_users(random, users=150, share=0.3, requests_each=20.0)).harm.alarm is not None
        for _ in range(releases)
    )


def expected_canary_outage(fleet: Fleet) -> float:
    """Probability that the canary meets at least one outage."""
    return 1 - math.exp(-fleet.outages_per_hour * fleet.hours * fleet.canary_replicas)
