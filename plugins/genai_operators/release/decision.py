"""What to do next with a canary: a pure function of plan, progress and time. Replayed, it decides the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genai_operators.decisions.verdict import Check, Outcome, Verdict
from genai_operators.release.evidence import Standing
from genai_operators.release.journal import EventType
from genai_operators.release.progress import Cause, Progress
from genai_operators.spec.canary import OnDeadline

PROMOTE, ROLL_BACK = "promote", "roll_back"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The event to write, and what it says."""

    type: EventType
    data: Mapping[str, Any] = field(default_factory=dict)


def decide(progress: Progress, *, now: float) -> Decision | None:
    """The decision that is due while a canary is observed; ``None``: go on observing.

    In this order: harm proved -> roll back. The blast radius is used up -> roll back, whatever else the statistics say,
    a proof of health that came too late included. Every step passed and health certified -> promote. The deadline -> as
    the plan says. The step's soak and count are reached and the split is intact -> next step. A step needs no proof of
    health; only promotion does; silence never promotes.

    Once the split is broken nothing can be proved any more, neither harm nor health: the canary holds at its share
    until its blast radius is used up or its deadline has come.
    """
    standing = progress.evidence.standing()
    return (
        _harm(progress, standing)
        or _blast_radius(progress, standing, now=now)
        or _promotion(progress, standing, now=now)
        or _deadline(progress, standing, now=now)
        or _step(progress, standing, now=now)
    )


def roll_back(cause: Cause, reason: str, *, standing: Standing | None = None) -> Decision:
    """Back to the champion, with the reason for the log, the report and the error message."""
    verdict = None if standing is None else release_verdict(standing, outcome=Outcome.FAIL, summary=reason).to_json()
    return Decision(type=EventType.ROLLING_BACK, data={"cause": str(cause), "reason": reason, "verdict": verdict})


def promote(reason: str, *, verdict: Verdict | None = None) -> Decision:
    """The candidate becomes champion; ``reason`` stands in the ledger."""
    record = None if verdict is None else verdict.to_json()
    return Decision(type=EventType.PROMOTING, data={"reason": reason, "verdict": record})


def decide_answer(answer: str, *, by: str, standing: Standing) -> Decision:
    """What a person decided when the deadline came without a proof."""
    if answer == PROMOTE:
        reason = f"{by} decided so; {standing.health.summary}"
        return promote(reason, verdict=release_verdict(standing, outcome=Outcome.WARN, summary=reason))
    return roll_back(Cause.ANSWER, f"{by} decided so; {standing.health.summary}", standing=standing)


def release_verdict(standing: Standing, *, outcome: Outcome, summary: str) -> Verdict:
    """The gate's verdict with the checks of harm, health and split behind it."""
    checks: tuple[Check, ...] = (*standing.harm.checks, *standing.health.checks, *standing.split.checks)
    return Verdict(gate="canary", outcome=outcome, checks=checks, summary=summary)


def step_is_done(progress: Progress, *, now: float) -> bool:
    """Are the soak and the count of the present step reached?"""
    step = progress.plan.steps[progress.step]
    soaked = progress.step_since is not None and now - progress.step_since >= step.minimum_soak_s
    return soaked and progress.on_step >= step.minimum_requests


def _harm(_progress: Progress, standing: Standing) -> Decision | None:
    return roll_back(Cause.HARM, standing.harm.summary, standing=standing) if standing.harmful else None


def _blast_radius(progress: Progress, standing: Standing, *, now: float) -> Decision | None:
    reached = progress.plan.blast_radius.reached(progress.used(now=now))
    if not reached:
        return None
    reason = f"the blast radius is used up before the candidate was promoted: {', '.join(reached)}"
    return roll_back(Cause.BLAST_RADIUS, reason, standing=standing)


def _promotion(progress: Progress, standing: Standing, *, now: float) -> Decision | None:
    if not (progress.is_last_step and standing.certified and step_is_done(progress, now=now)):
        return None
    reason = f"{standing.health.summary} after {progress.evidence.exposure.requests} requests"
    return promote(reason, verdict=release_verdict(standing, outcome=Outcome.PASS, summary=reason))


def _deadline(progress: Progress, standing: Standing, *, now: float) -> Decision | None:
    plan = progress.plan
    if progress.held or progress.started_at is None or now < progress.started_at + plan.deadline_s:
        return None
    why = standing.health.summary if standing.split_intact else standing.split.summary
    reason = f"inconclusive at the deadline: {why}"
    if plan.on_deadline is OnDeadline.HOLD:
        return Decision(type=EventType.HELD, data={"reason": reason})
    if plan.on_deadline is OnDeadline.ASK:
        verdict = release_verdict(standing, outcome=Outcome.INCONCLUSIVE, summary=reason)
        return Decision(type=EventType.ASKED, data={"reason": reason, "verdict": verdict.to_json()})
    return roll_back(Cause.DEADLINE, reason, standing=standing)


def _step(progress: Progress, standing: Standing, *, now: float) -> Decision | None:
    if progress.is_last_step or not standing.split_intact or not step_is_done(progress, now=now):
        return None
    return Decision(type=EventType.STEP_PASSED, data={"step": progress.step, "requests": progress.on_step})
