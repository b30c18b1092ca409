"""One column of the reference against one column of the current window: test, effect, and the customary distances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

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
from genai_operators.decisions.profile_column import CategoricalProfile, ColumnProfile, ContinuousProfile
from genai_operators.decisions.profile_sketch import align
from genai_operators.exceptions import DataError

BINS = 20
"""Most bins of the population stability index and the Jensen-Shannon distance."""


@dataclass(frozen=True)
class ColumnComparison:
    """:param p_value: of the test of equal distributions. :param measures: customary distances, by name."""

    displacement: Displacement
    p_value: float
    measures: Mapping[str, Effect]


def compare_columns(
    reference: ColumnProfile, current: ColumnProfile, *, level: float, generator: np.random.Generator
) -> ColumnComparison:
    """Compare the rows present in two profiles of one column; each side has at least one.

    Numbers: Kolmogorov-Smirnov and rank displacement. Categories: two-sample chi-square and total variation.

    :param level: smallest level at which a decision will be taken; bounds the number of permutations.
    :raises DataError: the profiles are of two kinds, or a side is empty.
    """
    if min(reference.present, current.present) < 1:
        raise DataError(f"column {reference.name!r} has a side without a single row present: nothing to compare")
    if isinstance(reference, ContinuousProfile) and isinstance(current, ContinuousProfile):
        return _compare_numbers(reference, current, level=level, generator=generator)
    if isinstance(reference, CategoricalProfile) and isinstance(current, CategoricalProfile):
        return _compare_categories(reference, current, level=level, generator=generator)
    raise DataError(f"column {reference.name!r} is {reference.kind} in the reference and {current.kind} now")


def missing_shares(reference: ColumnProfile, current: ColumnProfile) -> tuple[ColumnProfile, ColumnProfile] | None:
    """Missing or present as a column of its own, so that a field that dries up is seen; None when all is there."""
    if not (reference.missing or current.missing):
        return None
    first, second = (
        CategoricalProfile(
            name=f"{reference.name} (missing)",
            rows=side.rows,
            missing=0,
            counts={"missing": side.missing, "present": side.present},
        )
        for side in (reference, current)
    )
    return first, second


def _compare_numbers(
    reference: ContinuousProfile, current: ContinuousProfile, *, level: float, generator: np.random.Generator
) -> ColumnComparison:
    values, first, second, exact = align(reference.sketch, current.sketch)
    p_value = kolmogorov_p_value(first, second, exact_grid=exact, level=level, generator=generator)
    distance = kolmogorov_distance(first, second)
    labels = quantile_groups(first + second, BINS)
    few_first, few_second = group_counts(first, labels), group_counts(second, labels)
    measures = {
        "kolmogorov_smirnov": Effect(distance, None, p_value),
        "wasserstein": wasserstein_distance(values, first, second),
        "population_stability_index": population_stability_index(few_first, few_second, generator=generator),
        "jensen_shannon": jensen_shannon_distance(few_first, few_second),
    }
    return ColumnComparison(rank_displacement(first, second), p_value, measures)


def _compare_categories(
    reference: CategoricalProfile, current: CategoricalProfile, *, level: float, generator: np.random.Generator
) -> ColumnComparison:
    if reference.hashed or current.hashed:
        reference, current = reference.as_hashed(), current.as_hashed()
    names = sorted({*reference.counts, *current.counts})
    first, second = (
        np.array([side.counts.get(name, 0) for name in names], dtype=np.int64) for side in (reference, current)
    )
    tested = chi_square(first, second, level=level, generator=generator)
    first, second, _ = pool_rare(first, second)
    measures = {
        "chi_square": Effect(tested.statistic, None, tested.p_value),
        "population_stability_index": population_stability_index(first, second, generator=generator),
        "jensen_shannon": jensen_shannon_distance(first, second),
    }
    return ColumnComparison(category_displacement(first, second), tested.p_value, measures)
