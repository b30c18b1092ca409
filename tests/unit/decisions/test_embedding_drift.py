"""Embeddings: the kernel test against brute force, clusters named, small samples honest."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from genai_operators.decisions import embedding_drift_mmd
from genai_operators.decisions.embedding_drift import EmbeddingDriftSettings, embedding_drift
from genai_operators.decisions.embedding_drift_clusters import cluster_test, fit_centroids
from genai_operators.decisions.embedding_drift_kernels import (
    BANDWIDTH_DIVISORS,
    ExactKernel,
    RandomFeatures,
    median_distance,
)
from genai_operators.decisions.embedding_drift_mmd import KernelTest, mmd_test
from genai_operators.decisions.verdict import Outcome
from genai_operators.exceptions import ConfigurationError, DataError


def topics(count: int, dimensions: int, seed: int = 0) -> np.ndarray:
    centres = np.random.default_rng(seed).standard_normal((count, dimensions))
    return centres / np.linalg.norm(centres, axis=1, keepdims=True)


CENTRES = topics(11, 48)


def prompts(rows: int, seed: int, *, new_share: float = 0.0, centres: np.ndarray = CENTRES) -> np.ndarray:
    """Unit vectors around ten topics; the last centre is one that the reference never has."""
    random = np.random.default_rng([seed, rows])
    which = random.integers(0, len(centres) - 1, rows)
    which[random.random(rows) < new_share] = len(centres) - 1
    points = centres[which] + 0.6 * random.standard_normal((rows, centres.shape[1])) / math.sqrt(centres.shape[1])
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def brute_force(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    median = median_distance(points, generator=np.random.default_rng(0))
    squares = cdist(points.astype(np.float64), points.astype(np.float64), "sqeuclidean")
    kernels = [np.exp(-squares / 2 / (median / divisor) ** 2) for divisor in BANDWIDTH_DIVISORS]
    return np.array([np.einsum("ib,ij,jb->b", weights, kernel, weights) for kernel in kernels])


class TestKernels:
    def test_strips_give_what_the_whole_matrix_gives(self):
        points = prompts(700, 1)
        weights = np.random.default_rng(0).standard_normal((700, 9)).astype(np.float32) / 700
        found = ExactKernel(points, generator=np.random.default_rng(0))(weights)
        assert found == pytest.approx(brute_force(points, weights), rel=1e-3)

    def test_a_common_offset_changes_nothing(self):
        points = prompts(400, 1)
        weights = np.random.default_rng(0).standard_normal((400, 3)).astype(np.float32) / 400
        near, far = (ExactKernel(p, generator=np.random.default_rng(0))(weights) for p in (points, points + 10))
        assert far == pytest.approx(near, rel=1e-2)

    def test_random_features_approximate_the_kernel(self):
        points = np.concatenate([prompts(500, 1), prompts(500, 2, new_share=0.5)])
        weights = np.repeat([[1 / 500], [-1 / 500]], 500, axis=0).astype(np.float32)
        exact = ExactKernel(points, generator=np.random.default_rng(0))(weights)
        random = RandomFeatures(points, generator=np.random.default_rng(0))(weights)
        assert random == pytest.approx(exact, rel=0.25)

    def test_equal_rows_have_a_bandwidth(self):
        assert median_distance(np.ones((5, 3), dtype=np.float32), generator=np.random.default_rng(0)) == 1.0


def moved(new_share: float, *, rows: int, level: float, seed: int = 0, permutations: int | None = None) -> KernelTest:
    """The kernel test on a reference and a window of which a share is new."""
    return mmd_test(
        prompts(rows, seed),
        prompts(rows, seed + 50, new_share=new_share),
        level=level,
        generator=np.random.default_rng(seed),
        permutations=permutations,
    )


class TestDiscrepancy:
    def test_p_value_counts_the_observed_labelling(self):
        assert moved(0.9, rows=80, level=0.05, permutations=99).p_value == pytest.approx(1 / 100)

    def test_adds_permutations_only_where_they_matter(self):
        quiet, loud = moved(0.0, rows=80, level=1e-3), moved(0.9, rows=80, level=2e-3)
        assert quiet.permutations == embedding_drift_mmd.FIRST_DRAWS
        assert loud.permutations == 5_000
        assert loud.p_value == pytest.approx(1 / 5_001)

    def test_the_bound_of_what_moved_stays_below_the_truth(self):
        for seed in range(10):
            assert 0.05 < moved(0.3, rows=400, level=0.05, seed=seed).moved <= 0.3

    def test_nothing_is_said_to_have_moved_where_nothing_did(self):
        assert sum(moved(0.0, rows=200, level=0.01, seed=seed).moved > 0 for seed in range(20)) <= 2

    def test_beyond_the_limit_random_features_find_the_same(self, monkeypatch):
        monkeypatch.setattr(embedding_drift_mmd, "EXACT_UP_TO", 100)
        assert moved(0.3, rows=500, level=0.05).p_value < 0.01
        assert moved(0.0, rows=500, level=0.05).p_value > 0.01


class TestClusters:
    def test_the_new_cluster_is_named_with_its_rows(self):
        current = prompts(600, 2, new_share=0.2)
        ids = [f"request-{row}" for row in range(600)]
        found = cluster_test(
            prompts(600, 1), current, clusters=11, level=0.01, generator=np.random.default_rng(1), current_ids=ids
        )
        first = found.clusters[0]
        assert found.test.p_value < 1e-3
        assert first.current_share > first.reference_share + 0.1
        assert 0 < first.moved < 0.2
        nearest = [int(example.removeprefix("request-")) for example in first.examples]
        assert (current[nearest] @ CENTRES[-1] > 0.6).all()

    def test_k_means_finds_well_separated_centres(self):
        points = prompts(1_000, 3)
        centroids = fit_centroids(points, 10, generator=np.random.default_rng(0))
        nearest = (centroids / np.linalg.norm(centroids, axis=1, keepdims=True)) @ CENTRES[:-1].T
        assert (nearest.max(axis=1) > 0.6).mean() >= 0.7

    def test_fewer_distinct_rows_than_clusters_are_no_trouble(self):
        points = np.repeat(prompts(3, 1), 40, axis=0)
        found = cluster_test(points, points, clusters=20, level=0.05, generator=np.random.default_rng(0))
        assert found.test.p_value > 0.5


class TestVerdict:
    SETTINGS = EmbeddingDriftSettings(minimum_rows=100, clusters=11)

    def test_drift_names_share_and_clusters(self):
        ids = [str(row) for row in range(600)]
        found = embedding_drift(
            prompts(600, 1), prompts(600, 2, new_share=0.2), settings=self.SETTINGS, current_ids=ids
        )
        assert found.verdict.outcome is Outcome.FAIL
        assert self.SETTINGS.minimum_effect < found.moved <= 0.2
        assert found.shifted[0].examples
        assert "of the embeddings moved; clusters" in found.verdict.summary

    def test_without_drift_it_is_silent(self):
        found = embedding_drift(prompts(600, 1), prompts(600, 2), settings=self.SETTINGS)
        assert found.verdict.outcome is Outcome.PASS
        assert found.shifted == ()

    def test_a_significant_trifle_is_no_drift(self):
        settings = EmbeddingDriftSettings(minimum_rows=100, clusters=11, minimum_effect=0.5)
        found = embedding_drift(prompts(600, 1), prompts(600, 2, new_share=0.2), settings=settings)
        assert found.clusters is not None
        assert found.clusters.test.p_value < 1e-3
        assert found.verdict.outcome is Outcome.PASS

    def test_few_rows_answer_not_enough(self):
        found = embedding_drift(prompts(600, 1), prompts(99, 2, new_share=1.0), settings=self.SETTINGS)
        assert found.verdict.outcome is Outcome.INCONCLUSIVE
        assert "99 rows, 100 needed" in found.verdict.summary

    def test_replays_bit_for_bit(self):
        first, second = (embedding_drift(prompts(300, 1), prompts(300, 2), settings=self.SETTINGS) for _ in range(2))
        assert first.verdict == second.verdict
        assert first.kernel == second.kernel

    @pytest.mark.parametrize(
        ("current", "ids", "message"),
        [
            (np.full((200, 48), np.nan), (), "200 current embeddings are not finite, the first in row 0"),
            (np.ones((200, 7)), (), "7: embed both with the same model"),
            (np.ones(200), (), "matrix"),
            (np.ones((200, 48)), ("a",), "1 ids for 200"),
        ],
    )
    def test_bad_input_is_refused_by_name(self, current, ids, message):
        with pytest.raises(DataError, match=message):
            embedding_drift(prompts(200, 1), current, settings=self.SETTINGS, current_ids=ids)

    @pytest.mark.parametrize("wrong", [{"clusters": 1}, {"minimum_effect": 1.0}, {"false_discovery_rate": 1e-4}])
    def test_senseless_settings_are_refused(self, wrong):
        with pytest.raises(ConfigurationError):
            EmbeddingDriftSettings(**wrong)
