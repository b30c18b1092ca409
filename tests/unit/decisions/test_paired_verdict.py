"""What a user gets from a paired comparison."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_operators.decisions import paired
from genai_operators.decisions.verdict import Outcome
from genai_operators.exceptions import DataError


def items(*, both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Right-or-wrong items of a candidate and a baseline."""
    candidate = np.repeat([1, 1, 0, 0], [both, gained, lost, neither])
    baseline = np.repeat([1, 0, 1, 0], [both, gained, lost, neither])
    return candidate, baseline


class TestNonInferiority:
    def test_an_equal_candidate_with_many_items_passes(self):
        result = paired.non_inferiority(*items(both=1700, gained=60, lost=60, neither=180), margin=0.02)
        assert result.outcome is Outcome.PASS
        assert result.missing == 0
        assert result.interval[0] > -0.02

    def test_a_much_worse_candidate_fails(self):
        result = paired.non_inferiority(*items(both=300, gained=5, lost=95, neither=100), margin=0.05)
        assert result.outcome is Outcome.FAIL
        assert result.interval[1] < -0.05

    def test_too_few_items_decide_nothing_and_say_how_many_are_missing(self):
        result = paired.non_inferiority(*items(both=20, gained=0, lost=0, neither=0), margin=0.05)
        assert result.outcome is Outcome.INCONCLUSIVE
        assert result.missing >= 10
        assert f"about {result.missing:,} more items" in result.check("exact_match").message

    def test_enough_items_but_no_verdict_says_how_many_more(self):
        result = paired.non_inferiority(*items(both=180, gained=8, lost=8, neither=4), margin=0.02)
        assert result.outcome is Outcome.INCONCLUSIVE
        assert 500 < result.missing < 5_000  # (1.645 + 0.842)^2 * 0.08 / 0.02^2 - 200 = 1,037
        assert result.detectable > 0.02

    def test_a_failure_is_proved_as_exactly_as_a_pass(self):
        """Swapped arms and a threshold on the other side: the same outcomes, so the same p-values decide."""
        for lost in range(1, 12):
            worse = paired.non_inferiority(*items(both=100 - lost, gained=0, lost=lost, neither=0), margin=0.02)
            proved = paired.exact_p_value(0.02, gained=lost, lost=0, n=100) <= 0.05
            assert (worse.outcome is Outcome.FAIL) == proved
            assert (worse.interval[1] < -0.02) <= proved

    def test_perfect_agreement_passes_once_the_items_suffice(self):
        assert paired.non_inferiority(*items(both=60, gained=0, lost=0, neither=0), margin=0.05).outcome is Outcome.PASS

    def test_bound_and_verdict_never_disagree(self):
        for gained, lost, n in ((0, 1, 300), (2, 5, 100), (10, 12, 400), (3, 3, 90)):
            rest = n - gained - lost
            result = paired.non_inferiority(*items(both=rest, gained=gained, lost=lost, neither=0), margin=0.02)
            assert (result.outcome is Outcome.PASS) == (result.p_value <= 0.05)
            assert (result.interval[0] > -0.02) <= (result.outcome is Outcome.PASS)

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 10))
    def test_more_gains_never_hurt_and_a_wider_margin_never_does(self, gained: int, lost: int, more: int):
        def p_value(gained: int, margin: float) -> float:
            return paired.non_inferiority(
                *items(both=200 - gained - lost, gained=gained, lost=lost, neither=0), margin=margin
            ).p_value

        assert p_value(gained + more, 0.05) <= p_value(gained, 0.05) + 1e-9
        assert p_value(gained, 0.10) <= p_value(gained, 0.05) + 1e-9

    @settings(max_examples=20, deadline=None)
    @given(st.integers(0, 2**32 - 1))
    def test_the_order_of_the_items_does_not_matter(self, seed: int):
        random = np.random.default_rng(seed)
        candidate, baseline = random.random(60), random.random(60)
        clusters = random.integers(0, 35, 60).tolist()
        order = random.permutation(60)
        one = paired.non_inferiority(candidate, baseline, margin=0.1, clusters=clusters)
        other = paired.non_inferiority(
            candidate[order], baseline[order], margin=0.1, clusters=[clusters[place] for place in order]
        )
        assert one.interval == pytest.approx(other.interval, abs=1e-9)


class TestSuperiority:
    def test_a_better_candidate_passes(self):
        result = paired.superiority(*items(both=300, gained=60, lost=20, neither=20))
        assert result.outcome is Outcome.PASS
        assert (result.gained, result.lost) == (60, 20)

    def test_a_required_gain_is_required(self):
        candidate, baseline = items(both=300, gained=60, lost=20, neither=20)
        assert paired.superiority(candidate, baseline, gain=0.15).outcome is not Outcome.PASS

    def test_an_equal_candidate_is_not_better(self):
        assert paired.superiority(*items(both=100, gained=50, lost=50, neither=0)).outcome is Outcome.INCONCLUSIVE


class TestClusters:
    def test_turns_of_a_conversation_do_not_count_as_independent(self):
        """Forty conversations of 25 turns, all turns of one alike: the error is that of 40 items, not of 1,000."""
        random = np.random.default_rng(1)
        conversations = np.repeat(np.arange(40), 25)
        candidate = np.repeat(random.random(40) < 0.80, 25)
        baseline = np.repeat(random.random(40) < 0.78, 25)
        clustered = paired.non_inferiority(candidate, baseline, margin=0.05, clusters=conversations.tolist())
        plain = paired.non_inferiority(candidate, baseline, margin=0.05)
        assert clustered.clusters == 40
        assert (clustered.interval[1] - clustered.interval[0]) > 4 * (plain.interval[1] - plain.interval[0])

    def test_a_number_and_its_text_are_two_clusters(self):
        names = [name for number in range(20) for name in (number, str(number))]
        assert paired.non_inferiority(np.ones(40), np.ones(40), margin=0.1, clusters=names).clusters == 40

    def test_clusters_of_one_item_are_judged_no_milder_than_items(self):
        plain = paired.non_inferiority(np.ones(30), np.ones(30), margin=0.02)
        clustered = paired.non_inferiority(np.ones(30), np.ones(30), margin=0.02, clusters=range(30))
        assert clustered.outcome is plain.outcome is Outcome.INCONCLUSIVE
        assert clustered.p_value == pytest.approx(plain.p_value, abs=1e-6)
        assert clustered.missing == plain.missing > 100

    def test_too_few_clusters_decide_nothing(self):
        result = paired.non_inferiority(np.ones(500), np.ones(500), margin=0.05, clusters=[0] * 250 + [1] * 250)
        assert result.outcome is Outcome.INCONCLUSIVE
        assert result.missing > 0

    def test_a_single_cluster_has_no_error(self):
        result = paired.non_inferiority(np.ones(50), np.zeros(50), margin=0.05, clusters=[0] * 50)
        assert result.interval == (-math.inf, math.inf)
        assert result.outcome is Outcome.INCONCLUSIVE


class TestInput:
    @pytest.mark.parametrize(
        ("candidate", "baseline", "options", "says"),
        [
            ([], [], {}, "at least one score"),
            ([1, 0], [1], {}, "candidate has 2 items, baseline 1"),
            ([1, math.nan], [1, 0], {}, r"candidate\[1\] is nan"),
            ([1, 0], [math.inf, 0], {}, r"baseline\[0\] is inf"),
            ([1, 0], [1, 0], {"margin": 0.0}, "margin must be a positive number"),
            ([1, 0], [1, 0], {"margin": math.nan}, "margin must be a positive number"),
            ([1, 0], [1, 0], {"confidence": 0.4}, "confidence is one-sided"),
            ([1, 0], [1, 0], {"clusters": ["a"]}, "1 cluster names for 2 items"),
            ([[1, 0]], [[1, 0]], {}, "shape"),
            ([1, 0], [1, 0], {"clusters": ["a", None]}, r"clusters\[1\] is None"),
            ([1, 0], [1, 0], {"clusters": [math.nan, 1]}, r"clusters\[0\] is nan"),
            ([1, 3], [1, 0], {"bounds": (0, 2)}, "outside bounds"),
            ([1, 0], [1, 0], {"bounds": (1, 0)}, "lowest and highest"),
        ],
    )
    def test_what_cannot_be_compared_is_named(self, candidate: Any, baseline: Any, options: dict[str, Any], says: str):
        with pytest.raises(DataError, match=says):
            paired.non_inferiority(candidate, baseline, **{"margin": 0.1, **options})

    def test_impossible_counts_and_probabilities_are_named(self):
        for call in (
            lambda: paired.wilson(5, n=4),
            lambda: paired.wilson(1, n=0),
            lambda: paired.rule_of_three(0),
            lambda: paired.mcnemar_exact(gained=-1, lost=2),
            lambda: paired.exact_p_value(0.0, gained=3, lost=3, n=5),
            lambda: paired.score_interval(gained=9, lost=3, n=10),
            lambda: paired.holm([0.1, 1.2]),
            lambda: paired.benjamini_hochberg([math.nan]),
            lambda: paired.minimum_detectable_difference(0, spread=1.0),
            lambda: paired.items_needed(0.0, spread=1.0),
            lambda: paired.superiority([1], [0], gain=-1.0),
        ):
            with pytest.raises(DataError, match=r"\d"):
                call()
