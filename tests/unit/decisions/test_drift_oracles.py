"""Each statistic against an independent implementation: scipy.stats, brute force, or simulation."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance as spatial

from genai_operators.decisions.drift_bins import pool_rare, quantile_groups
from genai_operators.decisions.drift_chi_square import (
    chi_square,
    likelihood_ratio,
    noncentrality_interval,
    two_sample_statistic,
)
from genai_operators.decisions.drift_displacement import (
    bridge_area_quantile,
    bridge_area_survival,
    category_displacement,
    rank_displacement,
)
from genai_operators.decisions.drift_effects import (
    jensen_shannon_distance,
    population_stability_index,
    wasserstein_distance,
)
from genai_operators.decisions.drift_kolmogorov import (
    asymptotic_survival,
    exact_survival,
    kolmogorov_distance,
    kolmogorov_p_value,
)
from genai_operators.decisions.drift_permutation import permutation_p_value
from genai_operators.decisions.profile_sketch import align, sketch


def grids(first: np.ndarray, second: np.ndarray):
    return align(sketch(first), sketch(second))


class TestKolmogorov:
    @pytest.mark.parametrize(("n", "m", "shift"), [(40, 55, 0.3), (60, 60, 0.0), (80, 80, 2.0), (7, 900, 0.5)])
    def test_exact_p_value_is_that_of_scipy(self, n, m, shift):
        random = np.random.default_rng(n)
        first, second = random.standard_normal(n), random.standard_normal(m) + shift
        _, a, b, exact = grids(first, second)
        p_value = kolmogorov_p_value(a, b, exact_grid=exact, level=0.05, generator=random)
        expected = stats.ks_2samp(first, second, method="exact")
        assert kolmogorov_distance(a, b) == pytest.approx(expected.statistic, abs=1e-12)
        assert p_value == pytest.approx(expected.pvalue, rel=1e-9)

    def test_far_tail_keeps_its_relative_precision(self):
        assert exact_survival(1.0, 50, 50) == pytest.approx(2 / math.comb(100, 50), rel=1e-9)

    @pytest.mark.parametrize("size", [25, 150, 1_000, 50_000])
    def test_asymptotic_p_value_is_that_of_kstwo(self, size):
        for scaled in np.linspace(0.4, 2.5, 22):
            found, expected = (
                asymptotic_survival(scaled / math.sqrt(size), size),
                stats.kstwo.sf(scaled / math.sqrt(size), size),
            )
            assert found == pytest.approx(expected, abs=6e-4)
            if expected < 0.05 and size <= 5_000:
                assert found == pytest.approx(expected, rel=1e-3)

    @pytest.mark.parametrize(("n", "m"), [(150, 150), (120, 240), (300, 300)])
    def test_beyond_the_exact_ones_equal_sizes_do_not_alarm_too_often(self, n, m):
        steps = math.lcm(n, m)
        for step in range(steps // 12, steps // 5, max(1, steps // 60)):
            first, second = np.zeros(n + m, dtype=np.int64), np.zeros(n + m, dtype=np.int64)
            lead = step * n // steps  # so many values of the first sample come before any of the second
            order = np.concatenate([np.zeros(lead), np.resize([0, 1], 2 * (n - lead)), np.ones(m - n + lead)])
            first[order == 0], second[order == 1] = 1, 1
            distance = kolmogorov_distance(first, second)
            found = kolmogorov_p_value(first, second, exact_grid=True, level=1e-9, generator=np.random.default_rng(0))
            exact = exact_survival(distance, n, m)
            if exact > 1e-6:
                assert found >= 0.97 * exact, (distance, found, exact)

    def test_a_bucketed_million_rows_gives_nearly_the_exact_distance(self):
        random = np.random.default_rng(0)
        first, second = random.standard_normal(200_000), random.standard_normal(200_000) + 0.01
        _, a, b, _ = grids(first, second)
        assert kolmogorov_distance(a, b) == pytest.approx(stats.ks_2samp(first, second).statistic, abs=4e-4)


class TestChiSquare:
    def test_large_table_is_that_of_scipy(self):
        random = np.random.default_rng(0)
        first, second = random.multinomial(4_000, [0.5, 0.3, 0.2]), random.multinomial(3_000, [0.48, 0.3, 0.22])
        table = np.array([first, second])
        pearson, ratio = stats.chi2_contingency(table), stats.chi2_contingency(table, lambda_="log-likelihood")
        assert two_sample_statistic(first, second) == pytest.approx(pearson.statistic)
        assert likelihood_ratio(first, second) == pytest.approx(ratio.statistic)
        found = chi_square(first, second, level=0.01)
        assert found.degrees == pearson.dof
        assert found.p_value == pytest.approx(max(pearson.pvalue, ratio.pvalue))

    def test_rare_categories_are_pooled_not_trusted(self):
        first, second = np.array([500, 480, 3, 2, 1]), np.array([490, 470, 1, 3, 2])
        a, b, labels = pool_rare(first, second)
        assert a.tolist() == [500, 480, 6]
        assert b.tolist() == [490, 470, 6]
        assert labels.tolist() == [0, 1, 2, 2, 2]

    def test_a_lone_rare_category_joins_the_smallest_common_one(self):
        a, b, _ = pool_rare(np.array([500, 400, 1]), np.array([500, 400, 0]))
        assert a.tolist() == [500, 401]
        assert b.tolist() == [500, 400]

    def test_one_category_is_no_difference(self):
        assert chi_square(np.array([70]), np.array([900]), level=0.05).p_value == 1.0

    @pytest.mark.parametrize(("statistic", "degrees"), [(3.0, 4), (25.0, 9), (400.0, 19)])
    def test_noncentrality_interval_inverts_the_distribution(self, statistic, degrees):
        low, high = noncentrality_interval(statistic, degrees, 0.9)
        assert stats.ncx2.cdf(statistic, degrees, high) == pytest.approx(0.05, abs=1e-6)
        if low > 0:
            assert stats.ncx2.cdf(statistic, degrees, low) == pytest.approx(0.95, abs=1e-6)
        else:
            assert stats.chi2.cdf(statistic, degrees) <= 0.95


class TestEffects:
    def test_wasserstein_is_that_of_scipy(self):
        random = np.random.default_rng(0)
        first, second = random.lognormal(3, 1, 900), random.lognormal(3.1, 1, 700)
        values, a, b, _ = grids(first, second)
        assert wasserstein_distance(values, a, b).value == pytest.approx(stats.wasserstein_distance(first, second))

    def test_jensen_shannon_is_that_of_scipy(self):
        first, second = np.array([50, 30, 20]), np.array([40, 30, 60])
        expected = spatial.jensenshannon(first, second, base=2)
        assert jensen_shannon_distance(first, second).value == pytest.approx(expected)

    def test_psi_is_its_formula(self):
        first, second = np.array([500, 300, 200]), np.array([400, 300, 300])
        p, q = (first + 0.5) / 1001.5, (second + 0.5) / 1001.5
        assert population_stability_index(first, second).value == pytest.approx(float(((p - q) * np.log(p / q)).sum()))

    @pytest.mark.parametrize("measure", [population_stability_index, jensen_shannon_distance])
    def test_intervals_cover_and_a_percentile_bootstrap_does_not(self, measure):
        random = np.random.default_rng(0)
        p, q = np.full(10, 0.1), np.array([0.12, 0.11] + [0.1] * 6 + [0.09, 0.08])
        truth = measure(np.round(p * 1e9).astype(int), np.round(q * 1e9).astype(int)).value
        covered = missed = 0
        for _ in range(300):
            a, b = random.multinomial(2_000, p), random.multinomial(2_000, q)
            low, high = measure(a, b).interval
            covered += low <= truth <= high
            boots = [
                measure(random.multinomial(2_000, a / 2_000), random.multinomial(2_000, b / 2_000)).value
                for _ in range(40)
            ]
            missed += not np.quantile(boots, 0.025) <= truth <= np.quantile(boots, 0.975)
        assert covered >= 0.92 * 300
        assert missed >= 0.10 * 300


class TestPermutation:
    def test_p_value_is_never_zero(self):
        found = permutation_p_value(9.0, lambda count: np.zeros(count), level=0.05)
        assert (found.exceeded, found.drawn) == (0, 400)
        assert found.p_value == pytest.approx(1 / 401)

    def test_stops_once_it_knows_enough(self):
        found = permutation_p_value(0.0, lambda count: np.zeros(count), level=1e-6)
        assert (found.exceeded, found.drawn, found.p_value) == (20, 20, 1.0)

    def test_draws_as_many_as_a_small_level_needs(self):
        found = permutation_p_value(9.0, lambda count: np.zeros(count), level=1e-3)
        assert found.drawn == 20_000
        assert found.p_value < 1e-4

    def test_beyond_what_can_be_drawn_a_known_tail_takes_over(self):
        never = permutation_p_value(9.0, lambda count: np.zeros(count), level=1e-9, tail=1e-12)
        assert (never.drawn, never.p_value) == (100_000, 1e-12)
        once = permutation_p_value(
            9.0, lambda count: np.eye(1, count)[0] * 10 * (count > 15_000), level=1e-9, tail=1e-12
        )
        assert once.p_value > 1e-5

    def test_p_values_are_uniform_whatever_the_stopping(self):
        random = np.random.default_rng(0)
        p_values = [
            permutation_p_value(random.standard_normal(), random.standard_normal, level=0.05).p_value
            for _ in range(3_000)
        ]
        for level in (0.05, 0.2, 0.5):
            assert stats.binomtest(int((np.array(p_values) <= level).sum()), 3_000, level).pvalue > 1e-3


class TestDisplacement:
    def test_bridge_area_is_that_of_simulated_bridges(self):
        random = np.random.default_rng(0)
        walks = np.cumsum(random.standard_normal((4_000, 500)), axis=1) / math.sqrt(500)
        areas = np.abs(walks - walks[:, -1:] * np.arange(1, 501) / 500).mean(axis=1)
        for area in (0.2, 0.3, 0.45, 0.6):
            assert bridge_area_survival(area) == pytest.approx(float((areas > area).mean()), abs=0.03)

    def test_bridge_area_tail_is_smooth_and_inverts(self):
        tail = [bridge_area_survival(area) for area in np.linspace(0.05, 2.5, 200)]
        assert all(b <= a for a, b in pairwise(tail))
        for level in (0.5, 0.01, 1e-6, 1e-9):
            assert bridge_area_survival(bridge_area_quantile(level)) == pytest.approx(level, rel=1e-6)

    def test_of_a_shift_is_cliffs_delta(self):
        random = np.random.default_rng(0)
        first, second = random.standard_normal(300), random.standard_normal(400) + 3
        _, a, b, _ = grids(first, second)
        delta = float(np.sign(second[:, None] - first[None, :]).mean())
        assert rank_displacement(a, b).effect == pytest.approx(abs(delta), abs=1e-3)

    def test_of_two_values_is_the_difference_of_shares(self):
        numbers = rank_displacement(np.array([70, 30]), np.array([100, 100]))
        names = category_displacement(np.array([70, 30]), np.array([100, 100]))
        assert numbers.effect == pytest.approx(0.2)
        assert names.effect == pytest.approx(0.2)

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.floats(-50, 50), min_size=2, max_size=40),
        st.lists(st.floats(-50, 50), min_size=2, max_size=40),
    )
    def test_knows_no_units_and_no_direction(self, first, second):
        a, b = np.round(np.array(first), 3), np.round(np.array(second), 3)
        _, f, g, _ = grids(a, b)
        _, h, k, _ = grids(np.exp(b / 10) * 1e6, np.exp(a / 10) * 1e6)
        found, turned = rank_displacement(f, g), rank_displacement(h, k)
        assert found.effect == pytest.approx(turned.effect, abs=1e-12)
        assert found.scale == pytest.approx(turned.scale)
        assert 0 <= found.effect <= 1 + 1e-12

    @pytest.mark.parametrize(
        "displacement",
        [
            rank_displacement(np.array([10, 200, 300, 90]), np.array([20, 150, 310, 220])),
            category_displacement(np.array([10, 200, 300, 90]), np.array([20, 150, 310, 220])),
        ],
    )
    def test_interval_and_p_value_agree(self, displacement):
        for level in (0.2, 0.01, 1e-5):
            low, _ = displacement.interval(level)
            assert displacement.p_value(low + 1e-6) >= level
            if low > 0:
                assert displacement.p_value(low - 1e-6) <= level

    def test_quantile_groups_never_cut_a_value(self):
        pooled = np.array([500, 1, 1, 1, 300, 1, 1, 200])
        labels = quantile_groups(pooled, 5)
        assert labels[0] != labels[1]
        assert labels.tolist() == sorted(labels.tolist())
        assert labels.max() < 5
