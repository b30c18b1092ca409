"""How a release begins: what the champion did until now, and the plan that is frozen from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from genai_operators.compute.owners import Owner
from genai_operators.release.facts import judge, judge_feedback
from genai_operators.release.guardrails import guardrail_plans, limit_notes, soak_notes, time_limits
from genai_operators.release.ledger import Ledger, LedgerEntry, champions
from genai_operators.release.plan import (
    NEGATIVE_FEEDBACK,
    Baseline,
    GuardrailPlan,
    ReleasePlan,
    Step,
    release_id,
    serve_options_to_json,
)
from genai_operators.serving.contract import Deployment, FeedbackFact, RequestFact, ServeOptions, Serving
from genai_operators.spec.canary import Canary
from genai_operators.store import Store

#: How far back in the traffic the baseline looks, in positions of the traffic (batches on the local target).
BASELINE_POSITIONS = 300
#: A request is final after this many times the 99th percentile of the champion's durations, within these bounds.
SETTLE_FACTOR, SHORTEST_SETTLE_S, DEFAULT_SETTLE_S = 2.0, 2.0, 10.0


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What somebody wants to release, and by which rules.

    :param champion: as the ledger had it when ``ledger_epoch`` was its newest entry; ``None`` before the first.
    :param evidence: references for the ledger, see :class:`~genai_operators.release.plan.ReleasePlan`.
    """

    model: str
    owner: Owner
    candidate: Deployment
    champion: Deployment | None
    ledger_epoch: int
    canary: Canary
    serve: ServeOptions
    evidence: Mapping[str, str] = field(default_factory=dict)


def freeze_plan(
    intent: Intent, *, store: Store, serving: Serving, clock: Callable[[], float] = time.time
) -> ReleasePlan:
    """Measure the champion, write the plan; a release that has one keeps it."""
    release = release_id(intent.owner, intent.candidate)
    if (existing := ReleasePlan.find(store, intent.model, release)) is not None:
        return existing
    guardrails = guardrail_plans(intent.canary)
    position = serving.position()
    baseline = Baseline()
    if intent.champion is not None:
        batch = serving.observations(max(0, position - BASELINE_POSITIONS))
        limits = time_limits(batch.requests, deployment=intent.champion.id)
        guardrails = guardrail_plans(intent.canary, limits_ms=limits)
        baseline = measure(batch.requests, batch.feedback, deployment=intent.champion.id, guardrails=guardrails)
    rules = intent.canary
    return ReleasePlan(
        release=release,
        model=intent.model,
        owner=intent.owner,
        created_at=clock(),
        candidate=intent.candidate,
        champion=intent.champion,
        ledger_epoch=intent.ledger_epoch,
        since=position,
        steps=tuple(
            Step(
                percent=step.percent,
                minimum_soak_s=step.minimum_soak.total_seconds(),
                minimum_requests=step.minimum_requests,
            )
            for step in rules.steps
        ),
        guardrails=guardrails,
        alpha=rules.alpha,
        beta=rules.beta,
        deadline_s=rules.deadline.total_seconds(),
        on_deadline=rules.on_deadline,
        blast_requests=rules.blast_radius.requests,
        blast_users=rules.blast_radius.users,
        blast_tokens=rules.blast_radius.tokens,
        blast_cost=rules.blast_radius.cost,
        cost_per_hour=rules.blast_radius.cost_per_hour or 0.0,
        cost_per_1k_tokens=rules.blast_radius.cost_per_1k_tokens or 0.0,
        settle_s=settle_seconds(baseline, timeout_s=intent.serve.timeout_s),
        ready_timeout_s=rules.startup_timeout.total_seconds(),
        warm_up_s=rules.warm_up.total_seconds(),
        incident_window_s=rules.incident_window.total_seconds(),
        ceiling_soak_s=rules.soak_before_ceiling.total_seconds(),
        baseline=baseline,
        serve=serve_options_to_json(intent.serve),
        evidence=dict(intent.evidence),
        notes=_notes(intent, baseline, guardrails),
    ).freeze(store)


def measure(
    requests: Sequence[RequestFact],
    feedback: Sequence[FeedbackFact],
    *,
    deployment: str,
    guardrails: Sequence[GuardrailPlan],
) -> Baseline:
    """What one deployment did: rates of bad requests, time to first token, the longest request."""
    ours = [fact for fact in requests if fact.deployment == deployment]
    if not ours:
        return Baseline()
    outcomes: dict[str, list[int]] = {}
    for fact in ours:
        for name, value in judge(guardrails, fact).items():
            outcomes.setdefault(name, []).append(value)
    ids = {fact.request_id for fact in ours}
    outcomes[NEGATIVE_FEEDBACK] = [judge_feedback(fact) for fact in feedback if fact.request_id in ids]
    names = {guardrail.name for guardrail in guardrails}
    known = {name: [value for value in values if value >= 0] for name, values in outcomes.items() if name in names}
    first_tokens = sorted(fact.first_token_ms for fact in ours if fact.first_token_ms is not None)
    return Baseline(
        requests=len(ours),
        seconds=max(fact.arrived_at for fact in ours) - min(fact.arrived_at for fact in ours),
        first_token_p50_ms=_quantile(first_tokens, 0.5),
        first_token_p95_ms=_quantile(first_tokens, 0.95),
        limits_ms=time_limits(ours, deployment=deployment),
        duration_p99_ms=_quantile(sorted(fact.duration_ms for fact in ours), 0.99),
        bad={name: sum(values) / len(values) for name, values in known.items() if values},
    )


def settle_seconds(baseline: Baseline, *, timeout_s: float) -> float:
    """How long after its arrival a request is final: nothing that arrived earlier is still under way, as a rule.

    A request that takes longer still counts, only late; so a short wait costs order, not truth.
    """
    if baseline.duration_p99_ms is None:
        return min(DEFAULT_SETTLE_S, timeout_s)
    return min(max(SETTLE_FACTOR * baseline.duration_p99_ms / 1000, SHORTEST_SETTLE_S), timeout_s)


def notes(baseline: Baseline, guardrails: Sequence[GuardrailPlan]) -> list[str]:
    """What a reader should know about the plan."""
    if not baseline.requests:
        return [
            "The champion had no traffic lately: nothing is known about its rates, and a canary without traffic ends "
            "inconclusive."
        ]
    said = []
    for guardrail in guardrails:
        rate = baseline.bad.get(guardrail.name)
        if rate is None:
            said.append(
                f"{guardrail.name}: none of the last {baseline.requests} requests says anything about it, but "
                "promotion needs it proved acceptable."
            )
        elif guardrail.ceiling is not None and rate > guardrail.ceiling:
            said.append(
                f"{guardrail.name}: the champion itself is at {rate:.2%}, above the ceiling of "
                f"{guardrail.ceiling:.2%}; only the comparison can prove the candidate acceptable."
            )
    return said


def _notes(intent: Intent, baseline: Baseline, guardrails: Sequence[GuardrailPlan]) -> tuple[str, ...]:
    if intent.champion is None:
        return ()
    canary = intent.canary
    return (*notes(baseline, guardrails), *limit_notes(canary, baseline.limits_ms), *soak_notes(canary))


def champion_of(ledger: Ledger) -> tuple[int, LedgerEntry | None]:
    """Epoch of the verified ledger, and the champion's entry (``None`` before the first): read at one moment."""
    entries = ledger.verify()
    reigns = champions(entries)
    return (entries[-1].epoch if entries else 0), (reigns[-1] if reigns else None)


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
