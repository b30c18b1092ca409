"""From a request's facts to what the statistics count: what went wrong, and what it shares with other failures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genai_operators.release.plan import (
    ERRORS,
    INVALID_OUTPUT,
    LONG_GAP,
    NEGATIVE_FEEDBACK,
    REFUSAL,
    SLOW_FIRST_TOKEN,
    GuardrailPlan,
    ReleasePlan,
)
from genai_operators.serving.contract import FeedbackFact, RequestFact

BAD, GOOD, NOT_APPLICABLE = 1, 0, -1

CLIENT_LEFT = 499
#: The server could not be reached, or broke off in the middle: such failures come in bursts, from one outage.
UNREACHABLE = frozenset({502, 503, 504})


def judge(guardrails: Iterable[GuardrailPlan], fact: RequestFact) -> dict[str, int]:
    """1 (bad), 0 (good) or -1 (says nothing) for each guardrail, feedback left out: it comes later."""
    return {
        guardrail.name: _RULES[guardrail.judged_as](fact, guardrail.limit_ms)
        for guardrail in guardrails
        if guardrail.judged_as != NEGATIVE_FEEDBACK
    }


def judge_feedback(fact: FeedbackFact) -> int:
    """1 when the user said that the answer was wrong."""
    return BAD if fact.rating == "wrong" or fact.corrected else GOOD


def cause_of(fact: RequestFact) -> str | None:
    """What this failure shares with others of one outage: the server. ``None``: it is the request's own."""
    if fact.timed_out or fact.status == CLIENT_LEFT:
        return None
    return fact.deployment if fact.attempts == 0 or fact.status in UNREACHABLE else None


def is_drawn(fact: RequestFact) -> bool:
    """Did the gateway choose the arm? Only such requests compare the arms.

    Those that it sent while one arm had no weight belong to them: one on that arm shows that the split is not what it
    says.
    """
    return fact.assigned


def belongs(plan: ReleasePlan, fact: RequestFact) -> bool:
    """Was it answered by one of the two deployments of this release? Stragglers of an earlier one are not ours."""
    if fact.variant == "canary":
        return fact.deployment == plan.candidate.id
    return plan.champion is not None and fact.deployment == plan.champion.id


def _error(fact: RequestFact, _limit_ms: float | None) -> int:
    if fact.status == CLIENT_LEFT:
        return NOT_APPLICABLE
    # A retry hides a failure (measured: 30 % failing attempts looked like 0.6 %), so a second attempt is a failure.
    return BAD if fact.timed_out or fact.attempts > 1 or not 200 <= fact.status < 400 else GOOD


def _invalid_output(fact: RequestFact, _limit_ms: float | None) -> int:
    return NOT_APPLICABLE if fact.valid_output is None else int(not fact.valid_output)


def _refusal(fact: RequestFact, _limit_ms: float | None) -> int:
    return NOT_APPLICABLE if fact.refused is None else int(fact.refused)


def _slow_first_token(fact: RequestFact, limit_ms: float | None) -> int:
    if fact.timed_out:
        return BAD
    if fact.first_token_ms is None or limit_ms is None:
        return NOT_APPLICABLE
    return int(fact.first_token_ms > limit_ms)


def _long_gap(fact: RequestFact, limit_ms: float | None) -> int:
    if fact.max_gap_ms is None or limit_ms is None:
        return NOT_APPLICABLE
    return int(fact.max_gap_ms > limit_ms)


_RULES = {
    ERRORS: _error,
    INVALID_OUTPUT: _invalid_output,
    REFUSAL: _refusal,
    SLOW_FIRST_TOKEN: _slow_first_token,
    LONG_GAP: _long_gap,
}


# --- records -----------------------------------------------------------------------------------------------------

_REQUEST_FIELDS = tuple(field.name for field in dataclasses.fields(RequestFact))
_FEEDBACK_FIELDS = tuple(field.name for field in dataclasses.fields(FeedbackFact))


def pack(requests: Sequence[RequestFact], feedback: Sequence[FeedbackFact]) -> dict[str, Any]:
    """Facts as columns, plain JSON: what an event stores, so that every decision can be taken again from it."""
    return {"requests": _columns(requests, _REQUEST_FIELDS), "feedback": _columns(feedback, _FEEDBACK_FIELDS)}


def unpack(record: Mapping[str, Any]) -> tuple[list[RequestFact], list[FeedbackFact]]:
    """Inverse of :func:`pack`."""
    requests = [RequestFact.from_json(row) for row in _rows(record["requests"])]
    return requests, [FeedbackFact.from_json(row) for row in _rows(record["feedback"])]


def _columns(facts: Iterable[Any], names: Sequence[str]) -> dict[str, list[Any]]:
    facts = list(facts)
    return {name: [getattr(fact, name) for fact in facts] for name in names}


def _rows(columns: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
