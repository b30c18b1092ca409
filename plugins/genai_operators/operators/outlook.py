"""What a retraining is about to do, in words, before anything starts; for the plan task and its dry run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genai_operators.decisions.planner import Forecast, Step, plan_steps
from genai_operators.decisions.sequential_plan import Guardrail, Plan
from genai_operators.serving import batches
from genai_operators.spec.canary import Canary
from genai_operators.spec.quantities import format_duration
from genai_operators.store import Store

#: So many of the newest batches of traffic tell its rate.
RECENT_BATCHES = 30
#: A rate that was never seen may still be above zero: this many bad ones among none (Jeffreys).
PRIOR_BAD = 0.5
PRIOR_ALL = 1.0


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Recent traffic of a model.

    :param requests_per_s: requests a second, over all variants.
    :param bad_rates: share of bad requests by guardrail; only those that the facts can tell.
    """

    requests: int
    requests_per_s: float
    bad_rates: Mapping[str, float] = field(default_factory=dict)


def recent_traffic(store: Store, model: str) -> Traffic | None:
    """What the newest facts in the store say; ``None`` without traffic."""
    end = batches.next_number(store, model)
    records = [
        record
        for number in range(max(0, end - RECENT_BATCHES), end)
        for record in batches.read_batch(store, model, "facts", number) or ()
    ]
    requests = [record for record in records if record["kind"] == "request"]
    ratings = [record["rating"] != "right" for record in records if record["kind"] == "feedback"]
    arrivals = [record["arrived_at"] for record in requests]
    if not arrivals or max(arrivals) <= min(arrivals):
        return None
    return Traffic(
        requests=len(requests),
        requests_per_s=len(requests) / (max(arrivals) - min(arrivals)),
        bad_rates={
            "errors": _rate(record["status"] >= 400 or record["timed_out"] for record in requests),
            "invalid_output": _rate(
                not record["valid_output"] for record in requests if record["valid_output"] is not None
            ),
            "negative_feedback": _rate(ratings),
        },
    )


def _rate(bad: Iterable[bool]) -> float:
    known = list(bad)
    return (sum(known) + PRIOR_BAD) / (len(known) + PRIOR_ALL)


def canary_forecast(canary: Canary, traffic: Traffic) -> Forecast:
    """What the planner says of a canary under this traffic."""
    guardrails = tuple(
        Guardrail(
            name=name,
            alpha_weight=guardrail.alpha_weight,
            harm_ratio=guardrail.harm_ratio,
            margin=guardrail.margin,
            ceiling=guardrail.ceiling,
        )
        for name, guardrail in canary.guardrails.active.items()
    )
    soak_s = sum(step.minimum_soak.total_seconds() for step in canary.steps)
    return plan_steps(
        Plan(guardrails=guardrails, alpha=canary.alpha, beta=canary.beta, minimum_soak_s=soak_s),
        steps=[
            Step(
                percent=step.percent,
                minimum_soak_s=step.minimum_soak.total_seconds(),
                minimum_requests=step.minimum_requests,
            )
            for step in canary.steps
        ],
        requests_per_s=traffic.requests_per_s,
        base_rates={
            name: min(traffic.bad_rates.get(name, 0.0), math.nextafter(1, 0)) for name in canary.guardrails.active
        },
        deadline_s=canary.deadline.total_seconds(),
    )


def canary_lines(canary: Canary, *, traffic: Traffic | None, has_champion: bool) -> list[str]:
    """The release in words: its steps, and what the planner expects of them."""
    if not has_champion:
        return ["no champion yet: the candidate takes all traffic at once, without a canary"]
    lines = [
        f"{step.percent:g} % for at least {format_duration(step.minimum_soak)} and {step.minimum_requests} requests"
        for step in canary.steps
    ]
    lines.append(f"then all traffic, if proved healthy within {format_duration(canary.deadline)}")
    if traffic is None:
        return [*lines, "no traffic seen yet, so no forecast of how long that takes"]
    lines.append(f"recent traffic: {traffic.requests_per_s:.3g} requests/s (of {traffic.requests} requests)")
    return [*lines, *canary_forecast(canary, traffic).render_text().splitlines()]


def render_table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Aligned columns for a log, one line each."""
    cells = [[str(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
