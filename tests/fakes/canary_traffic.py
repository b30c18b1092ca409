"""Requests of a canary release, made from a seed."""

from __future__ import annotations

import numpy as np

from genai_operators.decisions.sequential import Observations


def canary_traffic(
    requests: int,
    *,
    seed: int,
    share: float = 0.05,
    champion_rate: float = 0.01,
    canary_rate: float | None = None,
    guardrails: tuple[str, ...] = ("errors",),
    users: int | None = None,
    causes: int | None = None,
    per_s: float = 10.0,
    begin: float = 0.0,
) -> Observations:
    """Requests in arrival order; only the first guardrail's rate differs between the arms."""
    random = np.random.default_rng(seed)
    canary = random.random(requests) < share
    worse = np.where(canary, champion_rate if canary_rate is None else canary_rate, champion_rate)
    bad = {
        name: (random.random(requests) < (worse if number == 0 else champion_rate)).astype(np.int8)
        for number, name in enumerate(guardrails)
    }
    return Observations(
        arrival=begin + np.cumsum(random.exponential(1 / per_s, requests)),
        canary=canary,
        propensity=np.full(requests, share),
        bad=bad,
        unit=None if users is None else [f"user {user}" for user in random.integers(0, users, requests)],
        cause=None
        if causes is None
        else [f"cause {c}" if c < causes else None for c in random.integers(0, 8, requests)],
        tokens=random.integers(1, 200, requests),
        cost=random.random(requests) * 0.01,
    )
