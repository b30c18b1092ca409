"""Where scipy or statsmodels have the same test, the figures agree to 1e-8; elsewhere, with the definition itself."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats
from statsmodels.stats import contingency_tables, multitest, power, proportion

from genai_operators.decisions import paired
from genai_operators.decisions.paired_bounded import BoundedDifferences
from genai_operators.decisions.paired_differences import clustered_mean_difference, mean_difference
from genai_operators.decisions.paired_rates import score_statistics

CLOSE = 1e-8


class TestRates:
    @pytest.mark.parametrize("n", [1, 7, 30, 400, 4000])
    @pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
    def test_wilson(self, n: int, confidence: float):
        for successes in {0, 1, n // 3, n - 1, n}:
            expected = proportion.proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
            assert paired.wilson(successes, n=n, confidence=confidence) == pytest.approx(expected, abs=CLOSE)

    def test_rule_of_three_is_the_exact_binomial_bound(self):
        for n in (1, 30, 300, 100_000):
            _, expected = proportion.proportion_confint(0, n, alpha=0.1, method="beta")  # two-sided 90 %
            assert paired.rule_of_three(n) == pytest.approx(expected, abs=CLOSE)
        assert paired.rule_of_three(300) == pytest.approx(0.01, rel=0.01)

    @pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (5, 5), (3, 12), (90, 60), (400, 310)])
    def test_mcnemar(self, gained: int, lost: int):
        expected = contingency_tables.mcnemar([[10, gained], [lost, 10]], exact=True).pvalue
        assert paired.mcnemar_exact(gained=gained, lost=lost) == pytest.approx(expected, abs=CLOSE)
        if gained + lost:
            one_sided = stats.binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue
            assert paired.mcnemar_exact(gained=gained, lost=lost, alternative="greater") == pytest.approx(
                one_sided, abs=CLOSE
            )

    @pytest.mark.parametrize("difference", [-0.1, -0.02, 0.0, 0.07])
    def test_the_score_statistic_uses_the_restricted_likelihood(self, difference: float):
        """The nuisance share maximises the likelihood under the hypothesis; found again by a numerical search."""
        gained, lost, n = 14, 9, 200

        def unlikely(share: float) -> float:
            return -float(
                special.xlogy(gained, share + difference)
                + special.xlogy(lost, share)
                + special.xlogy(n - gained - lost, 1 - 2 * share - difference)
            )

        low, high = max(0.0, -difference) + 1e-12, (1 - difference) / 2 - 1e-12
        share = optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-14}).x
        expected = (gained - lost - n * difference) / math.sqrt(n * (2 * share + difference - difference**2))
        actual = score_statistics(difference, gained=np.array([gained]), lost=np.array([lost]), n=n)[0]
        assert actual == pytest.approx(expected, abs=1e-6)  # as close as a search of a flat maximum comes

    @pytest.mark.parametrize(("gained", "lost", "n"), [(3, 1, 12), (0, 2, 10), (5, 0, 9), (0, 0, 8)])
    @pytest.mark.parametrize("difference", [-0.2, 0.0, 0.1])
    def test_the_exact_test_by_enumeration(self, gained: int, lost: int, n: int, difference: float):
        """Largest multinomial probability of an outcome at least as extreme, over more shares than are tried."""
        outcomes = np.array([(b, c) for b, c in itertools.product(range(n + 1), repeat=2) if b + c <= n])
        statistics = score_statistics(difference, gained=outcomes[:, 0], lost=outcomes[:, 1], n=n)
        observed = score_statistics(difference, gained=np.array([gained]), lost=np.array([lost]), n=n)[0]
        extreme = outcomes[statistics >= observed - 1e-10]
        low, high = max(0.0, -difference), (1 - difference) / 2
        largest = 0.0
        for share in low + (high - low) * np.linspace(0, 1, 2_001) ** 2:
            probabilities = [max(share + difference, 0.0), share, max(1 - 2 * share - difference, 0.0)]
            counts = np.column_stack([extreme, n - extreme.sum(axis=1)])
            largest = max(largest, float(stats.multinomial.pmf(counts, n, probabilities).sum()))
        actual = paired.exact_p_value(difference, gained=gained, lost=lost, n=n)
        assert actual == pytest.approx(min(largest, 1.0), abs=1e-5)

    def test_right_or_wrong_items_are_judged_by_the_exact_test(self):
        candidate, baseline = np.repeat([1, 1, 0], [291, 0, 9]), np.repeat([1, 0, 1], [291, 0, 9])
        result = paired.non_inferiority(candidate, baseline, margin=0.05)
        assert result.p_value == paired.exact_p_value(-0.05, gained=0, lost=9, n=300)


class TestMeans:
    def test_student(self):
        random = np.random.default_rng(1)
        candidate, baseline = random.normal(0.5, 0.2, 80), random.normal(0.48, 0.2, 80)
        mean = mean_difference(candidate - baseline)
        oracle = stats.ttest_1samp(candidate - baseline, popmean=-0.05, alternative="greater")
        assert mean.p_value(threshold=-0.05) == pytest.approx(oracle.pvalue, abs=CLOSE)
        two_sided = stats.ttest_1samp(candidate - baseline, popmean=0.0).confidence_interval(0.9)
        assert mean.interval(confidence=0.9) == pytest.approx((two_sided.low, two_sided.high), abs=CLOSE)
        paired_test = stats.ttest_rel(candidate, baseline, alternative="greater")
        assert mean.p_value(threshold=0.0) == pytest.approx(paired_test.pvalue, abs=CLOSE)

    @pytest.mark.parametrize(("lost", "n"), [(0, 30), (1, 30), (7, 100), (3, 1000), (60, 4000)])
    def test_losses_alone_are_judged_by_the_exact_binomial_bound(self, lost: int, n: int):
        """Also where Student's t is sure of itself: the stricter of the two is the answer."""
        candidate, baseline = np.repeat([0.0, 1.0], [lost, n - lost]), np.ones(n)
        result = paired.non_inferiority(candidate, baseline, margin=0.02, clusters=range(n))
        oracle = stats.binomtest(lost, n, 0.02, alternative="less")
        student = mean_difference(candidate - baseline).p_value(threshold=-0.02)
        assert result.p_value == pytest.approx(max(oracle.pvalue, student), abs=CLOSE)
        upper = oracle.proportion_ci(0.95, method="exact").high
        assert result.interval[0] == pytest.approx(-upper, abs=CLOSE)

    def test_gaffkes_bound_by_simulation(self):
        """The share of flat Dirichlet weights with which the mean, the worst outcome added, is not above."""
        random = np.random.default_rng(6)
        differences = random.beta(2, 3, 60) - random.beta(2, 3, 60)
        weights = random.exponential(size=(20_000, 61))
        means = (weights @ np.append(differences, -1.0)) / weights.sum(axis=1)
        bounded = BoundedDifferences(differences, np.ones(60), 1.0)
        for threshold in (-0.1, -0.05, 0.0):
            expected = float((means <= threshold).mean())
            assert bounded.p_value(threshold=threshold) == pytest.approx(expected, abs=0.015)
        lower = bounded.lower_bound(confidence=0.95)
        assert bounded.p_value(threshold=lower) == pytest.approx(0.05, abs=1e-6)

    def test_one_item_a_cluster_is_student(self):
        differences = np.random.default_rng(2).normal(0, 1, 50)
        clustered = clustered_mean_difference(differences, np.arange(50))
        assert clustered.standard_error == pytest.approx(mean_difference(differences).standard_error, abs=CLOSE)

    def test_clusters_by_leaving_each_out(self):
        random = np.random.default_rng(3)
        clusters = random.integers(0, 12, 200)
        differences = random.normal(0, 1, 12)[clusters] + random.normal(0, 0.5, 200)
        without = np.array([differences[clusters != c].mean() for c in range(12)])
        expected = math.sqrt(11 / 12 * ((without - differences.mean()) ** 2).sum())
        assert clustered_mean_difference(differences, clusters).standard_error == pytest.approx(expected, abs=CLOSE)

    def test_the_bootstrap_is_close_to_student_where_student_is_right(self):
        differences = np.random.default_rng(4).normal(0.1, 1.0, 200)
        low, high = paired.bootstrap_interval(differences, confidence=0.95, seed=5)
        expected = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.02)


class TestMultiplicity:
    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
    def test_holm_and_benjamini_hochberg(self, p_values: list[float]):
        assert np.allclose(paired.holm(p_values), multitest.multipletests(p_values, method="holm")[1], atol=CLOSE)
        assert np.allclose(
            paired.benjamini_hochberg(p_values), multitest.multipletests(p_values, method="fdr_bh")[1], atol=CLOSE
        )

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.randoms(use_true_random=False))
    def test_the_order_does_not_matter(self, p_values: list[float], random: object):
        order = list(range(len(p_values)))
        random.shuffle(order)  # type: ignore[attr-defined]
        for adjust in (paired.holm, paired.benjamini_hochberg):
            shuffled = adjust([p_values[place] for place in order])
            assert np.allclose(shuffled, adjust(p_values)[order])


class TestPower:
    def test_items_needed(self):
        for difference, spread in ((0.02, 0.35), (0.05, 0.4), (0.1, 1.0)):
            expected = power.normal_sample_size_one_tail(difference, 0.8, 0.05, spread)
            assert paired.items_needed(difference, spread=spread) == math.ceil(expected)

    def test_the_detectable_difference_is_the_inverse(self):
        detectable = paired.minimum_detectable_difference(1000, spread=0.35)
        assert paired.items_needed(detectable * (1 + 1e-9), spread=0.35) == 1000
