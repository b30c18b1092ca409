"""A profile says the same however its rows were cut up, survives storage, and refuses what it cannot trust."""

from __future__ import annotations

import json
import math
from collections import Counter
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_operators.decisions import profile_sketch
from genai_operators.decisions.profile import Profile, merge, merge_columns, profile_column, profile_counts
from genai_operators.decisions.profile_column import CATEGORIES, CategoricalProfile, ContinuousProfile
from genai_operators.decisions.profile_sketch import BUCKETS, Sketch, decode, encode_sorted, merge_sketches, sketch
from genai_operators.exceptions import DataError

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


def same(first: Sketch, second: Sketch) -> bool:
    return (
        first.shift == second.shift
        and np.array_equal(first.keys, second.keys)
        and np.array_equal(first.counts, second.counts)
    )


class TestSketch:
    @given(st.lists(finite, min_size=1, max_size=60))
    def test_small_samples_are_kept_exactly(self, values):
        found = sketch(np.array(values))
        expected = Counter(value + 0.0 for value in values)
        assert dict(zip(found.values().tolist(), found.counts.tolist(), strict=True)) == dict(expected)
        assert found.exact

    @given(st.lists(finite, min_size=1, max_size=200))
    def test_keys_sort_as_the_numbers_do_and_back(self, values):
        ascending = np.sort(np.array(values))
        keys = encode_sorted(ascending.copy())
        assert (np.diff(keys.astype(object)) >= 0).all()
        assert decode(keys).tolist() == (ascending + 0.0).tolist()

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.lists(finite, max_size=40), min_size=1, max_size=6), st.randoms(use_true_random=False))
    def test_parts_merged_in_any_order_equal_one_pass(self, parts, random):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(profile_sketch, "BUCKETS", 16)  # so that coarsening happens all the time
            whole = sketch(np.array([value for part in parts for value in part], dtype=np.float64))
            sketches = [sketch(np.array(part, dtype=np.float64)) for part in parts]
            random.shuffle(sketches)
            assert same(reduce(merge_sketches, sketches), whole)
            assert len(whole.keys) <= 16

    @pytest.mark.parametrize(
        "draw",
        [
            pytest.param(lambda random, n: random.standard_normal(n), id="normal"),
            pytest.param(lambda random, n: random.standard_cauchy(n), id="far tails"),
            pytest.param(lambda random, n: random.standard_normal(n) * 1e-310, id="subnormal"),
            pytest.param(lambda random, n: 1e6 + 1e-3 * random.standard_normal(n), id="narrow"),
            pytest.param(lambda random, n: random.integers(-300, 300, n).astype(float), id="few"),
            pytest.param(lambda random, n: random.integers(0, 50_000, n).astype(float), id="many whole ones"),
            pytest.param(lambda random, n: random.standard_normal(n) * (random.random(n) < 0.5) * -1.0, id="zeros"),
            pytest.param(lambda random, n: random.random(n) * 10.0 ** random.integers(-300, 300, n), id="all scales"),
        ],
    )
    def test_many_values_are_counted_as_fewer_are_sorted(self, draw):
        values = draw(np.random.default_rng(0), 200_000)
        parts = np.array_split(values, 10)
        assert len(parts[0]) < profile_sketch.COUNTED_FROM < len(values)
        assert same(sketch(values), reduce(merge_sketches, map(sketch, parts)))

    def test_a_million_normals_keep_a_fine_grid(self):
        found = sketch(np.random.default_rng(0).standard_normal(1_000_000))
        assert found.rows == 1_000_000
        assert len(found.keys) <= BUCKETS
        assert found.counts.max() <= 0.0025 * found.rows

    def test_one_far_outlier_costs_one_bucket(self):
        values = np.random.default_rng(0).standard_normal(100_000)
        outlier = sketch(np.append(values, 1e6))
        assert outlier.shift == sketch(values).shift
        assert outlier.counts[-1] == 1
        assert outlier.values()[-1] == pytest.approx(1e6, rel=0.01)

    def test_the_largest_double_stays_finite(self):
        values = np.concatenate(
            [np.linspace(-1, 1, BUCKETS * 2) * 1e308, [-1.7976931348623157e308, 1.7976931348623157e308]]
        )
        assert np.isfinite(sketch(values).values()).all()


class TestColumn:
    def test_moments_agree_with_numpy(self):
        values = np.random.default_rng(1).lognormal(3, 1, 5_000)
        parts = [profile_column("x", part, "continuous") for part in np.array_split(values, 7)]
        column = reduce(merge_columns, parts)
        assert isinstance(column, ContinuousProfile)
        assert column.mean == pytest.approx(values.mean())
        assert column.standard_deviation == pytest.approx(values.std(ddof=1))
        assert column.quantiles([0, 0.5, 1]).tolist() == [values.min(), np.sort(values)[2_499], values.max()]

    def test_missing_rows_are_counted_not_guessed(self):
        numbers = profile_column("x", [1.0, None, math.nan, 2.0], "continuous")
        names = profile_column("c", ["a", None, "a", "b"], "categorical")
        assert (numbers.rows, numbers.missing) == (4, 2)
        assert (names.rows, names.missing) == (4, 1)
        assert isinstance(names, CategoricalProfile)
        assert dict(names.counts) == {"a": 2, "b": 1}

    @pytest.mark.parametrize("values", [[1.0, math.inf], [-math.inf]])
    def test_infinite_values_are_refused_by_name(self, values):
        with pytest.raises(DataError, match=r"'load'.*infinite"):
            profile_column("load", values, "continuous")

    def test_text_in_a_continuous_column_is_refused_by_name(self):
        with pytest.raises(DataError, match="'load'"):
            profile_column("load", ["a", "b"], "continuous")

    def test_an_unknown_kind_is_refused(self):
        with pytest.raises(DataError, match="ordinal"):
            profile_column("x", [1], "ordinal")  # type: ignore[arg-type]

    @pytest.mark.parametrize("count", [-1, 0.5])
    def test_impossible_counts_are_refused(self, count):
        with pytest.raises(DataError, match="whole numbers"):
            profile_counts("c", {"a": count})

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(0, 3 * CATEGORIES), max_size=30), st.integers(1, 4), st.randoms(use_true_random=False))
    def test_many_categories_merge_alike_in_any_order(self, starts, parts, random):
        rows = [f"id{start + offset}" for start in starts for offset in range(400)]
        whole = profile_column("c", rows, "categorical")
        pieces = [profile_column("c", rows[index::parts], "categorical") for index in range(parts)]
        random.shuffle(pieces)
        assert reduce(merge_columns, pieces).to_json() == whole.to_json()

    def test_halves_that_are_small_enough_alone_are_hashed_together(self):
        rows = [f"id{number}" for number in range(CATEGORIES + 100)]
        halves = [profile_column("c", part, "categorical") for part in (rows[:3_000], rows[3_000:])]
        assert not any(half.hashed for half in halves if isinstance(half, CategoricalProfile))
        merged, whole = merge_columns(*halves), profile_column("c", rows, "categorical")
        assert merged.to_json() == whole.to_json()
        assert isinstance(merged, CategoricalProfile)
        assert merged.hashed

    def test_beyond_the_limit_nothing_is_lost_as_other(self):
        column = profile_column("c", [f"user{i}" for i in range(CATEGORIES + 1)], "categorical")
        assert isinstance(column, CategoricalProfile)
        assert column.hashed
        assert sum(column.counts.values()) == CATEGORIES + 1
        assert max(column.counts.values()) < 10

    def test_columns_of_two_kinds_do_not_merge(self):
        with pytest.raises(DataError, match="cannot merge"):
            merge_columns(profile_column("x", [1.0], "continuous"), profile_column("x", ["1"], "categorical"))


def example(rows: int = 500, seed: int = 0) -> Profile:
    random = np.random.default_rng(seed)
    numbers = np.where(random.random(rows) < 0.1, np.nan, random.standard_normal(rows))
    return Profile.of(
        [
            profile_column("length", numbers, "continuous"),
            profile_column("language", random.choice(["en", "de"], rows), "categorical"),
        ]
    )


class TestProfile:
    def test_survives_json(self):
        for profile in (example(), example(20_000)):
            restored = Profile.from_json(json.loads(json.dumps(profile.to_json())))
            assert restored.to_json() == profile.to_json()
            assert restored.digest == profile.digest

    def test_merges_in_any_order(self):
        days = [example(seed=seed) for seed in range(4)]
        forward, backward = merge(days), merge(days[::-1])
        assert forward.rows == backward.rows == 2_000
        assert forward.digest == backward.digest

    def test_fifteen_columns_take_a_few_hundred_kilobytes(self):
        random = np.random.default_rng(0)
        for rows in (5_000, 100_000):
            columns = [profile_column(f"x{i}", random.standard_normal(rows), "continuous") for i in range(15)]
            assert len(json.dumps(Profile.of(columns).to_json())) < 600_000

    def test_another_version_is_refused(self):
        with pytest.raises(DataError, match="version 99"):
            Profile.from_json({**example().to_json(), "version": 99})
        with pytest.raises(DataError, match="version 99"):
            Profile(columns=example().columns, rows=500, version=99).merge(example())

    def test_an_edited_record_is_refused(self):
        record = example().to_json()
        record["columns"][1]["rows"] += 1
        with pytest.raises(DataError, match="damaged"):
            Profile.from_json(record)

    def test_a_truncated_array_is_refused(self):
        record = example().to_json()
        record["columns"][1]["keys"] = record["columns"][1]["keys"][:-8]
        with pytest.raises(DataError, match="damaged"):
            Profile.from_json(record)

    def test_a_renamed_column_is_refused(self):
        record = example().to_json()
        record["columns"][1]["name"] = "width"
        with pytest.raises(DataError, match="schema"):
            Profile.from_json(record)

    def test_other_columns_do_not_merge(self):
        other = Profile.of([profile_column("width", np.ones(3), "continuous")])
        with pytest.raises(DataError, match=r"'language', 'length', 'width'"):
            example().merge(other)

    def test_columns_must_be_of_the_same_rows(self):
        with pytest.raises(DataError, match="'b'"):
            Profile.of([profile_column("a", [1.0], "continuous"), profile_column("b", [1.0, 2.0], "continuous")])

    def test_nothing_to_merge_is_an_error(self):
        with pytest.raises(DataError, match="no profile"):
            merge([])
