"""Has the world moved? Compare a window of rows with the reference, column by column.

An alarm needs two things at once, across all features and segments: the test says that the distributions differ
(Benjamini-Hochberg on p-values), and the lower bound of the effect lies above the minimum that matters
(Benjamini-Hochberg on the p-values of 'the effect is at most the minimum'). So a million rows do not alarm on nothing,
and sixty do not alarm on noise. Fewer rows than the minimum answer 'not enough', never 'drift' and never 'no drift'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genai_operators.decisions.drift_column import ColumnComparison, compare_columns, missing_shares
from genai_operators.decisions.drift_feature import DriftSettings, FeatureDrift
from genai_operators.decisions.drift_verdict import feature_check, summarise
from genai_operators.decisions.paired_multiplicity import benjamini_hochberg
from genai_operators.decisions.profile import Profile, require_comparable
from genai_operators.decisions.profile_column import ColumnProfile
from genai_operators.decisions.verdict import Verdict
from genai_operators.exceptions import DataError

__all__ = ["DriftResult", "DriftSettings", "FeatureDrift", "compare", "compare_segments"]


@dataclass(frozen=True)
class DriftResult:
    """What a check found.

    :param features: the drifted ones first, then by effect.
    :param verdict: gate ``drift``: FAIL = drift, PASS = none, INCONCLUSIVE = too few rows.
    """

    features: list[FeatureDrift]
    verdict: Verdict

    @property
    def drifted(self) -> list[FeatureDrift]:
        return [feature for feature in self.features if feature.drifted]


def compare(reference: Profile, current: Profile, settings: DriftSettings) -> DriftResult:
    """Compare a current window with the reference. Pure: the same profiles and settings give the same result.

    :raises DataError: the profiles have other columns, kinds or versions.
    """
    return compare_segments({"": reference}, {"": current}, settings)


def compare_segments(
    references: Mapping[str, Profile], currents: Mapping[str, Profile], settings: DriftSettings
) -> DriftResult:
    """Compare several segments (a tenant, a language, a route) under one false discovery rate.

    A segment that only one side has is left out: its share is a categorical column of the whole, and is judged there.

    :raises DataError: no segment in common; or the profiles of one have other columns, kinds or versions.
    """
    pairs = _pairs(references, currents)
    level = settings.false_discovery_rate / max(1, len(pairs))
    compared = [_compare(segment, *sides, settings=settings, level=level) for segment, *sides in pairs]
    features = _judge(compared, settings)
    outcome, summary = summarise(features, settings)
    checks = tuple(feature_check(feature, settings) for feature in features)
    return DriftResult(features, Verdict(gate="drift", outcome=outcome, checks=checks, summary=summary))


def _pairs(
    references: Mapping[str, Profile], currents: Mapping[str, Profile]
) -> list[tuple[str, ColumnProfile, ColumnProfile]]:
    """Every column of every common segment, and the share of missing rows where any are."""
    common = sorted(set(references) & set(currents))
    if not common:
        raise DataError(f"no segment in common: reference {sorted(references)}, current {sorted(currents)}")
    pairs: list[tuple[str, ColumnProfile, ColumnProfile]] = []
    for segment in common:
        reference, current = references[segment], currents[segment]
        require_comparable(reference, current)
        for name in sorted(reference.columns):
            sides = reference.columns[name], current.columns[name]
            missing = missing_shares(*sides)
            pairs += [(segment, *sides)] + ([(segment, *missing)] if missing else [])
    return pairs


def _compare(
    segment: str, reference: ColumnProfile, current: ColumnProfile, *, settings: DriftSettings, level: float
) -> tuple[FeatureDrift, ColumnComparison | None]:
    feature = FeatureDrift(
        name=reference.name,
        kind=reference.kind,
        segment=segment,
        effect=math.nan,
        interval=(0.0, 1.0),
        p_value=1.0,
        q_value=1.0,
        effect_p_value=1.0,
        effect_q_value=1.0,
        drifted=False,
        enough=min(reference.present, current.present) >= settings.minimum_rows,
        reference_rows=reference.present,
        current_rows=current.present,
        measures={},
    )
    if min(reference.present, current.present) == 0:
        return feature, None
    generator = np.random.default_rng([settings.seed, reference.present, current.present])
    found = compare_columns(reference, current, level=level, generator=generator)
    described = replace(
        feature,
        effect=found.displacement.effect,
        interval=found.displacement.interval(level),
        p_value=found.p_value,
        effect_p_value=found.displacement.p_value(settings.minimum_effect),
        measures=found.measures,
    )
    return described, found


def _judge(
    compared: Sequence[tuple[FeatureDrift, ColumnComparison | None]], settings: DriftSettings
) -> list[FeatureDrift]:
    """Both adjustments over the features that have rows enough; intervals at the level that their ranks leave."""
    level = settings.false_discovery_rate
    enough = [(feature, found.displacement) for feature, found in compared if feature.enough and found is not None]
    judged = [feature for feature, _ in compared if not feature.enough]
    if enough:
        q_values = benjamini_hochberg([feature.p_value for feature, _ in enough])
        effect_q_values = benjamini_hochberg([feature.effect_p_value for feature, _ in enough])
        # Benjamini and Yekutieli 2005, false coverage rate: R selected of K get intervals at level R / K.
        selected = max(1, int((effect_q_values <= level).sum()))
        for (feature, displacement), q, effect_q in zip(enough, q_values, effect_q_values, strict=True):
            judged.append(
                replace(
                    feature,
                    q_value=float(q),
                    effect_q_value=float(effect_q),
                    interval=displacement.interval(level * selected / len(enough)),
                    drifted=bool(q <= level and effect_q <= level),
                )
            )
    return sorted(judged, key=_rank)


def _rank(feature: FeatureDrift) -> tuple[bool, bool, float, str]:
    effect = 0.0 if math.isnan(feature.effect) else feature.effect
    return not feature.drifted, not feature.enough, -effect, feature.label
