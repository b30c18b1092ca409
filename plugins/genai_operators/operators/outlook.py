"""What a retraining is about to do, in words, before anything starts; for the plan task and its dry run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from genai_operators.decisions.planner import Forecast, Step, plan_steps
from genai_operators.decisions.sequential_plan import Plan
from genai_operators.release.guardrails import guardrail_plans, soak_notes, time_limits
from genai_operators.release.ledger import LedgerEntry
from genai_operators.release.plan import Baseline
from genai_operators.release.starting import measure
from genai_operators.serving import batches
from genai_operators.serving.contract import STANDARD_RUNTIME, Deployment, FeedbackFact, RequestFact
from genai_operators.spec.canary import Canary
from genai_operators.spec.quantities import format_duration
from genai_operators.store import Store

#: So many of the newest batches of traffic tell its rate.
RECENT_BATCHES = 30
#: A rate of which no case was seen may still be above zero: half a case in one more request (Jeffreys).
PRIOR_BAD, PRIOR_REQUESTS = 0.5, 1.0


def recent_traffic(store: Store, champion: LedgerEntry | None, *, canary: Canary) -> Baseline | None:
    """What the champion did lately, by the newest facts in the store; ``None`` without a champion or traffic."""
    if champion is None:
        return None
    end = batches.next_number(store, champion.model)
    records = [
        record
        for number in range(max(0, end - RECENT_BATCHES), end)
        for record in batches.read_batch(store, champion.model, "facts", number) or ()
    ]
    deployment = Deployment(
        model=champion.model,
        version=champion.version,
        digest=champion.digest,
        model_dir="",
        runtime=champion.evidence.get("runtime", STANDARD_RUNTIME),
    )
    requests = [RequestFact.from_json(record) for record in records if record["kind"] == "request"]
    limits = time_limits(requests, deployment=deployment.id)
    baseline = measure(
        requests,
        [FeedbackFact.from_json(record) for record in records if record["kind"] == "feedback"],
        deployment=deployment.id,
        guardrails=guardrail_plans(canary, limits_ms=limits),
    )
    return baseline if baseline.per_second > 0 else None


def canary_forecast(canary: Canary, traffic: Baseline) -> Forecast:
    """What the planner says of a canary under this traffic."""
    guardrails = guardrail_plans(canary, limits_ms=traffic.limits_ms)
    return plan_steps(
        Plan(
            guardrails=tuple(guardrail.question() for guardrail in guardrails),
            alpha=canary.alpha,
            beta=canary.beta,
            minimum_soak_s=canary.soak_before_ceiling.total_seconds(),
        ),
        steps=[
            Step(
                percent=step.percent,
                minimum_soak_s=step.minimum_soak.total_seconds(),
                minimum_requests=step.minimum_requests,
            )
            for step in canary.steps
        ],
        requests_per_s=traffic.per_second,
        base_rates={guardrail.name: _likely_rate(traffic, guardrail.name) for guardrail in guardrails},
        deadline_s=canary.deadline.total_seconds(),
    )


def _likely_rate(traffic: Baseline, name: str) -> float:
    bad = traffic.bad.get(name, 0.0) * traffic.requests
    return min((bad + PRIOR_BAD) / (traffic.requests + PRIOR_REQUESTS), math.nextafter(1, 0))


def canary_lines(canary: Canary, *, traffic: Baseline | None, has_champion: bool) -> list[str]:
    """The release in words: its steps, and what the planner expects of them."""
    if not has_champion:
        return ["no champion yet: the candidate takes all traffic at once, without a canary"]
    lines = [
        f"{step.percent:g} % for at least {format_duration(step.minimum_soak)} and {step.minimum_requests} requests"
        for step in canary.steps
    ]
    lines.append(f"then all traffic, if proved healthy within {format_duration(canary.deadline)}")
    lines += [f"warning: {note}" for note in soak_notes(canary)]
    if traffic is None:
        return [*lines, "no traffic seen yet, so no forecast of how long that takes"]
    lines.append(f"recent traffic: {traffic.per_second:.3g} requests/s (of {traffic.requests} requests)")
    return [*lines, *canary_forecast(canary, traffic).render_text().splitlines()]


def render_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Aligned columns for a log, one line each."""
    cells = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
