"""Bounded scores: verdicts, intervals that hold at all times, replay, input."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from genai_operators.decisions.bounded import (
    ScorePlan,
    ScoreState,
    assess_scores,
    start_scores,
    update_scores,
)
from genai_operators.decisions.verdict import Outcome
from genai_operators.exceptions import DataError, SpecError

JUDGE = ScorePlan(name="judge")
OUTCOMES = [0.0, 0.5, 1.0]


def judged(pairs: int, *, lose: float, tie: float, seed: int, plan: ScorePlan = JUDGE) -> ScoreState:
    scores = np.random.default_rng(seed).choice(OUTCOMES, p=[lose, tie, 1 - lose - tie], size=pairs)
    return update_scores(start_scores(plan), scores)


class TestVerdict:
    def test_a_canary_that_loses_is_called_worse(self):
        assessment = assess_scores(judged(400, lose=0.6, tie=0.1, seed=1))
        assert assessment.verdict.outcome is Outcome.FAIL
        assert assessment.interval[1] < 0.5

    def test_an_equal_canary_is_certified(self):
        assert assess_scores(judged(2_000, lose=0.4, tie=0.2, seed=2)).verdict.outcome is Outcome.PASS

    def test_few_pairs_decide_nothing(self):
        assert assess_scores(judged(15, lose=0.4, tie=0.2, seed=3)).verdict.outcome is Outcome.INCONCLUSIVE
        empty = assess_scores(start_scores(JUDGE))
        assert empty.mean is None
        assert empty.interval == (0.0, 1.0)
        assert empty.verdict.outcome is Outcome.INCONCLUSIVE

    def test_harm_stays_proved(self):
        state = judged(400, lose=0.7, tie=0.0, seed=4)
        better = update_scores(state, np.ones(2_000))
        assert assess_scores(better).verdict.outcome is Outcome.FAIL

    def test_what_was_refuted_stays_refuted(self):
        """The mean moved from 0 to 1; no constant mean explains both, and the interval says so."""
        state = update_scores(update_scores(start_scores(JUDGE), np.zeros(300)), np.ones(300))
        assert all(math.isnan(end) for end in assess_scores(state).interval)

    @pytest.mark.parametrize(("mean", "spread"), [(0.505, 0.09), (0.5, 0.09), (0.9963, 0.0037)])
    def test_a_mean_between_two_claims_is_still_found(self, mean: float, spread: float):
        """Little spread: every claim of the grid is refuted in the end, from below or from above."""
        random = np.random.default_rng(10)
        state = start_scores(JUDGE)
        for _ in range(4):
            state = update_scores(state, random.uniform(mean - spread, mean + spread, 2_500))
            low, high = assess_scores(state).interval
            assert low <= mean <= high
        assert high - low < 0.025

    def test_a_cost_is_judged_as_its_negative(self):
        plan = ScorePlan(name="cost", low=-2.0, high=0.0, neutral=-0.5, margin=0.2)
        random = np.random.default_rng(5)
        assert (
            assess_scores(update_scores(start_scores(plan), -random.uniform(0, 1, 3_000))).verdict.outcome
            is Outcome.PASS
        )
        worse = assess_scores(update_scores(start_scores(plan), -random.uniform(0, 2, 3_000)))
        assert worse.verdict.outcome is Outcome.FAIL
        assert worse.interval[0] <= -1.0 <= worse.interval[1]

    def test_the_interval_narrows(self):
        widths = []
        for pairs in (50, 500, 5_000):
            low, high = assess_scores(judged(pairs, lose=0.4, tie=0.2, seed=6)).interval
            widths.append(high - low)
        assert widths == sorted(widths, reverse=True)
        assert widths[-1] < 0.12


class TestCalibration:
    def test_equal_and_marginal_canaries_and_the_interval_at_all_times(self):
        wrong_harm = wrong_health = lost = 0
        for seed in range(200):
            equal = assess_scores(judged(400, lose=0.4, tie=0.2, seed=1_000 + seed))
            marginal = assess_scores(judged(400, lose=0.5, tie=0.2, seed=2_000 + seed))
            wrong_harm += equal.verdict.outcome is Outcome.FAIL
            wrong_health += marginal.verdict.outcome is Outcome.PASS
            lost += not equal.interval[0] <= 0.5 <= equal.interval[1]
        for count in (wrong_harm, wrong_health, lost):
            assert stats.binomtest(count, 200, 0.05, alternative="greater").pvalue > 0.01

    def test_peeking_at_a_t_interval_is_caught(self):
        """What the confidence sequence replaces: a fixed-n interval, looked at after every ten pairs."""
        lost = 0
        for seed in range(200):
            scores = np.random.default_rng(1_000 + seed).choice(OUTCOMES, p=[0.4, 0.2, 0.4], size=400)
            looks = np.arange(20, 401, 10)
            means = scores.cumsum()[looks - 1] / looks
            errors = np.array([scores[:n].std(ddof=1) for n in looks]) / np.sqrt(looks)
            lost += bool((np.abs(means - 0.5) > 1.96 * errors).any())
        assert stats.binomtest(lost, 200, 0.05, alternative="greater").pvalue < 0.01


class TestReplay:
    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 700), max_size=8))
    def test_any_batching_gives_the_same_bits(self, seed: int, cuts: list[int]):
        scores = np.random.default_rng(seed).random(700)
        state = start_scores(JUDGE)
        for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), 700], strict=True):
            state = ScoreState.from_json(json.loads(json.dumps(update_scores(state, scores[begin:end]).to_json())))
        assert state.to_json() == update_scores(start_scores(JUDGE), scores).to_json()

    def test_the_state_is_small(self):
        assert len(json.dumps(judged(10_000, lose=0.6, tie=0.1, seed=7).to_json())) < 8_000

    def test_another_version_is_refused(self):
        with pytest.raises(DataError, match="version 0"):
            ScoreState.from_json({**start_scores(JUDGE).to_json(), "version": 0})


class TestOracle:
    def test_capital_is_the_product_of_the_bets(self):
        """Written again as a loop over scores and one claim."""
        scores = np.random.default_rng(8).random(300)
        rising = falling = 0.0
        total, squares = 0.0, 0.0
        for n, score in enumerate(scores):
            variance = (0.25 + squares) / (n + 1)
            stake = math.sqrt(2 * math.log(2 / 0.05) / (variance * (n + 1) * math.log(n + 2)))
            rising += math.log1p(min(stake, 0.5 / 0.4) * (score - 0.4))
            falling += math.log1p(-min(stake, 0.5 / 0.5) * (score - 0.5))
            total += score
            squares += (score - (0.5 + total) / (n + 2)) ** 2
        assessment = assess_scores(update_scores(start_scores(JUDGE), scores))
        assert assessment.log_health == pytest.approx(rising, abs=1e-9)
        assert assessment.log_harm == pytest.approx(falling, abs=1e-9)


class TestInput:
    @pytest.mark.parametrize("scores", [[0.5, math.nan], [0.5, 1.01], [-0.1, 0.5], [0.5, math.inf]])
    def test_impossible_scores_are_named(self, scores: list[float]):
        with pytest.raises(DataError, match=r"'judge': row [01]"):
            update_scores(start_scores(JUDGE), scores)

    @pytest.mark.parametrize(
        "changes",
        [{"low": 1.0}, {"margin": 0.6}, {"margin": 0.0}, {"neutral": 1.0}, {"alpha": 0.0}, {"high": math.inf}],
    )
    def test_a_plan_that_asks_nothing_is_refused(self, changes: dict[str, Any]):
        with pytest.raises(SpecError, match="'judge'"):
            ScorePlan(**{"name": "judge", **changes})
