"""Drift over time: windows of 1, 2, 4 .. 64 periods against one reference, one alarm for one change.

Each period's rows come as a profile; the profiles of a window are merged, so nothing is read twice. What a look may
spend comes from the :class:`~genai_operators.decisions.alpha_spending.SpendingPlan`, so a year keeps its level.

*Hysteresis*: an alarm ends only after several periods in a row in which nothing is proved above a lower minimum.
*Cool-down*: for some periods after an alarm, no new one is raised. Both live in a state that is plain JSON and replays:
the same profiles and the same state give the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from genai_operators.decisions.alpha_spending import SpendingPlan
from genai_operators.decisions.drift import DriftResult, DriftSettings, compare_segments
from genai_operators.decisions.profile import Profile, merge
from genai_operators.decisions.verdict import Outcome, Verdict
from genai_operators.exceptions import ConfigurationError, DataError

WATCH_VERSION = 1

Segments = tuple[Mapping[str, Profile], Mapping[str, Profile]]
"""More to compare than the columns, by name: of the reference, and of a window."""

MoreSegments = Callable[[Sequence[int]], Segments]
"""The further segments of a window of these periods; pure, as the watch replays."""


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """How a watch decides.

    :param drift: rows and effect that a window needs; its ``false_discovery_rate`` is replaced by what the plan spends.
    :param plan: windows and levels.
    :param clear_share: an alarm ends when nothing is proved above this share of the minimum effect, 0 < share <= 1,
        in windows no longer than the one that raised it (longer ones remember what has passed).
    :param clear_after: periods in a row for which that must hold.
    :param cool_down: periods after an alarm in which no other is raised.
    """

    drift: DriftSettings = field(default_factory=DriftSettings)
    plan: SpendingPlan = field(default_factory=SpendingPlan)
    clear_share: float = 0.5
    clear_after: int = 3
    cool_down: int = 7

    def __post_init__(self) -> None:
        if not 0 < self.clear_share <= 1:
            raise ConfigurationError(f"drift clear_share is {self.clear_share}; it lies in (0, 1]")
        if self.clear_after < 1 or self.cool_down < 0:
            raise ConfigurationError(
                f"drift clear_after is {self.clear_after} (1 or more), cool_down is {self.cool_down} (0 or more)"
            )


@dataclass(frozen=True, kw_only=True)
class WatchState:
    """What a watch remembers between periods.

    :param period: judged last; None before the first.
    :param reference: digest of the reference that it was judged against. Another one ends the alarm, not the cool-down.
    :param start: first period that windows may reach back to: an alarm that has ended, or traffic from before the
        reference changed, is not found twice.
    :param alarmed_since: first period of the running alarm, None while quiet.
    :param raised_by: length of the window that raised it.
    :param last_alarm: the period in which an alarm was last raised.
    :param quiet_periods: in a row, while alarmed, in which nothing was proved.
    """

    period: int | None = None
    reference: str = ""
    start: int | None = None
    alarmed_since: int | None = None
    raised_by: int | None = None
    last_alarm: int | None = None
    quiet_periods: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"version": WATCH_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> WatchState:
        """:raises DataError: a record of another version."""
        if record.get("version") != WATCH_VERSION:
            raise DataError(f"the drift watch's state has version {record.get('version')!r}, not {WATCH_VERSION}")
        return cls(**{name: value for name, value in record.items() if name != "version"})


@dataclass(frozen=True)
class Look:
    """One window looked at: its length in periods, the level it spent and what it found."""

    window: int
    level: float
    result: DriftResult


@dataclass(frozen=True)
class WatchReport:
    """The answer of one period.

    :param raised: a new alarm, to be acted on once.
    :param alarmed: an alarm is running, new or old.
    :param looks: shortest window first.
    """

    raised: bool
    alarmed: bool
    looks: tuple[Look, ...]
    verdict: Verdict


@dataclass(frozen=True)
class _Evidence:
    """What windows are made of, and compared with."""

    periods: Mapping[int, Profile]
    reference: Profile
    more: MoreSegments


def watch(
    state: WatchState,
    periods: Mapping[int, Profile],
    reference: Profile,
    *,
    period: int,
    settings: WatchSettings,
    more: MoreSegments = lambda _periods: ({}, {}),
) -> tuple[WatchState, WatchReport]:
    """Judge one period.

    :param periods: profiles by period number, up to the longest window back; a period without rows may be absent.
    :param period: the one to judge; every period is judged once, in order, gaps allowed.
    :param more: further segments to compare, under the same false discovery rate as the columns.
    :raises DataError: a period before its predecessor; profiles of other columns than the reference.
    """
    if state.period is not None and period <= state.period:
        raise DataError(f"drift period {period} comes after {state.period} was judged; each is judged once, in order")
    before = state
    if state.reference != reference.digest:
        start = None if state.period is None else period
        before = replace(state, start=start, alarmed_since=None, raised_by=None, quiet_periods=0)
    evidence = _Evidence(periods, reference, more)
    looks = tuple(_looks(before, evidence, period, settings.plan.due(period), settings))
    found = [look.window for look in looks if look.result.verdict.outcome is Outcome.FAIL]
    if before.alarmed_since is not None:
        raised = False
        after = _still_alarmed(before, period, _lingers(before, evidence, period, settings), settings)
    else:
        cooling = before.last_alarm is not None and period - before.last_alarm <= settings.cool_down
        raised = bool(found) and not cooling
        after = replace(before, alarmed_since=period, raised_by=found[0], last_alarm=period) if raised else before
    after = replace(after, period=period, reference=reference.digest)
    alarmed = after.alarmed_since is not None
    return after, WatchReport(raised, alarmed, looks, _verdict(looks, after, raised=raised))


def _looks(
    state: WatchState, evidence: _Evidence, period: int, windows: Sequence[int], settings: WatchSettings
) -> Iterator[Look]:
    """Compare each window that has rows and reaches no further back than the evidence does.

    Windows nest, so each extends the merge of the one before.
    """
    periods = evidence.periods
    first = min(periods, default=period) if state.start is None else state.start
    merged: Profile | None = None
    oldest = period + 1
    reached: list[int] = []
    for window in sorted(windows):
        if period - window + 1 < first:
            return
        inside = [p for p in range(period - window + 1, oldest) if p in periods]
        oldest = period - window + 1
        reached += inside
        if inside:
            merged = merge([*(periods[p] for p in inside), *([] if merged is None else [merged])])
        if merged is not None:
            level = settings.plan.level(window)
            spent = replace(settings.drift, false_discovery_rate=level, seed=settings.drift.seed + period)
            learnt, seen = evidence.more(sorted(reached))
            result = compare_segments({"": evidence.reference, **learnt}, {"": merged, **seen}, spent)
            yield Look(window, level, result)


def _lingers(state: WatchState, evidence: _Evidence, period: int, settings: WatchSettings) -> bool:
    """Is anything still proved above the lower minimum?"""
    lower = replace(settings.drift, minimum_effect=settings.drift.minimum_effect * settings.clear_share)
    windows = [window for window in settings.plan.windows if window <= (state.raised_by or 1)]
    looks = _looks(state, evidence, period, windows, replace(settings, drift=lower))
    return any(look.result.verdict.outcome is Outcome.FAIL for look in looks)


def _still_alarmed(state: WatchState, period: int, lingers: bool, settings: WatchSettings) -> WatchState:
    quiet = 0 if lingers else state.quiet_periods + 1
    if quiet < settings.clear_after:
        return replace(state, quiet_periods=quiet)
    return replace(state, alarmed_since=None, raised_by=None, quiet_periods=0, start=period - settings.clear_after + 1)


def _verdict(looks: tuple[Look, ...], state: WatchState, *, raised: bool) -> Verdict:
    """The look that says most: the shortest window with drift, else the longest that could be judged."""
    telling = [look for look in looks if look.result.verdict.outcome is Outcome.FAIL][:1]
    judged = [look for look in looks if look.result.verdict.outcome is Outcome.PASS][-1:]
    chosen = telling or judged or list(looks[-1:])
    if not chosen:
        return Verdict(gate="drift", outcome=Outcome.INCONCLUSIVE, summary="no rows in any window that is due")
    look = chosen[0]
    summary = f"{look.result.verdict.summary} (window of {look.window}, level {look.level:.2g})"
    if telling and not raised:
        since = None if state.alarmed_since is None or state.period is None else state.period - state.alarmed_since
        plural = "" if since == 1 else "s"
        summary += "; cooling down, no new alarm" if since is None else f"; alarm running for {since} period{plural}"
    return replace(look.result.verdict, summary=summary)
