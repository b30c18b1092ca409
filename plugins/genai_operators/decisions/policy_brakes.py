"""What holds a retraining back although something calls for it: cool-down, block, budget. Each hold ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from genai_operators.decisions.policy_facts import Attempt, AttemptOutcome, PolicySettings, Trigger

BROKEN_DOUBLINGS = 3
"""After broken runs in a row the cool-down doubles, so often at most: a repaired platform is found soon."""


FORGOTTEN_AFTER = 2
"""Longest blocks between two retrainings of a trigger after which the earlier one no longer counts against it."""


@dataclass(frozen=True)
class Hold:
    """:param until: when it ends by itself; None when somebody must act. :param why: half a sentence."""

    until: datetime | None
    why: str

    @property
    def ends(self) -> datetime:
        """For ordering: a hold that does not end by itself ends last."""
        return datetime.max.replace(tzinfo=UTC) if self.until is None else self.until


def hold(trigger: Trigger, now: datetime, history: Sequence[Attempt], settings: PolicySettings) -> Hold | None:
    """The hold that lasts longest; None when a retraining for this trigger may start now."""
    if not history:
        return None
    holds = [
        cool_down(history, settings),
        block(trigger, history, settings),
        too_many(history, settings),
        too_dear(history, settings),
    ]
    running = [each for each in holds if each is not None and each.ends > now]
    return max(running, key=lambda each: each.ends, default=None)


def cool_down(history: Sequence[Attempt], settings: PolicySettings) -> Hold:
    """Between any two retrainings; longer after broken runs in a row."""
    broken = 0
    for attempt in reversed(history):
        if attempt.outcome is not AttemptOutcome.BROKEN:
            break
        broken += 1
    last = moment(history[-1].at)
    why = (
        f"the last retraining was on {last}" if broken < 2 else f"the last {broken} retrainings broke, on {last} again"
    )
    return Hold(history[-1].at + settings.cool_down * 2 ** min(max(broken - 1, 0), BROKEN_DOUBLINGS), why)


def block(trigger: Trigger, history: Sequence[Attempt], settings: PolicySettings) -> Hold | None:
    """The brake against oscillation: twice as long for each retraining in a row that did not help this trigger.

    Broken runs prove nothing about the trigger and do not count.
    """
    tried = [
        a for a in history if a.trigger is trigger and a.outcome in (AttemptOutcome.HELPED, AttemptOutcome.NO_HELP)
    ]
    useless, later = 0, None
    for attempt in reversed(tried):
        long_ago = later is not None and later - attempt.at > FORGOTTEN_AFTER * settings.longest_block
        if attempt.outcome is AttemptOutcome.HELPED or long_ago:
            break
        useless, later = useless + 1, attempt.at
    if not useless:
        return None
    length = min(settings.longest_block, settings.block * 2 ** min(useless - 1, 30))
    tries = "the last retraining for it" if useless == 1 else f"the last {useless} retrainings for it"
    return Hold(tried[-1].at + length, f"{tries} did not help")


def too_many(history: Sequence[Attempt], settings: PolicySettings) -> Hold | None:
    """The budget in numbers over a sliding window. Broken runs do not count: they cost little and taught nothing."""
    counted = [attempt for attempt in history if attempt.outcome is not AttemptOutcome.BROKEN]
    if len(counted) < settings.retrainings:
        return None
    until = counted[-settings.retrainings].at + settings.budget_window
    return Hold(until, f"{settings.retrainings} retrainings in {days(settings.budget_window)} are the budget")


def too_dear(history: Sequence[Attempt], settings: PolicySettings) -> Hold | None:
    """The budget in money: room for one more at the price of the dearest of the last few."""
    if settings.budget is None:
        return None
    price = max(attempt.cost for attempt in history[-settings.retrainings :])
    if price > settings.budget:
        return Hold(None, f"a retraining costs {price:g}, more than the whole budget of {settings.budget:g}")
    spent, until = 0.0, None
    for attempt in reversed(history):
        spent += attempt.cost
        if spent + price > settings.budget:
            until = attempt.at + settings.budget_window
            break
    if until is None:
        return None
    return Hold(until, f"the budget of {settings.budget:g} in {days(settings.budget_window)} is spent")


def moment(at: datetime) -> str:
    """A time to the minute, with its zone."""
    return at.strftime("%Y-%m-%d %H:%M %Z").strip()


def days(length: timedelta) -> str:
    """A duration in days, in hours below two days, in minutes below two hours."""
    minutes = length.total_seconds() / 60
    if minutes >= 2 * 1_440:
        return f"{minutes / 1_440:.0f} days"
    return f"{minutes / 60:.0f} hours" if minutes >= 120 else f"{minutes:.0f} minutes"
