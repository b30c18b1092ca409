"""The model file's guardrails as a release freezes them: limits from the champion's own times are fixed here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from genai_operators.release.plan import GUARDRAILS, LONG_GAP, SLOW_FIRST_TOKEN, GuardrailPlan
from genai_operators.serving.contract import RequestFact
from genai_operators.spec.canary import DAILY_CYCLE, Canary, TimedGuardrail
from genai_operators.spec.quantities import format_duration

#: With ``limit: auto`` and too few answers of the champion to tell its times.
FALLBACK_LIMIT_MS = 2_000.0


_SHARED = {"margin", "ceiling", "harm_ratio", "alpha_weight"}
_TIMES: Mapping[str, Callable[[RequestFact], float | None]] = {
    SLOW_FIRST_TOKEN: lambda fact: fact.first_token_ms,
    LONG_GAP: lambda fact: fact.max_gap_ms,
}

Limits = Mapping[str, Mapping[float, float]]
"""In ms, by kind of guardrail and by quantile."""


def guardrail_plans(canary: Canary, *, limits_ms: Limits | None = None) -> tuple[GuardrailPlan, ...]:
    """The guardrails that are on; the model file has seen to it that they can stop a candidate.

    :param limits_ms: of :func:`time_limits`, for those with ``limit: auto``.
    """
    plans: list[GuardrailPlan] = []
    for name in GUARDRAILS:
        section = getattr(canary.guardrails, name)
        if section is None:
            continue
        if isinstance(section, TimedGuardrail):
            plans += _timed(name, section, (limits_ms or {}).get(name, {}))
        else:
            plans.append(GuardrailPlan(name=name, **section.model_dump(include=_SHARED)))
    return tuple(plans)


def time_limits(requests: Sequence[RequestFact], *, deployment: str) -> dict[str, dict[float, float]]:
    """The times, in ms, that the champion's answers were within, by share of its answers.

    Only quantiles that so many answers can tell; of several with one limit the highest, whose rate is nearest.
    """
    import numpy as np

    from genai_operators.decisions.sequential_latency import supported_quantiles

    limits = {}
    for kind, time_of in _TIMES.items():
        times = [time for f in requests if f.deployment == deployment and (time := time_of(f)) is not None]
        by_limit = {float(np.quantile(times, quantile)): quantile for quantile in supported_quantiles(len(times))}
        if by_limit:
            limits[kind] = {quantile: limit for limit, quantile in by_limit.items()}
    return limits


def limit_notes(canary: Canary, limits_ms: Limits) -> list[str]:
    """What a reader should know of limits that could not be told."""
    return [
        f"{kind}: the champion answered too little lately to tell its times, so the limit is "
        f"{FALLBACK_LIMIT_MS / 1000:g} s."
        for kind in _TIMES
        if (section := getattr(canary.guardrails, kind)) is not None and section.limit is None and kind not in limits_ms
    ]


def soak_notes(canary: Canary) -> list[str]:
    """What a ceiling that certifies before it saw a whole day does not know."""
    sections = [getattr(canary.guardrails, name) for name in GUARDRAILS]
    soak = canary.soak_before_ceiling
    if soak >= DAILY_CYCLE or not any(section is not None and section.ceiling is not None for section in sections):
        return []
    return [
        f"a ceiling may certify after {format_duration(soak)} already: it then speaks of that time, not of the "
        "daily peak; give ceiling_soak a day, and deadline more than that"
    ]


def _timed(kind: str, section: TimedGuardrail, limits_ms: Mapping[float, float]) -> list[GuardrailPlan]:
    """One guardrail with the limit that the file says, or one for each limit of the champion, sharing the weight."""
    if section.limit is not None or not limits_ms:
        limit = FALLBACK_LIMIT_MS if section.limit is None else section.limit.total_seconds() * 1000
        return [GuardrailPlan(name=kind, limit_ms=limit, **section.model_dump(include=_SHARED))]
    from genai_operators.decisions.sequential_latency import quantile_guardrail

    plans = []
    for quantile, limit_ms in limits_ms.items():
        one = quantile_guardrail(
            kind,
            quantile,
            margin=section.margin,
            alpha_weight=section.alpha_weight / len(limits_ms),
            ceiling=section.ceiling,
        )
        plans.append(
            GuardrailPlan(
                name=one.name,
                kind=kind,
                alpha_weight=one.alpha_weight,
                harm_ratio=min(section.harm_ratio, (1 + one.margin) / 2),
                margin=one.margin,
                ceiling=one.ceiling,
                limit_ms=limit_ms,
            )
        )
    return plans
