"""Reduced: whole years of daily checks. In full: ``make bench``."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drift_years import (
    World,
    alarms,
    day_effects,
    days_to_alarm,
    draw_year,
    profile_of,
    shift_of_effect,
    steady,
    years_with_naive_alarm,
)
from genai_operators.decisions.alpha_spending import SpendingPlan
from genai_operators.decisions.drift import DriftSettings
from genai_operators.decisions.drift_watch import WatchSettings, WatchState, watch

WORLD = World()
YEARS = 8


class TestYears:
    def test_the_screen_finds_what_the_product_finds(self):
        world = World(features=3, plan=SpendingPlan(windows=(1, 2, 4, 8)))
        year = draw_year(world, steady(world, 0.08, days=30, features=1), np.random.default_rng(3))
        settings = WatchSettings(drift=DriftSettings(minimum_effect=world.minimum_effect), plan=world.plan)
        state, found = WatchState(), None
        days = {day: profile_of(counts) for day, counts in enumerate(year.days)}
        for day in days:
            seen = {number: days[number] for number in range(day + 1)}
            state, report = watch(state, seen, profile_of(year.reference), period=day, settings=settings)
            if report.raised:
                found = day
                break
        assert found is not None
        assert found == next(alarms(world, year))

    @pytest.mark.parametrize(
        ("kind", "world", "years"),
        [
            ("no effect", WORLD, YEARS),
            ("effect at the minimum", WORLD, YEARS),
            ("day effects below it", WORLD, YEARS),
            ("effect at the minimum", World.as_shipped(), 4),
        ],
    )
    def test_years_without_drift_are_quiet(self, kind, world, years):
        random = np.random.default_rng(11)
        least = shift_of_effect(world.minimum_effect)
        noisy = 0
        for _ in range(years):
            shifts = {
                "no effect": lambda: steady(world, 0.0),
                "effect at the minimum": lambda: steady(world, least),
                "day effects below it": lambda: day_effects(world, least, random),
            }[kind]()
            noisy += next(alarms(world, draw_year(world, shifts, random)), None) is not None
        assert noisy <= years // 4

    def test_daily_tests_without_spending_are_caught(self):
        random = np.random.default_rng(12)
        assert all(years_with_naive_alarm(WORLD, steady(WORLD, 0.0, days=90), random) for _ in range(3))

    @pytest.mark.parametrize(
        ("world", "shift", "within"), [(WORLD, 0.1, 3), (WORLD, 0.05, 14), (World.as_shipped(), 0.3, 3)]
    )
    def test_shifts_are_found_soon(self, world, shift, within):
        random = np.random.default_rng(13)
        delays = [days_to_alarm(world, shift, random, horizon=2 * within) for _ in range(15)]
        assert np.median(delays) <= within
