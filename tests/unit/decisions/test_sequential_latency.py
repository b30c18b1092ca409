"""Slow answers: thresholds fixed from the champion's past, quantiles averaged."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_operators.decisions.sequential import Observations, Plan, assess, start, update
from genai_operators.decisions.sequential_latency import exceedances, latency_guardrails
from genai_operators.exceptions import DataError

BEFORE = np.random.default_rng(0).lognormal(math.log(250), 0.5, 5_000)


def released(factor: float, *, requests: int, seed: int, quantiles: tuple[float, ...] = (0.5, 0.9, 0.99)) -> bool:
    random = np.random.default_rng(seed)
    guardrails = latency_guardrails("first_token", BEFORE, quantiles=quantiles)
    canary = random.random(requests) < 0.05
    times = random.lognormal(math.log(250), 0.5, requests) * np.where(canary, factor, 1.0)
    observations = Observations(
        arrival=np.arange(requests) / 50,
        canary=canary,
        propensity=np.full(requests, 0.05),
        bad=exceedances(times, guardrails),
    )
    return assess(update(start(Plan(guardrails=tuple(guardrails.values()))), observations)).harmful


class TestSlowAnswers:
    def test_a_slower_canary_is_found_and_an_equal_one_is_not(self):
        assert sum(released(1.5, requests=6_000, seed=seed) for seed in range(10)) >= 9
        assert sum(released(1.0, requests=6_000, seed=seed) for seed in range(40)) <= 5

    def test_quantiles_share_one_weight(self):
        guardrails = latency_guardrails("gap", BEFORE, alpha_weight=2.0)
        assert math.isclose(sum(guardrail.alpha_weight for guardrail in guardrails.values()), 2.0)
        assert [guardrail.name for guardrail in guardrails.values()] == [
            "gap_above_p50",
            "gap_above_p90",
            "gap_above_p99",
        ]

    def test_the_margin_of_the_median_can_be_missed(self):
        """Twice a rate of one half would be a certainty; nothing could be above that."""
        (guardrail,) = latency_guardrails("gap", BEFORE, quantiles=(0.5,), margin=3.0).values()
        assert guardrail.margin == 1.5

    def test_answers_without_a_time_say_nothing(self):
        guardrails = latency_guardrails("gap", BEFORE, quantiles=(0.5,))
        (threshold,) = guardrails
        columns = exceedances([threshold, threshold + 1, math.nan], guardrails)
        assert columns["gap_above_p50"].tolist() == [0, 1, -1]

    def test_quantiles_with_one_time_are_one_guardrail_with_all_of_the_weight(self):
        """Most answers take the same time: its half and its tenth begin there."""
        times = np.concatenate([np.full(950, 100.0), np.linspace(200, 300, 50)])
        guardrails = latency_guardrails("gap", times, alpha_weight=2.0)
        assert [guardrail.name for guardrail in guardrails.values()] == ["gap_above_p90", "gap_above_p99"]
        assert math.isclose(sum(guardrail.alpha_weight for guardrail in guardrails.values()), 2.0)

    @pytest.mark.parametrize("wrong", [math.inf, -1.0])
    def test_a_time_that_cannot_be_is_named(self, wrong: float):
        with pytest.raises(DataError, match="gap: time 7 is"):
            latency_guardrails("gap", [*BEFORE[:7], wrong, *BEFORE])
        with pytest.raises(DataError, match="time 1 is"):
            exceedances([1.0, wrong], latency_guardrails("gap", BEFORE))

    @settings(max_examples=40, deadline=None)
    @given(
        times=st.lists(st.one_of(st.floats(0, 1e4), st.sampled_from([1.0, 2.0])), min_size=50, max_size=120),
        quantiles=st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9]), min_size=1, max_size=4, unique=True),
        slower=st.floats(1, 3),
    )
    def test_shares_add_up_and_a_slower_answer_is_never_less_bad(
        self, times: list[float], quantiles: list[float], slower: float
    ):
        guardrails = latency_guardrails("gap", times, quantiles=tuple(quantiles), alpha_weight=3.0)
        assert math.isclose(sum(guardrail.alpha_weight for guardrail in guardrails.values()), 3.0)
        before, after = exceedances(times, guardrails), exceedances(np.array(times) * slower, guardrails)
        assert set(before) == {guardrail.name for guardrail in guardrails.values()}
        assert all((after[name] >= before[name]).all() for name in before)
        order = sorted(guardrails)
        for low, high in itertools.pairwise(order):
            assert (before[guardrails[low].name] >= before[guardrails[high].name]).all()

    def test_too_short_a_past_is_refused(self):
        with pytest.raises(DataError, match=r"100 times of the champion; its quantiles .* need 500"):
            latency_guardrails("gap", BEFORE[:100])
        with pytest.raises(DataError, match="quantiles must lie in"):
            latency_guardrails("gap", BEFORE, quantiles=(1.0,))
