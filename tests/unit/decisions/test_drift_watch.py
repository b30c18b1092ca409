"""A watch raises one alarm for one change, keeps its yearly level, and replays from its state."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_operators.decisions.alpha_spending import SpendingPlan
from genai_operators.decisions.drift import DriftSettings
from genai_operators.decisions.drift_watch import WatchReport, WatchSettings, WatchState, watch
from genai_operators.decisions.profile import Profile, profile_column
from genai_operators.decisions.verdict import Outcome
from genai_operators.exceptions import ConfigurationError, DataError

SETTINGS = WatchSettings(
    drift=DriftSettings(minimum_rows=50, minimum_effect=0.05),
    plan=SpendingPlan(windows=(1, 2, 4, 8)),
    clear_after=2,
    cool_down=5,
)


def day(shift: float, seed: int, rows: int = 400) -> Profile:
    values = np.random.default_rng([7, seed]).standard_normal(rows) + shift
    return Profile.of([profile_column("length", values, "continuous")])


REFERENCE = day(0.0, 999, rows=20_000)


def run(shifts: list[float], *, reference: Profile = REFERENCE) -> list[WatchReport]:
    """A day for each shift; the state goes through JSON every night."""
    state, days, reports = WatchState(), {}, []
    for number, shift in enumerate(shifts):
        days[number] = day(shift, number)
        state, report = watch(state, days, reference, period=number, settings=SETTINGS)
        state = WatchState.from_json(json.loads(json.dumps(state.to_json())))
        reports.append(report)
    return reports


class TestReplay:
    @settings(max_examples=8, deadline=None)
    @given(
        shifts=st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=2, max_size=6),
        random=st.randoms(use_true_random=False),
    )
    def test_any_order_of_the_periods_gives_the_same_answers_and_one_alarm_a_cool_down(self, shifts, random):
        """The mapping of periods has no order, and a state that went through JSON every night goes on alike."""
        reports = run(shifts)
        days = list(enumerate(day(shift, number) for number, shift in enumerate(shifts)))
        state = WatchState()
        for number in range(len(shifts)):
            known = days[: number + 1]
            random.shuffle(known)
            state, report = watch(state, dict(known), REFERENCE, period=number, settings=SETTINGS)
            assert report.verdict == reports[number].verdict
            assert (report.raised, report.alarmed) == (reports[number].raised, reports[number].alarmed)
        raised = [number for number, report in enumerate(reports) if report.raised]
        assert all(later - earlier > SETTINGS.cool_down for earlier, later in pairwise(raised))


class TestSpending:
    def test_looks_of_any_year_add_up_to_the_yearly_level(self):
        plan = SpendingPlan()
        for first in (0, 17, 400):
            spent = sum(plan.level(window) for period in range(first, first + 365) for window in plan.due(period))
            assert spent <= plan.yearly_level + 1e-12
            assert spent > 0.9 * plan.yearly_level

    @settings(max_examples=40, deadline=None)
    @given(
        level=st.floats(1e-4, 0.5),
        windows=st.sets(st.integers(1, 64), min_size=1, max_size=7),
        year=st.integers(64, 2_000),
        first=st.integers(0, 5_000),
    )
    def test_no_year_of_any_plan_spends_more_than_its_level(self, level, windows, year, first):
        plan = SpendingPlan(yearly_level=level, windows=tuple(sorted(windows)), periods_per_year=year)
        spent = sum(plan.level(window) for period in range(first, first + year) for window in plan.due(period))
        assert 0 < spent <= level * (1 + 1e-9)

    def test_every_window_is_due_as_often_as_it_pays_for(self):
        plan = SpendingPlan()
        assert plan.due(0) == plan.windows
        assert [plan.stride(window) for window in plan.windows] == [1, 1, 1, 2, 4, 8, 16]

    @pytest.mark.parametrize(
        "wrong", [{"yearly_level": 0.0}, {"windows": ()}, {"windows": (2, 1)}, {"windows": (1, 1)}, {"windows": (400,)}]
    )
    def test_a_senseless_plan_is_refused(self, wrong):
        with pytest.raises(ConfigurationError):
            SpendingPlan(**wrong)

    def test_a_window_outside_the_plan_has_no_level(self):
        with pytest.raises(ConfigurationError, match="3 periods"):
            SpendingPlan().level(3)


class TestAlarm:
    def test_is_raised_once_while_the_change_lasts(self):
        reports = run([0.0] * 10 + [0.6] * 10)
        raised = [number for number, report in enumerate(reports) if report.raised]
        assert raised == [10]
        assert all(report.alarmed for report in reports[10:])
        assert "alarm running for 2 periods" in reports[12].verdict.summary
        assert reports[10].verdict.outcome is Outcome.FAIL

    def test_ends_after_quiet_days_and_is_not_raised_again_by_its_own_past(self):
        reports = run([0.0] * 10 + [0.6] * 5 + [0.0] * 20)
        assert [number for number, report in enumerate(reports) if report.raised] == [10]
        assert [report.alarmed for report in reports[15:18]] == [True, False, False]

    def test_a_small_shift_is_found_by_a_longer_window(self):
        reports = run([0.0] * 10 + [0.27] * 16)
        raised = next(report for report in reports if report.raised)
        assert next(look.window for look in raised.looks if look.result.drifted) > 1

    def test_a_second_change_waits_for_the_cool_down(self):
        reports = run([0.0] * 10 + [0.6] + [0.0] * 2 + [0.6] * 6)
        raised = [number for number, report in enumerate(reports) if report.raised]
        assert raised == [10, 16]
        assert any("cooling down" in report.verdict.summary for report in reports[13:16])

    def test_a_new_reference_ends_the_alarm_and_forgets_older_days(self):
        state, days = WatchState(), {}
        moved = day(0.6, 1_000, rows=20_000)
        raised = []
        for number in range(24):
            days[number] = day(0.6 if number >= 10 else 0.0, number)
            reference = REFERENCE if number < 13 else moved
            state, report = watch(state, days, reference, period=number, settings=SETTINGS)
            raised += [number] if report.raised else []
        assert raised == [10]
        assert not report.alarmed

    def test_no_rows_is_not_enough_and_changes_nothing(self):
        state, report = watch(WatchState(), {}, REFERENCE, period=4, settings=SETTINGS)
        assert report.verdict.outcome is Outcome.INCONCLUSIVE
        assert not report.alarmed
        assert state.period == 4


class TestState:
    def test_replays_bit_for_bit(self):
        first, second = run([0.0] * 6 + [0.6] * 4), run([0.0] * 6 + [0.6] * 4)
        assert [report.verdict for report in first] == [report.verdict for report in second]

    def test_a_period_before_its_predecessor_is_refused(self):
        state, _ = watch(WatchState(), {3: day(0, 3)}, REFERENCE, period=3, settings=SETTINGS)
        for period in (3, 2):
            with pytest.raises(DataError, match="after 3"):
                watch(state, {3: day(0, 3)}, REFERENCE, period=period, settings=SETTINGS)

    def test_another_version_is_refused(self):
        with pytest.raises(DataError, match="version 2"):
            WatchState.from_json({**WatchState().to_json(), "version": 2})

    @pytest.mark.parametrize("wrong", [{"clear_share": 0.0}, {"clear_after": 0}, {"cool_down": -1}])
    def test_senseless_settings_are_refused(self, wrong):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            WatchSettings(**wrong)
