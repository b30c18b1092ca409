"""Has the world moved? Compare a window of rows with the reference, column by column.

An alarm needs two things at once, across all features and segments: the test says that the distributions differ
(Benjamini-Hochberg on p-values), and the lower bound of the effect lies above the minimum that matters
(Benjamini-Hochberg on the p-values of 'the effect is at most the minimum'). So a million rows do not alarm on nothing,
and sixty do not alarm on noise. Fewer rows than the minimum answer 'not enough', never 'drift' and never 'no drift'.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.drift_bins import group_counts, pool_rare, quantile_groups
from genai_operators.decisions.drift_chi_square import chi_square
from genai_operators.decisions.drift_displacement import Displacement, category_displacement, rank_displacement
from genai_operators.decisions.drift_effects import (
    Effect,
    jensen_shannon_distance,
    population_stability_index,
    wasserstein_distance,
)
from genai_operators.decisions.drift_kolmogorov import kolmogorov_distance, kolmogorov_p_value
from genai_operators.decisions.profile import Profile, require_comparable
from genai_operators.decisions.profile_column import CategoricalProfile, ColumnProfile, ContinuousProfile, Kind
from genai_operators.decisions.profile_sketch import align
from genai_operators.decisions.verdict import Check, Outcome, Verdict
from genai_operators.exceptions import ConfigurationError

BINS = 20
"""Most bins of the population stability index and the Jensen-Shannon distance."""


@dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """What counts as drift.

    :param minimum_rows: rows a side below which the answer is 'not enough'.
    :param minimum_effect: share of the rows (0..1) that must have moved at least; see
        :mod:`~genai_operators.decisions.drift_displacement`. 0.1 is a shift of 0.18 standard deviations, or a tenth of the
        rows in another category.
    :param false_discovery_rate: expected share of false names among the features named, for one check. A schedule of checks
        passes what it spends on this one (:mod:`~genai_operators.decisions.alpha_spending`).
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
            raise ConfigurationError(
                f"drift minimum_effect is {self.minimum_effect}; it is a share of rows, 0 <= x < 1"
            )
        if not 0 < self.false_discovery_rate < 1:
            raise ConfigurationError(
                f"drift false_discovery_rate is {self.false_discovery_rate}; it lies between 0 and 1"
            )


@dataclass(frozen=True, kw_only=True)
class FeatureDrift:
    """One column (of one segment) compared.

    :param effect: share of the rows that moved, 0..1.
    :param interval: of the effect; its lower end is above the minimum exactly when the effect test rejects.
    :param p_value: of the test of equal distributions (Kolmogorov-Smirnov or chi-square).
    :param q_value: ``p_value`` adjusted by Benjamini-Hochberg over all features and segments.
    :param effect_q_value: likewise for 'the effect is at most the minimum'.
    :param drifted: both significant. :param enough: False when either side has fewer rows than the minimum.
    :param measures: customary distances, by name, for the report.
    """

    name: str
    kind: Kind
    segment: str = ""
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
    """:param features: largest effect first. :param verdict: gate ``drift``: FAIL = drift, PASS = none, else not enough."""

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

    :raises DataError: the profiles of a segment have other columns, kinds or versions.
    """
    found: list[FeatureDrift] = []
    for segment in sorted(set(references) & set(currents)):
        reference, current = references[segment], currents[segment]
        require_comparable(reference, current)
        tests = len(reference.columns) * len(references)
        level = settings.false_discovery_rate / tests
        for name in sorted(reference.columns):
            for part in _parts(reference.columns[name], current.columns[name]):
                found.append(_compare_column(*part, segment=segment, settings=settings, level=level))
    judged = _judge(found, settings)
    return DriftResult(judged, _verdict(judged, settings))


def _parts(reference: ColumnProfile, current: ColumnProfile) -> list[tuple[ColumnProfile, ColumnProfile]]:
    """The column itself and, where anything is missing, the share of missing rows as a feature of its own."""
    parts = [(reference, current)]
    if reference.missing or current.missing:
        name = f"{reference.name} (missing)"
        shares = [
            CategoricalProfile(
                name=name, rows=side.rows, missing=0, counts={"missing": side.missing, "present": side.present}
            )
            for side in (reference, current)
        ]
        parts.append((shares[0], shares[1]))
    return parts


def _compare_column(
    reference: ColumnProfile, current: ColumnProfile, *, segment: str, settings: DriftSettings, level: float
) -> FeatureDrift:
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
        return feature
    generator = np.random.default_rng([settings.seed, reference.present, current.present])
    if isinstance(reference, ContinuousProfile) and isinstance(current, ContinuousProfile):
        displacement, p_value, measures = _compare_numbers(reference, current, level, generator)
    else:
        assert isinstance(reference, CategoricalProfile)
        assert isinstance(current, CategoricalProfile)
        displacement, p_value, measures = _compare_categories(reference, current, level, generator)
    return replace(
        feature,
        effect=displacement.effect,
        p_value=p_value,
        effect_p_value=displacement.p_value(settings.minimum_effect),
        interval=displacement.interval(level),
        measures={"displacement": Effect(displacement.effect, displacement.interval(level)), **measures},
    )


Compared = tuple[Displacement, float, dict[str, Effect]]


def _compare_numbers(
    reference: ContinuousProfile, current: ContinuousProfile, level: float, generator: np.random.Generator
) -> Compared:
    values, first, second, exact = align(reference.sketch, current.sketch)
    p_value = kolmogorov_p_value(first, second, exact_grid=exact, level=level, generator=generator)
    distance = kolmogorov_distance(first, second)
    labels = quantile_groups(first + second, BINS)
    few, few_second = group_counts(first, labels), group_counts(second, labels)
    measures = {
        "kolmogorov_smirnov": Effect(distance, (distance, distance), p_value),
        "wasserstein": wasserstein_distance(values, first, second),
        "population_stability_index": population_stability_index(few, few_second),
        "jensen_shannon": jensen_shannon_distance(few, few_second),
    }
    return rank_displacement(first, second), p_value, measures


def _compare_categories(
    reference: CategoricalProfile, current: CategoricalProfile, level: float, generator: np.random.Generator
) -> Compared:
    if reference.hashed or current.hashed:
        reference, current = reference.as_hashed(), current.as_hashed()
    names = sorted({*reference.counts, *current.counts})
    first, second = (
        np.array([side.counts.get(name, 0) for name in names], dtype=np.int64) for side in (reference, current)
    )
    tested = chi_square(first, second, level=level, generator=generator)
    few, few_second, _ = pool_rare(first, second)
    measures = {
        "chi_square": Effect(tested.statistic, (tested.statistic, tested.statistic), tested.p_value),
        "population_stability_index": population_stability_index(few, few_second),
        "jensen_shannon": jensen_shannon_distance(few, few_second),
    }
    return category_displacement(few, few_second), tested.p_value, measures


def _judge(features: list[FeatureDrift], settings: DriftSettings) -> list[FeatureDrift]:
    enough = [feature for feature in features if feature.enough]
    level = settings.false_discovery_rate
    q_values = _benjamini_hochberg([feature.p_value for feature in enough])
    effect_q_values = _benjamini_hochberg([feature.effect_p_value for feature in enough])
    judged = [
        replace(feature, q_value=q, effect_q_value=effect_q, drifted=bool(q <= level and effect_q <= level))
        for feature, q, effect_q in zip(enough, q_values, effect_q_values, strict=True)
    ]
    judged += [feature for feature in features if not feature.enough]
    return sorted(
        judged, key=lambda f: (not f.drifted, not f.enough, -(f.effect if f.effect == f.effect else 0), f.label)
    )


def _benjamini_hochberg(p_values: list[float]) -> NDArray[np.float64]:
    """Smallest false discovery rate at which each would be named. Source: Benjamini and Hochberg 1995."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(-p, kind="stable")
    scaled = p[order] * len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled))
    return adjusted


def _verdict(features: list[FeatureDrift], settings: DriftSettings) -> Verdict:
    checks = [_check(feature, settings) for feature in features]
    drifted = [feature.label for feature in features if feature.drifted]
    judged = sum(feature.enough for feature in features)
    if drifted:
        shown = ", ".join(drifted[:5]) + (f" and {len(drifted) - 5} more" if len(drifted) > 5 else "")
        return Verdict(
            gate="drift",
            outcome=Outcome.FAIL,
            checks=tuple(checks),
            summary=f"drift in {len(drifted)} of {judged} features: {shown}",
        )
    if not judged:
        rows = min((min(f.reference_rows, f.current_rows) for f in features), default=0)
        return Verdict(
            gate="drift",
            outcome=Outcome.INCONCLUSIVE,
            checks=tuple(checks),
            summary=f"not enough rows to say: {rows} of the {settings.minimum_rows} needed",
        )
    return Verdict(
        gate="drift",
        outcome=Outcome.PASS,
        checks=tuple(checks),
        summary=f"no drift above {settings.minimum_effect:g} of the rows in {judged} features",
    )


def _check(feature: FeatureDrift, settings: DriftSettings) -> Check:
    rows = min(feature.reference_rows, feature.current_rows)
    if not feature.enough:
        return Check(
            name=feature.label,
            outcome=Outcome.INCONCLUSIVE,
            observed=None if math.isnan(feature.effect) else feature.effect,
            threshold=settings.minimum_effect,
            n=rows,
            severity="warning",
            message=f"{rows} rows, {settings.minimum_rows} needed",
        )
    q_value = max(feature.q_value, feature.effect_q_value)
    return Check(
        name=feature.label,
        outcome=Outcome.FAIL if feature.drifted else Outcome.PASS,
        observed=feature.effect,
        interval=feature.interval,
        threshold=settings.minimum_effect,
        n=rows,
        message=f"share of rows that moved; q = {q_value:.2g}",
    )
