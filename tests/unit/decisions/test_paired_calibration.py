"""False passes, coverage and power, reduced; the full study is ``benchmarks/decisions_paired.py``. Seeds are fixed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks import decisions_paired as study

LEVEL = 0.05


class TestFalsePasses:
    @pytest.mark.parametrize("n", [30, 100, 300, 1000])
    @pytest.mark.parametrize("discordance", [0.0, 0.06, 0.3])
    def test_at_the_margin_at_most_the_level_pass(self, n: int, discordance: float):
        """Exact: every outcome weighed by its probability, no simulation."""
        assert study.false_pass_rate(n=n, margin=0.05, lost_share=0.05 + discordance / 2) <= LEVEL + 1e-9

    def test_the_asymptotic_test_is_caught(self):
        assert study.false_pass_rate(n=300, margin=0.02, lost_share=0.02, exact=False) > 0.055

    @pytest.mark.parametrize("n", [30, 100, 1000, 4000])
    @pytest.mark.parametrize("case", study.RARE_LOSSES)
    def test_losses_too_rare_to_have_been_seen(self, case: str, n: int):
        """Exact too: the verdict depends on the number of lost units alone."""
        assert study.rare_loss_pass_rate(n=n, **study.RARE_LOSSES[case]) <= LEVEL + 1e-9

    @pytest.mark.parametrize("case", study.RARE_LOSSES)
    def test_student_alone_is_caught(self, case: str):
        rates = [study.rare_loss_pass_rate(n=n, **study.RARE_LOSSES[case], product=False) for n in (30, 100, 1000)]
        assert all(rate > 0.055 for rate in rates)
        assert rates[0] > 0.2

    def test_unpaired_items_are_caught_by_their_power(self):
        paired_power, unpaired_power = study.power(n=1000, items=400, seed=1)
        assert paired_power > unpaired_power + 0.2


class TestCoverage:
    @pytest.mark.parametrize("n", [30, 300])
    def test_score_interval(self, n: int):
        covered = study.score_coverage(n=n, difference=0.02, discordance=0.2, releases=1_500, seed=2)
        assert stats.binomtest(covered, 1_500, 0.95, alternative="less").pvalue > 0.01

    @pytest.mark.parametrize("method", ["student", "bootstrap"])
    def test_means_of_bounded_scores(self, method: str):
        covered = study.mean_coverage(n=40, method=method, releases=600, seed=3)
        assert stats.binomtest(covered, 600, 0.95).pvalue > 0.01

    def test_clusters_are_needed(self):
        robust, naive = study.cluster_coverage(clusters=30, releases=500, seed=4)
        assert stats.binomtest(robust, 500, 0.95, alternative="less").pvalue > 0.01
        assert stats.binomtest(naive, 500, 0.95, alternative="less").pvalue < 0.01

    def test_a_percentile_bootstrap_is_caught(self):
        random = np.random.default_rng(5)
        covered = sum(study.percentile_interval_covers(random, n=12) for _ in range(600))
        assert stats.binomtest(covered, 600, 0.95, alternative="less").pvalue < 0.01
