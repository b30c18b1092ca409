"""The walk over releases that the studies use is the product's; and the product's evidence is the textbook's."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks.sequential_simulation import HarmReplicas, _absolute, mixture
from genai_operators.decisions import sequential_harm, sequential_health
from genai_operators.decisions.sequential import Guardrail, Observations, Plan, assess, start, update
from tests.fakes.canary_traffic import canary_traffic


def events_only(random: np.random.Generator, count: int, guardrails: int) -> tuple[Observations, np.ndarray]:
    """Requests of which each is bad for exactly one guardrail, under changing weights."""
    which = random.integers(0, guardrails, count)
    propensity = random.choice([0.01, 0.05, 0.25, 0.5], size=count)
    ratio = np.where(which == 0, 1.3, 1.0)
    canary = random.random(count) < propensity * ratio / (propensity * ratio + 1 - propensity)
    bad = {f"g{number}": (which == number).astype(np.int8) for number in range(guardrails)}
    return Observations(arrival=np.arange(count), canary=canary, propensity=propensity, bad=bad), which


class TestHarmOfManyReleases:
    @pytest.mark.parametrize("guardrails", [1, 4])
    def test_equals_the_product_event_by_event(self, guardrails: int):
        random = np.random.default_rng(1)
        plan = Plan(guardrails=tuple(Guardrail(name=f"g{number}") for number in range(guardrails)), alpha=0.1)
        alarms = 0
        for _ in range(40):
            observations, which = events_only(random, 250, guardrails)
            replicas, stopped = HarmReplicas(1, guardrails=guardrails, alpha=0.1), None
            for event in range(250):
                one = slice(event, event + 1)
                replicas.add(observations.propensity[one], observations.canary[one], which[one])
                if replicas.average[0] >= 10 * (1 - 1e-12):
                    stopped = event + 1
                    break
            alarm = update(start(plan), observations).harm.alarm
            assert (alarm and alarm.request) == stopped
            until = update(start(plan), observations.rows(0, stopped or 250))
            assert assess(until).log_harm == pytest.approx(math.log(replicas.average[0]), abs=1e-9)
            alarms += stopped is not None
        assert 5 < alarms < 35


class TestOracle:
    def test_harm_is_the_mixture_likelihood_ratio_where_no_bet_was_lowered(self):
        """Written again from the formula, with logarithms."""
        observations = canary_traffic(4_000, seed=2, champion_rate=0.03)
        state = update(start(Plan(guardrails=(Guardrail(name="errors"),))), observations)
        rows = observations.bad["errors"] == 1
        share, canary = observations.propensity[rows], observations.canary[rows]
        logs = []
        for ratio, weight in zip(sequential_harm.RATIOS, sequential_harm.WEIGHTS, strict=True):
            theta = share * ratio / (share * ratio + 1 - share)
            terms = np.where(canary, np.log(theta / share), np.log((1 - theta) / (1 - share)))
            logs.append(math.log(weight) + terms.sum())
        assert assess(state).evidence["errors"].log_harm == pytest.approx(np.logaddexp.reduce(logs), abs=1e-9)

    def test_health_is_the_mixture_of_both_likelihood_ratios(self):
        observations = canary_traffic(4_000, seed=3, champion_rate=0.03, share=0.25)
        guardrail = Guardrail(name="errors", margin=3.0, ceiling=0.05)
        evidence = assess(update(start(Plan(guardrails=(guardrail,))), observations)).evidence["errors"]
        bad, canary = observations.bad["errors"] == 1, observations.canary
        logs = []
        for ratio, weight in zip(sequential_health.RELATIVE_RATIOS, sequential_health.RELATIVE_WEIGHTS, strict=True):
            theta, null = (0.25 * r / (0.25 * r + 0.75) for r in (ratio, 3.0))
            terms = np.where(canary[bad], math.log(theta / null), math.log((1 - theta) / (1 - null)))
            logs.append(math.log(weight / 2) + terms.sum())
        for part, weight in zip(sequential_health.ABSOLUTE_SHARES, sequential_health.ABSOLUTE_WEIGHTS, strict=True):
            rate = part * 0.05
            terms = np.where(bad[canary], math.log(part) if part else -np.inf, math.log((1 - rate) / 0.95))
            logs.append(math.log(weight / 2) + terms.sum())
        assert evidence.log_health == pytest.approx(np.logaddexp.reduce(logs), abs=1e-9)

    def test_the_simulated_absolute_process_is_the_products(self):
        simulated = _absolute(np.array([500.0, 800.0]), np.array([0.0, 3.0]), 0.02)
        assert simulated is not None
        exact = [sequential_health.log_absolute(requests=n, bad=b, ceiling=0.02) for n, b in ((500, 0), (800, 3))]
        assert np.log(simulated) == pytest.approx(exact, abs=1e-9)
        assert math.log(mixture(np.array([1.0]), simulated[:1])[0]) == pytest.approx(
            sequential_health.log_health(relative=0.0, absolute=exact[0]), abs=1e-9
        )

    def test_each_bet_is_fair_at_harm_ratio_and_unfair_below(self):
        share = np.array([0.01, 0.3, 0.9])
        for harm_ratio in (1.0, 1.5):
            canary, champion = sequential_harm.factors(share, harm_ratio=harm_ratio)
            for truth, expected in ((harm_ratio, np.isclose), (harm_ratio * 0.7, np.less)):
                theta = share * truth / (share * truth + 1 - share)
                assert expected(theta * canary + (1 - theta) * champion, 1.0).all()


def arms_of_bad_events(canary: list[bool], *, share: float = 0.2) -> Observations:
    n = len(canary)
    return Observations(
        arrival=np.arange(n, dtype=float),
        canary=np.array(canary, dtype=bool),
        propensity=np.full(n, share),
        bad={"errors": np.ones(n, dtype=np.int8)},
    )


def evidence_of(canary: list[bool]) -> tuple[float, float, bool]:
    """(log evidence of harm, of health, alarm); whatever the split, as these arms were not drawn."""
    plan = Plan(guardrails=(Guardrail(name="errors"),), alpha=1e-4, split_alpha=None)
    state = update(start(plan), arms_of_bad_events(canary))
    one = assess(state).evidence["errors"]
    return one.log_harm, one.log_health, state.harm.alarm is not None


class TestProperties:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.booleans(), min_size=1, max_size=60), st.randoms(use_true_random=False))
    def test_under_one_weight_the_order_of_events_does_not_matter(self, canary: list[bool], random: Random):
        """As long as no bet was lowered: far below the threshold."""
        shuffled = random.sample(canary, len(canary))
        harm, health, _ = evidence_of(canary)
        highest = max(evidence_of(canary[: n + 1])[0] for n in range(len(canary)))
        highest = max(highest, *(evidence_of(shuffled[: n + 1])[0] for n in range(len(canary))))
        assume(highest < math.log(1e4) - math.log(50))
        assert evidence_of(shuffled)[:2] == pytest.approx((harm, health), abs=1e-9)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.booleans(), max_size=60))
    def test_a_failure_on_the_canary_speaks_against_it_and_one_on_the_champion_for_it(self, canary: list[bool]):
        harm, health, alarm = evidence_of(canary)
        on_canary, on_champion = evidence_of([*canary, True]), evidence_of([*canary, False])
        assert on_canary[1] < health < on_champion[1]
        if not alarm:
            assert on_canary[0] > harm > on_champion[0]

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.booleans(), max_size=60))
    def test_evidence_of_harm_never_exceeds_its_threshold(self, canary: list[bool]):
        assert evidence_of(canary)[0] <= math.log(1e4) + 1e-9
