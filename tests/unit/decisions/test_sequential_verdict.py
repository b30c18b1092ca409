"""What a user gets from a canary's evidence."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from genai_operators.decisions.sequential import Guardrail, Observations, Plan, State, assess, start, update
from genai_operators.decisions.sequential_once import OPEN_INCIDENTS
from genai_operators.decisions.verdict import Outcome
from tests.fakes.canary_traffic import canary_traffic

ERRORS = Plan(guardrails=(Guardrail(name="errors", ceiling=0.02),))
UNCHECKED = replace(ERRORS, split_alpha=None)


def observed(
    *, canary: list[int], bad: list[int], share: float = 0.5, step_s: float = 1.0, **columns: object
) -> Observations:
    """A few requests of one guardrail, one each ``step_s``."""
    return Observations(
        arrival=np.arange(len(canary)) * step_s,
        canary=np.array(canary, dtype=bool),
        propensity=np.full(len(canary), share),
        bad={"errors": np.array(bad, dtype=np.int8)},
        **columns,  # type: ignore[arg-type]
    )


def silent(canary_requests: int) -> Observations:
    """Requests that all went well, every other one on the canary; one a second."""
    return observed(canary=[1, 0] * canary_requests, bad=[0, 0] * canary_requests)


def judged(observations: Observations, plan: Plan = ERRORS) -> State:
    return update(start(plan), observations)


class TestHarm:
    def test_a_canary_three_times_worse_is_found_and_named(self):
        guardrails = ("errors", "invalid_output", "slow_first_token")
        plan = Plan(guardrails=tuple(Guardrail(name=name, ceiling=0.02) for name in guardrails))
        state = judged(canary_traffic(60_000, seed=1, canary_rate=0.03, guardrails=guardrails), plan)
        assessment = assess(state)
        assert assessment.harmful
        assert assessment.culprit == "errors"
        assert not assessment.certified
        assert assessment.health.outcome is Outcome.FAIL
        assert "errors" in assessment.harm.summary

    def test_the_alarm_names_the_request_and_stays(self):
        state = judged(observed(canary=[1] * 8, bad=[1] * 8, share=0.05))
        alarm = state.harm.alarm
        assert alarm is not None
        assert alarm.request == 2  # at 5 % of the traffic: a chance of 1 in 400
        assert alarm.arrival == 1.0
        good = canary_traffic(50_000, seed=3, champion_rate=0.01, canary_rate=0.0, begin=10.0)
        assert update(state, good).harm.alarm == alarm

    def test_an_equal_canary_is_not_accused(self):
        assert not assess(judged(canary_traffic(100_000, seed=2))).harmful

    def test_without_requests_nothing_is_proved(self):
        assessment = assess(start(ERRORS))
        assert assessment.harm.outcome is Outcome.INCONCLUSIVE
        assert assessment.health.outcome is Outcome.INCONCLUSIVE
        assert assessment.split.outcome is Outcome.INCONCLUSIVE
        assert not assessment.certified

    def test_a_ratio_within_harm_ratio_is_harmless(self):
        tolerant = Plan(guardrails=(Guardrail(name="errors", harm_ratio=3.0, margin=6.0),))
        traffic = canary_traffic(100_000, seed=4, canary_rate=0.02)
        assert assess(judged(traffic)).harmful
        assert not assess(judged(traffic, tolerant)).harmful

    def test_the_interval_of_the_ratio_holds_the_truth(self):
        low, high = assess(judged(canary_traffic(60_000, seed=1, canary_rate=0.03))).evidence["errors"].ratio_interval
        assert low <= 3.0 <= high


class TestHealth:
    def test_silence_on_a_canary_is_certified_by_the_ceiling(self):
        plan = Plan(guardrails=(Guardrail(name="errors", ceiling=0.01),))
        needed = next(n for n in range(1, 500) if assess(judged(silent(n), plan)).certified)
        assert 300 < needed <= 400

    def test_silence_without_a_ceiling_never_certifies(self):
        plan = Plan(guardrails=(Guardrail(name="errors"),))
        assert not assess(judged(silent(50_000), plan)).certified

    def test_an_equal_canary_above_the_ceiling_is_certified_by_the_ratio(self):
        plan = Plan(guardrails=(Guardrail(name="errors", ceiling=0.001),))
        assert assess(judged(canary_traffic(60_000, seed=5, share=0.25), plan)).certified

    def test_every_guardrail_is_required(self):
        names = ("errors", "invalid_output")
        plan = Plan(guardrails=tuple(Guardrail(name=name, ceiling=0.01) for name in names))
        traffic = canary_traffic(2_000, seed=6, champion_rate=0.0, share=0.5, guardrails=names)
        silent = replace(traffic, bad={**traffic.bad, "invalid_output": np.full(len(traffic), -1)})
        assert assess(judged(traffic, plan)).certified
        assessment = assess(judged(silent, plan))
        assert not assessment.certified
        assert "invalid_output" in assessment.health.summary

    def test_the_ceiling_waits_for_the_soak(self):
        plan = Plan(guardrails=(Guardrail(name="errors", ceiling=0.01),), minimum_soak_s=3600.0)
        night = silent(1_000)
        assert not assess(judged(night, plan)).certified
        assert assess(judged(replace(night, arrival=night.arrival * 2), plan)).certified

    def test_an_outage_of_the_canary_counts_in_full_against_its_health(self):
        """As harm it is one event; it would be a lie to certify the canary as if nothing had happened."""
        cause = ["replica 7"] * 500
        state = judged(observed(canary=[1] * 500, bad=[1] * 500, step_s=0.01, cause=cause))
        assert state.counts[0].canary_events == 1
        assert assess(state).evidence["errors"].log_relative < -50


class TestSplit:
    def test_an_intact_split_passes(self):
        assert assess(judged(canary_traffic(50_000, seed=7))).split.outcome is Outcome.PASS

    def test_twice_the_asked_share_voids_the_analysis(self):
        traffic = canary_traffic(5_000, seed=8, share=0.10, champion_rate=0.0)
        assessment = assess(judged(replace(traffic, propensity=np.full(len(traffic), 0.05))))
        assert not assessment.split_intact
        assert not assessment.certified
        assert "void" in assessment.split.summary

    def test_one_request_on_an_arm_without_weight_is_enough(self):
        assert not assess(judged(observed(canary=[1], bad=[0], share=0.0))).split_intact
        assert not assess(judged(observed(canary=[0], bad=[0], share=1.0))).split_intact

    def test_a_weight_read_after_the_request_is_noticed(self):
        """The step from 5 % to 50 % lies in the middle; the analysis was given today's weight for all of them."""
        before, after = canary_traffic(3_000, seed=9), canary_traffic(300, seed=10, share=0.5, begin=1e6)
        state = judged(replace(before, propensity=np.full(len(before), 0.5)))
        assert not assess(update(state, after)).split_intact
        honest = update(judged(before), after)
        assert assess(honest).split_intact

    def test_what_is_broken_voids_harm_that_is_found_later(self):
        """Identical arms; the gateway sends twice what was asked for, which looks like twice the failures."""
        traffic = canary_traffic(60_000, seed=14, share=0.10, champion_rate=0.05)
        twice = replace(traffic, propensity=np.full(len(traffic), 0.05))
        state = judged(twice)
        assert update(start(UNCHECKED), twice).harm.alarm is not None, "what the wrong propensity makes of it"
        assert state.split.broken is not None
        assessment = assess(state)
        assert not assessment.harmful
        assert not assessment.certified
        assert assessment.harm.outcome is assessment.health.outcome is Outcome.INCONCLUSIVE
        assert "before the split broke" in assessment.harm.summary

    def test_harm_that_was_found_first_stands(self):
        harm = judged(observed(canary=[1] * 3, bad=[1] * 3, share=0.05))
        assert harm.split.broken is None
        later = replace(observed(canary=[1] * 50, bad=[0] * 50, share=0.05), arrival=np.arange(50) + 10.0)
        assessment = assess(update(harm, later))
        assert assessment.harmful
        assert not assessment.split_intact

    def test_at_the_same_request_the_split_takes_precedence(self):
        impossible = observed(canary=[1, 1, 1], bad=[1, 1, 1])
        traffic = replace(impossible, propensity=np.array([0.05, 0.0, 0.05]))
        assert judged(replace(traffic, propensity=np.full(3, 0.05))).harm.alarm is not None
        assert judged(traffic).harm.alarm is None

    def test_what_is_broken_stays_broken(self):
        broken = judged(observed(canary=[1], bad=[0], share=0.0))
        mended = update(broken, canary_traffic(20_000, seed=15, begin=10.0))
        assert not assess(mended).split_intact

    def test_harm_of_another_question_is_void_from_the_break_on(self):
        state = judged(observed(canary=[1] * 3, bad=[1] * 3, share=0.05), UNCHECKED)
        assert state.harm.alarm is not None
        assert assess(state, void_from=1.5).harmful
        void = assess(state, void_from=1.0)
        assert not void.harmful
        assert void.culprit is None
        assert void.split.outcome is Outcome.SKIPPED

    def test_requests_of_one_sticky_user_are_one_assignment(self):
        loyal = observed(canary=[1] * 400, bad=[0] * 400, share=0.05, unit=["the same user"] * 400)
        assert assess(judged(loyal)).split_intact
        assert not assess(judged(replace(loyal, unit=None))).split_intact


class TestWhatCountsOnce:
    def test_a_burst_with_one_cause_counts_once_in_its_window(self):
        burst = observed(canary=[1] * 100, bad=[1] * 100, share=0.05, cause=["replica 1"] * 100)
        state = judged(burst)
        assert state.counts[0].canary_events == 1
        assert state.harm.alarm is None
        assert judged(replace(burst, cause=None)).harm.alarm is not None

    def test_after_the_window_the_same_cause_counts_again(self):
        burst = observed(canary=[1] * 100, bad=[1] * 100, share=0.05, cause=["replica 1"] * 100, step_s=2.4)
        assert judged(burst, replace(ERRORS, incident_window_s=24.0)).counts[0].canary_events == 5  # 48 s each
        assert judged(burst).counts[0].canary_events == 1

    def test_an_outage_that_is_longer_than_the_window_counts_once(self):
        """150 seconds of failures, at most three apart, on either side of quiet."""
        outage = observed(canary=[1] * 50, bad=[1] * 50, share=0.5, cause=["replica 1"] * 50, step_s=3.0)
        state = judged(outage)
        assert state.counts[0].canary_events == 1
        assert update(state, replace(outage, arrival=outage.arrival + 270.0)).counts[0].canary_events == 2

    def test_causes_are_told_apart(self):
        state = judged(observed(canary=[0] * 40, bad=[1] * 40, cause=[f"replica {i % 4}" for i in range(40)]))
        assert state.counts[0].champion_events == 4

    def test_causes_beyond_the_memory_count_together(self):
        state = judged(observed(canary=[0] * 100, bad=[1] * 100, step_s=0.1, cause=[f"cause {i}" for i in range(100)]))
        assert state.counts[0].champion_events == OPEN_INCIDENTS + 1

    def test_a_sticky_user_counts_once_for_each_guardrail(self):
        names = ("errors", "invalid_output")
        plan = Plan(guardrails=tuple(Guardrail(name=name) for name in names))
        n = 50
        state = judged(
            Observations(
                arrival=np.arange(n) * 1000.0,
                canary=np.ones(n, dtype=bool),
                propensity=np.full(n, 0.05),
                bad={name: np.ones(n, dtype=np.int8) for name in names},
                unit=["one user"] * n,
            ),
            plan,
        )
        assert [counts.canary_events for counts in state.counts] == [1, 1]
        assert [counts.canary_bad for counts in state.counts] == [n, n]

    def test_a_user_who_takes_a_server_down_again_and_again_is_one_event(self):
        """Whoever else fails in the outage is its victim; one who fails later by himself counts."""
        state = judged(
            observed(
                canary=[0] * 5,
                bad=[1] * 5,
                step_s=200.0,
                unit=["anna", "anna", "anna", "bert", "bert"],
                cause=["replica 1", "replica 1", "replica 1", "replica 1", None],
            )
        )
        assert state.counts[0].champion_events == 2
        victims = observed(
            canary=[0] * 4,
            bad=[1] * 4,
            unit=["anna", "bert", "carl", "bert"],
            cause=["replica 1", "replica 1", "replica 1", None],
        )
        assert judged(victims).counts[0].champion_events == 2

    def test_an_outage_is_weighed_by_the_share_of_replicas_where_given(self):
        one = observed(canary=[1], bad=[1], share=0.05, cause=["replica 1"])
        by_replicas = replace(one, cause_propensity=np.array([0.5]))
        evidence = [assess(judged(each)).evidence["errors"].log_harm for each in (by_replicas, one)]
        assert 0 < evidence[0] < evidence[1]


class TestWarmUp:
    def test_what_came_before_the_canary_had_weight_starts_no_clock(self):
        """An hour of the champion alone is no soak of the canary, and its failures are none to compare with."""
        plan = Plan(guardrails=(Guardrail(name="errors", ceiling=0.01),), minimum_soak_s=3600.0, warm_up_s=10.0)
        alone = observed(canary=[0] * 4_000, bad=[1] * 4_000, share=0.0)
        after = silent(500)
        state = update(judged(alone, plan), replace(after, arrival=after.arrival + 4_000.0))
        assert state.first_arrival == 4_000.0
        assert state.counts[0].champion_bad == 0
        assert state.split.impossible == 0
        assert not assess(state).certified

    def test_both_arms_are_left_out_and_exposure_is_not(self):
        plan = replace(ERRORS, warm_up_s=100.0)
        state = judged(observed(canary=[1, 0] * 50, bad=[1, 1] * 50, share=0.5, step_s=0.5), plan)
        assert state.counts[0].canary == state.counts[0].champion == 0
        assert state.split.requests == 0
        assert state.exposure.requests == 50
        assert math.isclose(assess(state).log_harm, 0.0, abs_tol=1e-9)


class TestWatermark:
    def test_unfinished_requests_are_held_back(self):
        """A slow canary whose failures take long: by completion it looks good, by arrival it does not."""
        traffic = canary_traffic(1_000, seed=11)
        held = traffic.arrived_before(float(traffic.arrival[400]))
        assert len(held) == 400
        assert held.arrival[-1] < traffic.arrival[400]
        assert held.tokens is not None
        assert len(held.tokens) == len(held.bad["errors"]) == 400


class TestExposure:
    def test_users_tokens_and_cost_of_the_canary_are_counted(self):
        traffic = canary_traffic(20_000, seed=12, share=0.2, users=5_000)
        state = judged(traffic)
        canary = traffic.canary
        assert traffic.unit is not None
        assert traffic.tokens is not None
        assert traffic.cost is not None
        users = len({unit for unit, of_canary in zip(traffic.unit, canary, strict=True) if of_canary})
        assert state.exposure.requests == canary.sum()
        assert state.exposure.tokens == traffic.tokens[canary].sum()
        assert state.exposure.cost == pytest.approx(traffic.cost[canary].sum(), abs=0.01)
        assert state.exposure.users == pytest.approx(users, rel=0.25)
        assert state.exposure.users_at_most >= users

    def test_few_users_are_counted_exactly(self):
        state = judged(canary_traffic(5_000, seed=13, share=0.5, users=100))
        assert state.exposure.users == state.exposure.users_at_most == 100


class TestReport:
    def test_every_verdict_renders_with_figures(self):
        assessment = assess(judged(canary_traffic(60_000, seed=1, canary_rate=0.03)))
        for verdict in (assessment.harm, assessment.health, assessment.split):
            assert type(verdict).from_json(verdict.to_json()) == verdict
            assert "canary" in verdict.render_text()
