"""Whole years of daily checks: 15 features, 2,000 rows a day, one shared reference of 100,000 rows.

A year has some 18,000 comparisons. Nearly all are nowhere near an alarm, so a vectorised screen finds those whose
effect could pass at the level spent, and only these are put to the product's own ``compare`` on real profiles. The
screen is necessary for an alarm (Benjamini-Hochberg rejects nothing when every p-value is above the level), so nothing
is missed; ``tests/unit/decisions/test_drift_years.py`` holds it against a year of the product's ``watch``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special

from genai_operators.decisions.alpha_spending import SpendingPlan
from genai_operators.decisions.drift import DriftSettings, compare
from genai_operators.decisions.drift_displacement import bridge_area_quantile
from genai_operators.decisions.profile import Profile
from genai_operators.decisions.profile_column import ContinuousProfile
from genai_operators.decisions.profile_sketch import sketch_counts
from genai_operators.spec.drift import Drift

BINS = 256
SLACK = 0.98
"""The screen takes the noise to be so much smaller than it is: rounding never hides an alarm."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class World:
    """What a year is made of, and how it is watched.

    :param minimum_effect: share of rows; 0.0056 is a shift by 0.01 standard deviations of a normal column. So sensitive
        a watch finds 0.1 sd in days; the model file's default (:meth:`as_shipped`) never alarms on so little.
    """

    features: int = 15
    rows_a_day: int = 2_000
    reference_rows: int = 100_000
    minimum_effect: float = 0.0056
    plan: SpendingPlan = field(default_factory=SpendingPlan)

    @classmethod
    def as_shipped(cls) -> World:
        """Watched by a model file that says nothing about drift, daily."""
        drift = Drift()
        return cls(minimum_effect=drift.minimum_effect, plan=SpendingPlan(yearly_level=drift.false_discovery_rate))


@dataclass(frozen=True)
class Year:
    """Counts of bins: reference (features, bins), days (days, features, bins)."""

    reference: Counts
    days: Counts


def draw_year(world: World, shifts: NDArray[np.float64], random: np.random.Generator) -> Year:
    """Standard normal columns, counted in bins of equal mass, each moved by a shift of that day.

    :param shifts: in standard deviations, shape (days, features).
    """
    even = np.full(BINS, 1 / BINS)
    reference = random.multinomial(world.reference_rows, even, size=world.features)
    if not shifts.any():
        return Year(reference, random.multinomial(world.rows_a_day, even, size=shifts.shape))
    return Year(reference, random.multinomial(world.rows_a_day, _moved(shifts)))


def alarms(world: World, year: Year) -> Iterator[int]:
    """Days, in order, on which the product would raise an alarm (before hysteresis and cool-down)."""
    suspects = sorted((int(day), window) for window in world.plan.windows for day in _screened(world, year, window))
    found = -1
    for day, window in suspects:
        if day > found and _product_alarms(world, year, day, window):
            found = day
            yield day


def shift_of_effect(effect: float) -> float:
    """The shift of a normal column, in standard deviations, that moves this share of rows: 2 Phi(s / sqrt 2) - 1."""
    return float(np.sqrt(2) * special.ndtri((1 + effect) / 2))


def steady(world: World, shift: float, *, days: int = 365, features: int | None = None) -> NDArray[np.float64]:
    """The same shift every day, in the first ``features`` features (all by default)."""
    shifts = np.zeros((days, world.features))
    shifts[:, : world.features if features is None else features] = shift
    return shifts


def day_effects(world: World, largest: float, random: np.random.Generator, *, days: int = 365) -> NDArray[np.float64]:
    """A shift of its own for every day and feature, uniform within +-``largest`` standard deviations."""
    return random.uniform(-largest, largest, (days, world.features))


def days_to_alarm(world: World, shift: float, random: np.random.Generator, *, horizon: int = 60) -> int:
    """Days until one shifted feature is found, its first shifted day being 1; ``horizon`` + 1 if it is not."""
    quiet = 64 + int(random.integers(16))
    shifts = np.zeros((quiet + horizon, world.features))
    shifts[quiet:, 0] = shift
    found = next((day for day in alarms(world, draw_year(world, shifts, random)) if day >= quiet), None)
    return horizon + 1 if found is None else found - quiet + 1


def years_with_naive_alarm(world: World, shifts: NDArray[np.float64], random: np.random.Generator) -> bool:
    """What most monitors do: Kolmogorov-Smirnov at 5 % on each day and feature, nothing else."""
    year = draw_year(world, shifts, random)
    f = np.cumsum(year.reference, axis=1) / world.reference_rows
    g = np.cumsum(year.days, axis=2) / world.rows_a_day
    distance = np.abs(f - g).max(axis=2)
    size = world.reference_rows * world.rows_a_day / (world.reference_rows + world.rows_a_day)
    return bool((special.kolmogorov(distance * np.sqrt(size)) <= 0.05).any())


def _screened(world: World, year: Year, window: int) -> NDArray[np.int64]:
    """Days on which the effect of some feature in this window exceeds the minimum by what noise may do at its level."""
    days = np.arange(window - 1, len(year.days))
    days = days[days % world.plan.stride(window) == 0]
    if not len(days):
        return days
    summed = np.concatenate([np.zeros_like(year.days[:1]), np.cumsum(year.days, axis=0)])
    n, m = world.reference_rows, world.rows_a_day * window
    f, g = year.reference / n, (summed[days + 1] - summed[days + 1 - window]) / m
    gap = np.abs(np.cumsum(f, axis=1) - f / 2 - np.cumsum(g, axis=2) + g / 2)
    effect = (gap * (f + g)).sum(axis=2)
    noise = 2 * bridge_area_quantile(world.plan.level(window)) * np.sqrt(1 / n + 1 / m)
    found: NDArray[np.int64] = days[(effect - world.minimum_effect > SLACK * noise).any(axis=1)]
    return found


def _product_alarms(world: World, year: Year, day: int, window: int) -> bool:
    settings = DriftSettings(minimum_effect=world.minimum_effect, false_discovery_rate=world.plan.level(window))
    current = year.days[day - window + 1 : day + 1].sum(axis=0)
    return bool(compare(profile_of(year.reference), profile_of(current), settings).drifted)


def profile_of(counts: Counts) -> Profile:
    """A profile of continuous columns whose values are bin numbers; counts of shape (features, bins)."""
    columns = []
    for index, row in enumerate(counts):
        values = np.arange(len(row), dtype=np.float64)
        mean = float((values * row).sum() / row.sum())
        squares = float((np.square(values - mean) * row).sum())
        rows = int(row.sum())
        columns.append(
            ContinuousProfile(
                name=f"x{index}", rows=rows, missing=0, sketch=sketch_counts(values, row), mean=mean, squares=squares
            )
        )
    return Profile.of(columns)


def _moved(shifts: NDArray[np.float64]) -> NDArray[np.float64]:
    edges = special.ndtri(np.arange(1, BINS) / BINS)
    below = special.ndtr(edges - shifts[..., None])
    below = np.concatenate([np.zeros((*shifts.shape, 1)), below, np.ones((*shifts.shape, 1))], axis=-1)
    moved: NDArray[np.float64] = np.diff(below, axis=-1)
    return moved
