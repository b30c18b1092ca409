"""A release in words, for the task log: a line for each event, and where it stands in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from genai_operators.release.evidence import Standing
from genai_operators.release.journal import Event, EventType
from genai_operators.release.plan import ReleasePlan
from genai_operators.release.progress import Phase, Progress

#: Largest e-value that is written out.
LARGEST_SHOWN = 1e6


def describe_event(plan: ReleasePlan, event: Event) -> str:
    """One line, with the event's number."""
    return f"[{event.number}] {_EVENTS[event.type](plan, event.data)}"


def describe_plan(plan: ReleasePlan) -> list[str]:
    """What is about to happen, by which rules."""
    candidate = f"v{plan.candidate.version} ({plan.candidate.runtime})"
    if plan.champion is None:
        return [f"release {plan.release}: {candidate} is the first version of {plan.model}; it takes all traffic"]
    steps = " -> ".join(f"{step.percent:g} %" for step in plan.steps)
    guardrails = ", ".join(_describe_guardrail(guardrail.model_dump()) for guardrail in plan.guardrails)
    baseline = plan.baseline
    rates = ", ".join(f"{name} {rate:.2%}" for name, rate in baseline.bad.items()) or "no rates known"
    lines = [
        f"release {plan.release}: {candidate} against the champion v{plan.champion.version}; {steps}, then all",
        f"guardrails: {guardrails}; alpha {plan.alpha:g}, beta {plan.beta:g}",
        f"champion until now: {baseline.requests} requests, {baseline.per_second:.1f}/s, {rates}",
        f"deadline {timedelta(seconds=round(plan.deadline_s))}, then {plan.on_deadline}; a request is judged "
        f"{plan.settle_s:.0f} s after it arrived",
    ]
    if budget := describe_budget(plan):
        lines.append(f"before it is promoted the candidate may meet, generate and cost at most {budget}")
    return [*lines, *(f"note: {note}" for note in plan.notes)]


def describe_budget(plan: ReleasePlan) -> str:
    """The blast radius in words; "" without one."""
    limits = (
        (plan.blast_requests, "requests"),
        (plan.blast_users, "users"),
        (plan.blast_tokens, "tokens"),
        (plan.blast_cost, "of money"),
    )
    return ", ".join(f"{limit:,.10g} {what}" for limit, what in limits if limit is not None)


def describe_standing(progress: Progress, *, now: float) -> str:
    """Where the release stands at this moment: step, split, counts, evidence against its bounds, what is next."""
    plan = progress.plan
    if progress.phase is Phase.PLANNED:
        return f"waiting: another release of {plan.model} is under way"
    if progress.phase is not Phase.OBSERVING:
        return f"{progress.phase}, {_ago(now, progress)}"
    standing = progress.evidence.standing()
    parts = [
        f"step {progress.step + 1} of {len(plan.steps)}, {progress.percent:g} % for {_ago(now, progress)}",
        f"{progress.evidence.exposure.requests} requests met v{plan.candidate.version}",
        *(_describe_evidence(plan, name, one) for name, one in standing.evidence.items()),
    ]
    if not standing.split_intact:
        parts.append(standing.split.summary)
    return " | ".join([*parts, _next(progress, standing, now=now)])


def describe_seconds(seconds: float) -> str:
    """A duration for people."""
    return str(timedelta(seconds=max(0, round(seconds))))


def _describe_evidence(plan: ReleasePlan, name: str, one: Any) -> str:
    counts = one.counts
    return (
        f"{name}: {counts.canary_bad}/{counts.canary} against {counts.champion_bad}/{counts.champion}, "
        f"harm {_e(one.log_harm)} of {_harm_bound(plan, name):.0f}, health {_e(one.log_health)} of {1 / plan.beta:.0f}"
    )


def _harm_bound(plan: ReleasePlan, name: str) -> float:
    total = sum(guardrail.alpha_weight for guardrail in plan.guardrails)
    guardrail = plan.guardrail(name)
    weight = guardrail.alpha_weight if guardrail else total
    return total / (plan.alpha * weight)


def _next(progress: Progress, standing: Standing, *, now: float) -> str:
    eta = eta_seconds(progress, standing, now=now)
    what = "promotion" if progress.is_last_step else f"step {progress.step + 2}"
    if not standing.split_intact:
        return "held: the split is not the asked one"
    if progress.held:
        return "held past the deadline until health or harm is proved"
    return f"{what} needs more evidence" if eta is None else f"{what} in about {describe_seconds(eta)}, if all stays so"


def eta_seconds(progress: Progress, standing: Standing, *, now: float) -> float | None:
    """Time left on this step if requests and evidence go on arriving as they did; ``None`` while that is unknown."""
    plan, since = progress.plan, progress.step_since
    if since is None or now <= since or not progress.on_step:
        return None
    step, elapsed = plan.steps[progress.step], now - since
    waits = [step.minimum_soak_s - elapsed, (step.minimum_requests - progress.on_step) * elapsed / progress.on_step]
    if progress.is_last_step:
        began = progress.deployed_at or since
        for one in standing.evidence.values():
            missing = -math.log(plan.beta) - one.log_health
            if missing > 0:
                if one.log_health <= 0:
                    return None
                waits.append(missing * (now - began) / one.log_health)
    return max(0.0, *waits)


def _ago(now: float, progress: Progress) -> str:
    since = progress.step_since or progress.deployed_at or progress.started_at or now
    return describe_seconds(now - since)


def _e(log_value: float) -> str:
    return f"{min(math.exp(min(log_value, 20.0)), LARGEST_SHOWN):.3g}"


def _describe_guardrail(guardrail: Mapping[str, Any]) -> str:
    limits = f"{guardrail['name']} below {guardrail['margin']:g} x champion"
    if guardrail["ceiling"] is not None:
        limits += f" or {guardrail['ceiling']:.2%}"
    return limits + (f" (bad: longer than {guardrail['limit_ms']:.0f} ms)" if guardrail["limit_ms"] else "")


_Words = Callable[[ReleasePlan, Mapping[str, Any]], str]

_EVENTS: Mapping[EventType, _Words] = {
    EventType.STARTED: lambda plan, data: f"started as release number {data['turn']} of {plan.model}",
    EventType.DEPLOYED: lambda plan, data: f"started {data['deployment']} in the slot {data['slot']}",
    EventType.READY: lambda plan, data: f"{plan.candidate.id} answers after {data['seconds']:.0f} s",
    EventType.WEIGHT_SET: lambda plan, data: (
        f"step {data['step'] + 1} of {len(plan.steps)}: {data['percent']:g} % of the traffic goes to "
        f"v{plan.candidate.version} (route {data['route_version']})"
    ),
    EventType.OBSERVED: lambda plan, data: f"{len(data['facts']['requests']['request_id'])} requests observed",
    EventType.STEP_PASSED: lambda plan, data: (
        f"step {data['step'] + 1} passed: {data['requests']} requests judged, no harm proved, the split is intact"
    ),
    EventType.HELD: lambda plan, data: f"held: {data['reason']}",
    EventType.ASKED: lambda plan, data: f"asking a person: {data['reason']}; the champion has all traffic meanwhile",
    EventType.ANSWERED: lambda plan, data: f"{data['by']} answered: {data['answer']}",
    EventType.PROMOTING: lambda plan, data: f"promoting v{plan.candidate.version}: {data['reason']}",
    EventType.PROMOTED: lambda plan, data: (
        f"v{plan.candidate.version} is champion (ledger epoch {data['epoch']}, sha256 {data.get('sha256', '')[:16]})"
    ),
    EventType.ROLLING_BACK: lambda plan, data: f"rolling back ({data['cause']}): {data['reason']}",
    EventType.RETURNED: lambda plan, data: "the champion has all traffic again; counting who met the candidate",
    EventType.ROLLED_BACK: lambda plan, data: "rolled back" if plan.champion else "nothing is served",
}
