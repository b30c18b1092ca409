"""Retrain, release or wait? A pure function of facts and history that says why in one sentence.

Reasons to retrain: users call more answers wrong, the traffic drifted, enough new labelled rows, old age.
Brakes: one retraining at a time, a cool-down, a budget, and a block: a retraining that did not help blocks its trigger,
for twice as long each time, so a stuck alarm cannot make the system oscillate. A block is bounded, so none starves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from genai_operators.decisions.paired_rates import wilson
from genai_operators.decisions.policy_brakes import days, hold, moment
from genai_operators.decisions.policy_facts import (
    Attempt,
    AttemptOutcome,
    Candidate,
    Facts,
    PolicySettings,
    Trigger,
)
from genai_operators.exceptions import DataError

__all__ = [
    "Action",
    "Attempt",
    "AttemptOutcome",
    "Candidate",
    "Decision",
    "Facts",
    "PolicySettings",
    "Trigger",
    "decide",
    "judge_attempt",
]

FEEDBACK_CONFIDENCE = 0.999
"""Of the bound on the share of wrong answers: it is looked at every day, so 0.95 would alarm every few weeks."""


class Action(StrEnum):
    RETRAIN = "retrain"
    RELEASE = "release"
    WAIT = "wait"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """:param reason: one sentence. :param until: when waiting may end by time alone; None when it needs an event."""

    action: Action
    reason: str
    trigger: Trigger | None = None
    until: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; two decisions are equal when this is."""
        return {
            "action": str(self.action),
            "reason": self.reason,
            "trigger": None if self.trigger is None else str(self.trigger),
            "until": None if self.until is None else self.until.isoformat(),
        }


def decide(facts: Facts, history: Sequence[Attempt], settings: PolicySettings) -> Decision:
    """Decide once. The same facts, history and settings always give the same decision.

    :param history: every retraining so far, oldest first.
    :raises DataError: history out of order or in the future.
    """
    _require_order(facts, history)
    if facts.release_running:
        return _wait("a release is running")
    if facts.candidate is not None and facts.candidate.passed and facts.candidate.base_epoch == facts.champion_epoch:
        return _release(facts, facts.candidate, settings)
    if history and history[-1].outcome is AttemptOutcome.RUNNING:
        return _wait(f"the retraining of {moment(history[-1].at)} is running")
    if facts.champion_epoch is None or facts.trained_at is None:
        return _wait("there is no champion yet; the first training is started by hand")
    reasons = _reasons(facts, facts.trained_at, settings)
    if not reasons:
        return _wait(f"nothing calls for it: {_calm(facts, facts.trained_at)}")
    held = {trigger: hold(trigger, facts.now, history, settings) for trigger in reasons}
    for trigger, brake in held.items():
        if brake is None:
            return Decision(action=Action.RETRAIN, trigger=trigger, reason=f"Retrain: {reasons[trigger]}.")
    soonest, brake = min(((t, b) for t, b in held.items() if b is not None), key=lambda pair: pair[1].ends)
    reason = f"{reasons[soonest]}, but {brake.why}"
    reason += f", until {moment(brake.until)}" if brake.until is not None else ""
    return Decision(action=Action.WAIT, trigger=soonest, until=brake.until, reason=f"Wait: {reason}.")


def judge_attempt(attempt: Attempt, *, promoted: bool, facts: Facts, settings: PolicySettings) -> AttemptOutcome:
    """Did a finished retraining help? Only if it was promoted and what called for it has gone.

    :param facts: of a moment after the promotion at which drift and feedback could have been seen again.
    """
    if not promoted or facts.trained_at is None:
        return AttemptOutcome.NO_HELP
    still_there = attempt.trigger in _reasons(facts, facts.trained_at, settings)
    seen = still_there or (attempt.trigger is Trigger.DRIFT and facts.drift)
    return AttemptOutcome.NO_HELP if seen else AttemptOutcome.HELPED


def _release(facts: Facts, candidate: Candidate, settings: PolicySettings) -> Decision:
    if facts.rolled_back_at is not None and facts.now < facts.rolled_back_at + settings.release_pause:
        until = facts.rolled_back_at + settings.release_pause
        return _wait(f"version {candidate.version} is ready, but a release was rolled back just now", until)
    reason = f"Release: version {candidate.version} passed its evaluation against the present champion."
    return Decision(action=Action.RELEASE, reason=reason)


def _reasons(facts: Facts, trained_at: datetime, settings: PolicySettings) -> dict[Trigger, str]:
    """Triggers that call for retraining now, the most urgent first, each with its half of the sentence."""
    reasons: dict[Trigger, str] = {}
    enough = facts.new_rows >= settings.minimum_new_rows
    rows = f"{facts.new_rows:,} new labelled rows"
    asked = facts.rated >= settings.minimum_rated
    lower = wilson(facts.wrong, n=facts.rated, confidence=FEEDBACK_CONFIDENCE)[0] if asked else 0.0
    if enough and lower > facts.usual_wrong_share + settings.feedback_margin:
        reasons[Trigger.FEEDBACK] = (
            f"users call {facts.wrong / facts.rated:.1%} of {facts.rated:,} answers wrong, "
            f"{_accepted(facts, settings)}, and {rows} are there"
        )
    if enough and facts.drift:
        reasons[Trigger.DRIFT] = f"the traffic drifted and {rows} are there"
    if facts.new_rows >= settings.data_rows:
        reasons[Trigger.DATA] = f"{rows} are there, {settings.data_rows:,} are enough"
    if facts.now - trained_at >= settings.maximum_age:
        reasons[Trigger.AGE] = f"the champion was trained {days(facts.now - trained_at)} ago"
    return reasons


def _accepted(facts: Facts, settings: PolicySettings) -> str:
    if facts.usual_wrong_share:
        return f"{facts.usual_wrong_share:.1%} was usual"
    return f"{settings.feedback_margin:.1%} is accepted"


def _require_order(facts: Facts, history: Sequence[Attempt]) -> None:
    moments = [attempt.at for attempt in history]
    if moments != sorted(moments) or (moments and moments[-1] > facts.now):
        raise DataError("policy history: retrainings are listed oldest first, and none lies in the future")


def _calm(facts: Facts, trained_at: datetime) -> str:
    return (
        f"{'drift, but too few new rows' if facts.drift else 'no drift'}, {facts.new_rows:,} new labelled rows, "
        f"{facts.wrong:,} of {facts.rated:,} answers called wrong, trained {days(facts.now - trained_at)} ago"
    )


def _wait(why: str, until: datetime | None = None) -> Decision:
    return Decision(action=Action.WAIT, reason=f"Wait: {why}.", until=until)
