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
from genai_operators.decisions.drift_effects import Effect
from genai_operators.decisions.drift_verdict import feature_check, summarise
from genai_operators.decisions.paired_multiplicity import benjamini_hochberg
from genai_operators.decisions.profile import Profile, require_comparable
from genai_operators.decisions.profile_column import ColumnProfile, Kind
from genai_operators.decisions.verdict import Verdict
from genai_operators.exceptions import ConfigurationError, DataError


@dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """What counts as drift.

    :param minimum_rows: rows a side below which the answer is 'not enough'.
    :param minimum_effect: share of the rows (0..1) that must have moved at least; see
        :mod:`~genai_operators.decisions.drift_displacement`. 0.1 is a shift by 0.18 standard deviations, or a tenth of
        the rows in another category.
    :param false_discovery_rate: expected share of false names among the features named, for one check. A schedule of
        checks passes what it spends on this one (:mod:`~genai_operators.decisions.alpha_spending`).
    :param seed: of the permutations, so that a verdict replays bit for bit.
    :raises ConfigurationError: a value outside its range; the message names it.
    """

    minimum_rows: int = 200
    minimum_effect: float = 0.1
    false_discovery_rate: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.minimum_rows < 2:
            raise ConfigurationError(f"drift minimum_rows is {self.minimum_rows}; at least 2 rows can be compared")
        if not 0 <= self.minimum_effect < 1:
            raise ConfigurationError(f"drift minimum_effect is {self.minimum_effect}; it is a share, 0 <= x < 1")
        if not 0 < self.false_discovery_rate < 1:
            raise ConfigurationError(f"drift false_discovery_rate is {self.false_discovery_rate}; it is in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class FeatureDrift:
    """One column (of one segment) compared.

    :param effect: share of the rows that moved, 0..1; NaN when a side has no row.
    :param interval: of the effect, at the level that its rank among the features leaves it: the lower end is above the
        minimum effect exactly when ``effect_q_value`` is within the false discovery rate.
    :param p_value: of the test of equal distributions (Kolmogorov-Smirnov or chi-square).
    :param q_value: ``p_value`` adjusted by Benjamini-Hochberg over all features and segments.
    :param effect_q_value: likewise for 'the effect is at most the minimum'.
    :param drifted: both significant.
    :param enough: False when either side has fewer rows than the minimum.
    :param measures: customary distances, by name, for the report.
    """

    name: str
    kind: Kind
    segment: str
    effect: float
    interval: tuple[float, float]
    p_value: float
    q_value: float
    effect_p_value: float
    effect_q_value: float
    drifted: bool
    enough: bool
    reference_rows: int
    current_rows: int
    measures: Mapping[str, Effect]

    @property
    def label(self) -> str:
        return f"{self.name} [{self.segment}]" if self.segment else self.name


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
