"""Simulated years of a model under the retraining policy, with everything going wrong that can.

Each day the world moves (drift that retraining mends, and drift that it cannot), alarms get stuck, users get angry for
no reason, training breaks, candidates are rejected, releases are rolled back, labels dry up, and on some days the
policy is not asked at all. The policy sees facts only; what truly helps is known to the simulation alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from genai_operators.decisions.policy import (
    Action,
    Attempt,
    AttemptOutcome,
    Decision,
    Facts,
    PolicySettings,
    decide,
    judge_attempt,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong, and how often.

    :param drifts: a year, that retraining mends. :param hopeless: a year, that it does not, for 30 to 90 days.
    :param stuck_alarm: days of a drift alarm that no retraining ends. :param broken_days: of a platform that breaks
        every run. :param breaks, rejections, rollbacks: shares of attempts. :param silent: share of days without a
        question. :param dry: days without a single label.
    """

    drifts: float = 4.0
    hopeless: float = 1.0
    stuck_alarm: int = 0
    broken_days: int = 0
    breaks: float = 0.1
    rejections: float = 0.15
    rollbacks: float = 0.1
    silent: float = 0.05
    dry: int = 0
    angry_users: int = 0


@dataclass
class Log:
    """What happened in a year."""

    attempts: list[Attempt] = field(default_factory=list)
    decisions: list[tuple[datetime, Decision]] = field(default_factory=list)
    open_days: int = 0
    """Days on which retraining would have helped and labels were there."""

    longest_wait: int = 0
    """Longest run of such days without an attempt."""

    longest_idle: int = 0
    """Longest time without any attempt while something called for one and the platform worked, in days."""

    @property
    def useless(self) -> int:
        return sum(attempt.outcome is AttemptOutcome.NO_HELP for attempt in self.attempts)


def simulate(faults: Faults, settings: PolicySettings, *, seed: int, days: int = 365, naive: bool = False) -> Log:
    """One year, a question a day.

    :param naive: retrain whenever something calls for it: what the policy replaces.
    """
    random, log = np.random.default_rng(seed), Log()
    drifted = hopeless_until = -1
    trained, rows, epoch = START - 10 * DAY, 0, 1
    starts = _starts(faults.drifts, days, random)
    hopeless = _starts(faults.hopeless, days, random)
    stuck, dry, broken, angry = (
        _window(length, days, random)
        for length in (faults.stuck_alarm, faults.dry, faults.broken_days, faults.angry_users)
    )
    waiting = idle = 0
    for day in range(days):
        now = START + day * DAY
        drifted = day if day in starts else drifted
        if day in hopeless:
            hopeless_until = day + int(random.integers(30, 90))
        rows += 0 if day in dry else int(random.poisson(40))
        facts = Facts(
            now=now,
            champion_epoch=epoch,
            trained_at=trained,
            drift=drifted >= 0 or day <= hopeless_until or day in stuck,
            wrong=int(random.binomial(400, 0.05 + 0.15 * (drifted >= 0 or day in angry))),
            rated=400,
            usual_wrong_share=0.05,
            new_rows=rows,
        )
        called = _calls(facts, settings)
        asked = random.random() >= faults.silent
        decision = decide(facts, [] if naive else log.attempts, settings) if asked else None
        mendable = drifted >= 0 and rows >= settings.minimum_new_rows
        log.open_days += mendable
        waiting = waiting + 1 if mendable else 0
        idle = idle + 1 if called and day not in broken else 0
        if decision is not None:
            log.decisions.append((now, decision))
        if decision is not None and decision.action is Action.RETRAIN and decision.trigger is not None:
            waiting = idle = 0
            attempt = Attempt(at=now, trigger=decision.trigger, outcome=AttemptOutcome.RUNNING, cost=1.0)
            if day in broken or random.random() < faults.breaks:
                log.attempts.append(replace(attempt, outcome=AttemptOutcome.BROKEN))
                continue
            promoted = random.random() >= faults.rejections + faults.rollbacks
            if promoted:
                trained, rows, epoch, drifted = now, 0, epoch + 1, -1
            after = replace(
                facts,
                trained_at=trained,
                champion_epoch=epoch,
                new_rows=settings.minimum_new_rows,
                drift=drifted >= 0 or day <= hopeless_until or day in stuck,
                wrong=80 if drifted >= 0 or day in angry else 20,
            )
            outcome = judge_attempt(attempt, promoted=promoted, facts=after, settings=settings)
            log.attempts.append(replace(attempt, outcome=outcome))
        log.longest_wait = max(log.longest_wait, waiting)
        log.longest_idle = max(log.longest_idle, idle)
    return log


def crowded(log: Log, settings: PolicySettings) -> int:
    """Most retrainings, broken ones aside, in any budget window."""
    counted = [attempt.at for attempt in log.attempts if attempt.outcome is not AttemptOutcome.BROKEN]
    return max((sum(at - settings.budget_window < other <= at for other in counted) for at in counted), default=0)


def _calls(facts: Facts, settings: PolicySettings) -> bool:
    """Does anything call for a retraining, brakes aside?"""
    return decide(facts, [], settings).action is Action.RETRAIN


def _starts(rate: float, days: int, random: np.random.Generator) -> set[int]:
    return {int(day) for day in random.integers(0, days, random.poisson(rate))}


def _window(length: int, days: int, random: np.random.Generator) -> range:
    begin = int(random.integers(0, max(1, days - length)))
    return range(begin, begin + length)
