"""The model file's guardrails as a release freezes them: limits from the champion's own times are fixed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from genai_operators.release.plan import GUARDRAILS, SLOW_FIRST_TOKEN, GuardrailPlan
from genai_operators.serving.contract import RequestFact
from genai_operators.spec.canary import Canary, SlowFirstToken

#: With ``limit: auto`` and too few answers of the champion to tell its times.
FALLBACK_LIMIT_MS = 2_000.0


def guardrail_plans(canary: Canary, *, limits_ms: Mapping[float, float] | None = None) -> tuple[GuardrailPlan, ...]:
    """The guardrails that are on; the model file has seen to it that they can stop a candidate.

    :param limits_ms: of :func:`first_token_limits`, for ``slow_first_token`` with ``limit: auto``.
    """
    plans: list[GuardrailPlan] = []
    for name in GUARDRAILS:
        section = getattr(canary.guardrails, name)
        if section is None:
            continue
        if isinstance(section, SlowFirstToken):
            plans += _slow_first_token(section, limits_ms or {})
        else:
            plans.append(GuardrailPlan(name=name, **section.model_dump(include=_SHARED)))
    return tuple(plans)


def first_token_limits(requests: Sequence[RequestFact], *, deployment: str) -> dict[float, float]:
    """The times to the first token, in ms, that the champion's answers came within, by share of its answers.

    Only quantiles that so many answers can tell; of several with one limit the highest, whose rate is nearest.
    """
    import numpy as np

    from genai_operators.decisions.sequential_latency import supported_quantiles

    times = [f.first_token_ms for f in requests if f.deployment == deployment and f.first_token_ms is not None]
    by_limit = {float(np.quantile(times, quantile)): quantile for quantile in supported_quantiles(len(times))}
    return {quantile: limit for limit, quantile in by_limit.items()}


_SHARED = {"margin", "ceiling", "harm_ratio", "alpha_weight"}


def _slow_first_token(section: SlowFirstToken, limits_ms: Mapping[float, float]) -> list[GuardrailPlan]:
    """One guardrail with the limit that the file says, or one for each limit of the champion, sharing the weight."""
    if section.limit is not None or not limits_ms:
        limit = FALLBACK_LIMIT_MS if section.limit is None else section.limit.total_seconds() * 1000
        return [GuardrailPlan(name=SLOW_FIRST_TOKEN, limit_ms=limit, **section.model_dump(include=_SHARED))]
    from genai_operators.decisions.sequential_latency import quantile_guardrail

    plans = []
    for quantile, limit_ms in limits_ms.items():
        one = quantile_guardrail(
            SLOW_FIRST_TOKEN,
            quantile,
            margin=section.margin,
            alpha_weight=section.alpha_weight / len(limits_ms),
            ceiling=section.ceiling,
        )
        plans.append(
            GuardrailPlan(
                name=one.name,
                kind=SLOW_FIRST_TOKEN,
                alpha_weight=one.alpha_weight,
                harm_ratio=min(section.harm_ratio, (1 + one.margin) / 2),
                margin=one.margin,
                ceiling=one.ceiling,
                limit_ms=limit_ms,
            )
        )
    return plans
