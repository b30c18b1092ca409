"""Drift is found where it matters, and silence is kept where it does not: at 60 rows and at a million."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from genai_operators.decisions.drift import DriftSettings, compare, compare_segments
from genai_operators.decisions.profile import Profile, profile_column, profile_counts
from genai_operators.decisions.verdict import Outcome, Verdict
from genai_operators.exceptions import ConfigurationError, DataError

SETTINGS = DriftSettings(minimum_rows=50)


def table(rows: int, seed: int, *, shift: float = 0.0, german: float = 0.3, scale: float = 1.0) -> Profile:
    """A normal, a counted and a categorical column."""
    random = np.random.default_rng([seed, rows])
    counted = random.multinomial(rows, [0.7 - german, german, 0.3])
    return Profile.of(
        [
            profile_column("length", scale * random.standard_normal(rows) + shift, "continuous"),
            profile_column("digits", random.poisson(2, rows), "continuous"),
            profile_counts("language", dict(zip(["en", "de", "fr"], counted.tolist(), strict=True))),
        ]
    )


class TestSilence:
    @pytest.mark.parametrize("rows", [60, 1_000, 1_000_000])
    def test_without_drift(self, rows):
        result = compare(table(rows, 1), table(rows, 2), SETTINGS)
        assert result.verdict.outcome is Outcome.PASS
        assert result.drifted == []

    def test_a_significant_nothing_at_a_million_rows_is_no_drift(self):
        result = compare(table(1_000_000, 1), table(1_000_000, 2, shift=0.02), SETTINGS)
        length = next(feature for feature in result.features if feature.name == "length")
        assert length.q_value < 1e-6
        assert not length.drifted
        assert result.verdict.outcome is Outcome.PASS

    def test_a_large_effect_in_few_rows_is_no_proof(self):
        result = compare(table(60, 1), table(60, 2, shift=0.5), SETTINGS)
        assert result.features[0].effect > SETTINGS.minimum_effect
        assert result.verdict.outcome is Outcome.PASS

    def test_one_outlier_of_a_million_changes_no_verdict(self):
        random = np.random.default_rng(0)
        first, second = random.standard_normal(2_000), random.standard_normal(2_000)
        for shift, outcome in ((0.0, Outcome.PASS), (1.0, Outcome.FAIL)):
            for spoilt in (second + shift, np.append(second + shift, 1e6), np.append(second + shift, -1e6)):
                sides = [Profile.of([profile_column("x", side, "continuous")]) for side in (first, spoilt)]
                result = compare(*sides, SETTINGS)
                assert result.verdict.outcome is outcome
                psi = result.features[0].measures["population_stability_index"].value
                assert psi > 0.5 if shift else psi < 0.1


class TestDrift:
    def test_is_named_with_its_effect_and_interval(self):
        result = compare(table(2_000, 1), table(2_000, 2, shift=0.5), SETTINGS)
        assert result.verdict.outcome is Outcome.FAIL
        assert [feature.name for feature in result.drifted] == ["length"]
        length = result.features[0]
        assert length.effect == pytest.approx(0.28, abs=0.04)
        assert SETTINGS.minimum_effect < length.interval[0] < length.effect < length.interval[1]
        assert "drift in 1 of 3 features: length" in result.verdict.render_text()

    def test_of_categories_is_the_share_that_moved(self):
        result = compare(table(2_000, 1), table(2_000, 2, german=0.55), SETTINGS)
        assert result.drifted[0].name == "language"
        assert result.drifted[0].effect == pytest.approx(0.25, abs=0.05)

    def test_of_scale_alone_is_found(self):
        result = compare(table(5_000, 1), table(5_000, 2, scale=3.0), SETTINGS)
        assert [feature.name for feature in result.drifted] == ["length"]

    def test_a_field_that_dries_up_is_found(self):
        random = np.random.default_rng(0)
        full, half = random.standard_normal(1_000), random.standard_normal(1_000)
        half[random.random(1_000) < 0.4] = np.nan
        sides = [Profile.of([profile_column("score", side, "continuous")]) for side in (full, half)]
        assert [feature.name for feature in compare(*sides, SETTINGS).drifted] == ["score (missing)"]

    def test_a_new_category_is_found(self):
        sides = [
            Profile.of([profile_counts("intent", counts)])
            for counts in ({"refund": 600, "login": 400}, {"refund": 400, "login": 300, "warranty": 300})
        ]
        assert compare(*sides, SETTINGS).verdict.outcome is Outcome.FAIL

    def test_the_interval_decides_as_the_q_value_does(self):
        for seed in range(30):
            result = compare(table(400, seed), table(400, seed + 100, shift=0.45, german=0.5), SETTINGS)
            for feature in result.features:
                within = feature.effect_q_value <= SETTINGS.false_discovery_rate
                assert within == (feature.interval[0] > SETTINGS.minimum_effect), feature

    def test_needs_the_test_as_well_as_the_effect(self):
        settings = DriftSettings(minimum_rows=50, minimum_effect=0.0, false_discovery_rate=0.05)
        alone = [
            feature
            for seed in range(60)
            for feature in compare(table(300, seed), table(300, seed + 100, shift=0.25), settings).features
            if feature.effect_q_value <= 0.05 < feature.q_value
        ]
        assert alone
        assert not any(feature.drifted for feature in alone)


class TestTooFew:
    def test_rows_answer_not_enough(self):
        result = compare(table(5_000, 1), table(49, 2, shift=5.0), SETTINGS)
        assert result.verdict.outcome is Outcome.INCONCLUSIVE
        assert result.verdict.summary == "not enough rows to say: 49 of the 50 needed"
        assert not result.drifted

    def test_one_sparse_column_does_not_silence_the_others(self):
        random = np.random.default_rng(0)
        rare = np.where(np.arange(500) < 20, 1.0, np.nan)
        sides = [
            Profile.of(
                [
                    profile_column("length", random.standard_normal(500) + shift, "continuous"),
                    profile_column("rating", rare, "continuous"),
                ]
            )
            for shift in (0.0, 1.0)
        ]
        result = compare(*sides, SETTINGS)
        assert [feature.name for feature in result.drifted] == ["length"]
        rating = next(check for check in result.verdict.checks if check.name == "rating")
        assert rating.outcome is Outcome.INCONCLUSIVE
        assert rating.severity == "warning"

    def test_an_empty_window_is_inconclusive(self):
        empty = Profile.of([profile_column("length", [], "continuous")])
        full = Profile.of([profile_column("length", np.arange(500.0), "continuous")])
        result = compare(full, empty, SETTINGS)
        assert result.verdict.outcome is Outcome.INCONCLUSIVE
        assert math.isnan(result.features[0].effect)
        assert Verdict.from_json(result.verdict.to_json()).outcome is Outcome.INCONCLUSIVE


class TestSegments:
    def test_share_one_false_discovery_rate_and_are_named(self):
        references = {name: table(1_000, seed) for seed, name in enumerate(("shop", "bank"))}
        currents = {"shop": table(1_000, 10), "bank": table(1_000, 11, shift=0.6)}
        result = compare_segments(references, currents, SETTINGS)
        assert [feature.label for feature in result.drifted] == ["length [bank]"]
        assert len(result.features) == 6

    def test_none_in_common_is_an_error(self):
        with pytest.raises(DataError, match="no segment in common"):
            compare_segments({"a": table(100, 1)}, {"b": table(100, 1)}, SETTINGS)


class TestContract:
    def test_the_same_input_gives_the_same_result_bit_for_bit(self):
        first, second = table(300, 1), table(300, 2, shift=0.3)
        assert compare(first, second, SETTINGS).verdict == compare(first, second, SETTINGS).verdict

    def test_another_seed_moves_no_p_value_far(self):
        first, second = table(300, 1), table(300, 2)
        p_values = [
            [
                f.p_value
                for f in sorted(compare(first, second, replace(SETTINGS, seed=s)).features, key=lambda f: f.name)
            ]
            for s in range(5)
        ]
        assert np.ptp(np.array(p_values), axis=0).max() < 0.35

    def test_other_columns_are_refused_by_name(self):
        other = Profile.of([profile_column("width", np.arange(100.0), "continuous")])
        with pytest.raises(DataError, match="'width'"):
            compare(table(100, 1), other, SETTINGS)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("minimum_rows", 1),
            ("minimum_effect", -0.1),
            ("minimum_effect", 1.0),
            ("false_discovery_rate", 0.0),
            ("false_discovery_rate", math.nan),
            ("minimum_effect", math.nan),
        ],
    )
    def test_settings_out_of_range_are_refused_by_name(self, field, value):
        with pytest.raises(ConfigurationError, match=field):
            DriftSettings(**{field: value})
