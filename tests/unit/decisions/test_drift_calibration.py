"""Reduced calibration: no drift, level 5 %. Each has a broken twin that must be caught. In full: ``make bench``."""

from __future__ import annotations

import pytest
from scipy import stats

from benchmarks.drift_calibration import CATEGORIES, LEVEL, SAMPLERS, categories, embeddings, numbers

RUNS = 500


def not_above(alarms: int, runs: int) -> bool:
    """Could so many alarms come from a test of at most the level? One-sided, at 1 in 1,000."""
    return stats.binomtest(alarms, runs, LEVEL, alternative="greater").pvalue > 1e-3


class TestNumbers:
    @pytest.mark.parametrize("kind", list(SAMPLERS))
    @pytest.mark.parametrize("n", [60, 300])
    def test_no_test_alarms_more_often_than_its_level(self, kind, n):
        tally = numbers(kind, n, runs=RUNS, seed=1)
        for test in ("test", "psi", "displacement"):
            assert not_above(tally.alarms[test], RUNS), (test, tally)
            assert tally.share(test) > 0.01, (test, tally)

    def test_edges_of_the_reference_alone_are_caught(self):
        tally = numbers("normal", 60, runs=200, seed=1)
        assert not not_above(tally.alarms["psi, edges of the reference"], 200)


class TestCategories:
    @pytest.mark.parametrize("kind", list(CATEGORIES))
    @pytest.mark.parametrize("n", [60, 5_000])
    def test_no_test_alarms_more_often_than_its_level(self, kind, n):
        tally = categories(kind, n, runs=RUNS, seed=1)
        for test in ("test", "psi", "displacement"):
            assert not_above(tally.alarms[test], RUNS), (test, tally)
        assert tally.share("test") > 0.02

    def test_the_reference_taken_for_the_truth_is_caught(self):
        tally = categories("even_5", 1_000, runs=200, seed=1)
        assert tally.share("chi-square, reference as truth") > 0.2


class TestEmbeddings:
    def test_no_test_alarms_more_often_than_its_level(self):
        tally = embeddings(60, runs=300, seed=1)
        assert not_above(tally.alarms["clusters"], 300), tally
        assert not_above(tally.alarms["discrepancy"], 300), tally

    def test_centroids_of_the_reference_alone_are_caught(self):
        tally = embeddings(300, runs=60, seed=1, dimensions=384, kernel=False)
        assert tally.share("clusters of the reference") > 0.2
        assert tally.share("clusters") < 0.15
