"""Samples of embeddings merge, and their clusters are one more column of a drift check."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_operators.decisions.drift import DriftSettings, compare_segments
from genai_operators.decisions.drift_clusters import COLUMN, SEGMENT, cluster_sides, shifted_clusters
from genai_operators.decisions.embedding_sample import EmbeddingSample, merge_samples
from genai_operators.exceptions import DataError
from tests.unit.decisions.test_embedding_drift import prompts


def sample(rows: int, seed: int, *, new_share: float = 0.0) -> EmbeddingSample:
    return EmbeddingSample.of([f"{seed}-{n}" for n in range(rows)], prompts(rows, seed, new_share=new_share))


class TestSample:
    @settings(max_examples=40, deadline=None)
    @given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5), bound=st.integers(1, 30), data=st.data())
    def test_merging_is_sampling_the_whole_in_any_order(self, sizes, bound, data):
        ids = [[f"{day}-{n}" for n in range(size)] for day, size in enumerate(sizes)]
        points = [np.arange(2 * size, dtype=np.float32).reshape(size, 2) + day for day, size in enumerate(sizes)]
        days = [EmbeddingSample.of(i, p, rows=bound) for i, p in zip(ids, points, strict=True)]
        whole = EmbeddingSample.of([i for day in ids for i in day], np.concatenate(points), rows=bound)
        merged = merge_samples(data.draw(st.permutations(days)), rows=bound)
        assert merged.ids == whole.ids
        assert (merged.points == whole.points).all()

    def test_is_uniform_over_days_of_unequal_size(self):
        shares = []
        for seed in range(40):
            big = EmbeddingSample.of([f"b{seed}-{n}" for n in range(900)], np.zeros((900, 1)), rows=100)
            small = EmbeddingSample.of([f"s{seed}-{n}" for n in range(100)], np.zeros((100, 1)), rows=100)
            merged = merge_samples([big, small], rows=100)
            shares.append(sum(identity.startswith("s") for identity in merged.ids) / 100)
        assert np.mean(shares) == pytest.approx(0.1, abs=0.02)

    def test_an_id_counts_once(self):
        assert len(EmbeddingSample.of(["a", "a", "b"], np.zeros((3, 2)))) == 2

    def test_wrong_input_is_named(self):
        with pytest.raises(DataError, match="2 ids for 3 embeddings"):
            EmbeddingSample.of(["a", "b"], np.zeros((3, 2)))
        with pytest.raises(DataError, match="not finite"):
            EmbeddingSample.of(["a"], np.array([[np.nan]]))
        with pytest.raises(DataError, match=r"\[2, 3\] dimensions"):
            merge_samples([EmbeddingSample.of(["a"], np.zeros((1, n))) for n in (2, 3)])


def drifted(reference: EmbeddingSample, current: EmbeddingSample, seed: int, *, rate: float) -> bool:
    sides = cluster_sides(reference, current, seed=seed)
    rules = DriftSettings(minimum_rows=150, minimum_effect=0.1, false_discovery_rate=rate)
    (feature,) = compare_segments(sides.reference, sides.current, rules).features
    assert feature.label == f"{COLUMN} [{SEGMENT}]"
    return feature.drifted


class TestClusters:
    def test_equal_samples_do_not_drift(self):
        found = [drifted(sample(400, 2 * seed), sample(300, 2 * seed + 1), seed, rate=0.05) for seed in range(60)]
        assert sum(found) == 0  # nominal 5 % of a test that also wants a tenth of the rows to have moved

    def test_the_test_of_equality_keeps_its_level(self):
        rules = DriftSettings(minimum_rows=150, minimum_effect=0.0, false_discovery_rate=0.05)
        small = 0
        for seed in range(120):
            sides = cluster_sides(sample(300, 2 * seed), sample(300, 2 * seed + 1), seed=seed)
            small += compare_segments(sides.reference, sides.current, rules).features[0].p_value <= 0.05
        assert small <= 13  # one-sided binomial test at 1 %

    def test_a_new_kind_of_prompt_drifts_at_the_level_of_a_years_schedule(self):
        assert drifted(sample(1000, 1), sample(1000, 2, new_share=0.6), 0, rate=1e-7)

    def test_what_moved_is_named_with_ids(self):
        current = sample(800, 2, new_share=0.3)
        found = shifted_clusters(sample(800, 1), current, seed=3, level=0.001)
        new = [shift for shift in found if shift.reference_share == 0]  # one topic may be several clusters
        assert sum(shift.current_share for shift in new) == pytest.approx(0.3, abs=0.05)
        assert all(shift.examples and set(shift.examples) <= set(current.ids) for shift in new)
        assert shifted_clusters(sample(800, 1), sample(800, 4), seed=3, level=0.001) == ()

    def test_replays(self):
        first, second = (cluster_sides(sample(300, 1), sample(300, 2), seed=5) for _ in range(2))
        assert first.current[SEGMENT].digest == second.current[SEGMENT].digest

    def test_other_dimensions_are_refused(self):
        with pytest.raises(DataError, match="reference embeddings have 48 dimensions, current ones 2"):
            cluster_sides(sample(10, 1), EmbeddingSample.of(["a"], np.zeros((1, 2))), seed=0)
        with pytest.raises(DataError, match="no embedded row"):
            cluster_sides(sample(10, 1), EmbeddingSample.of([], np.zeros((0, 48))), seed=0)
