"""What the retraining policy is asked: the facts of a model at one moment, from the store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from genai_operators.decisions.policy_facts import Attempt, Facts, PolicySettings, to_json
from genai_operators.decisions.verdict import Outcome
from genai_operators.operators.drift_periods import Feedback, PeriodRecord, Periods
from genai_operators.operators.feedback_counts import count_feedback, learnt_through
from genai_operators.operators.retraining_attempts import Attempts
from genai_operators.release.journal import Turns
from genai_operators.release.ledger import Action, Ledger, LedgerEntry
from genai_operators.serving import batches
from genai_operators.spec.policy import Policy
from genai_operators.store import Store

if TYPE_CHECKING:
    from genai_operators.decisions.policy import Decision

NEVER = timedelta(days=36_500)
NEVER_ROWS = 10**12


@dataclass(frozen=True, kw_only=True)
class Question:
    """Everything that a decision is taken from."""

    facts: Facts
    history: tuple[Attempt, ...]
    settings: PolicySettings

    def to_json(self) -> dict[str, Any]:
        """As the drift workload takes it, and a decision stores it."""
        return {
            "facts": to_json(self.facts),
            "history": [to_json(attempt) for attempt in self.history],
            "settings": to_json(self.settings),
        }

    def answer(self) -> Decision:
        """The policy's decision."""
        from genai_operators.decisions.policy import decide

        return decide(self.facts, self.history, self.settings)


def policy_settings(policy: Policy, *, minimum_new_rows: int) -> PolicySettings:
    """A model file's ``policy`` in the terms of :mod:`~genai_operators.decisions.policy`.

    :param minimum_new_rows: judged answers without which drift and feedback are not acted on.
    """
    return PolicySettings(
        minimum_new_rows=minimum_new_rows,
        data_rows=policy.enough_new_rows or NEVER_ROWS,
        maximum_age=policy.maximum_age or NEVER,
        feedback_margin=policy.maximum_negative_feedback or 1.0,
        cool_down=policy.cooldown,
        block=policy.block,
        longest_block=policy.longest_block,
        budget_window=policy.budget_window,
        retrainings=policy.retrainings,
    )


def question(
    store: Store,
    model: str,
    *,
    champion: LedgerEntry | None,
    feedback: Feedback | None,
    last: PeriodRecord | None,
    now: float,
    policy: Policy,
    minimum_new_rows: int,
) -> Question:
    """The facts of now, and what was tried before. Writes down how earlier retrainings ended, where that is certain.

    :param last: what the last check under this champion found.
    :param now: seconds since the epoch.
    """
    settings = policy_settings(policy, minimum_new_rows=minimum_new_rows)
    counted = feedback or Feedback(through=-1)
    facts = Facts(
        now=_moment(now),
        champion_epoch=champion.epoch if champion is not None else None,
        trained_at=_moment(min(now, _first_promotion(store, champion))) if champion is not None else None,
        drift=last is not None and last.alarmed,
        wrong=counted.wrong,
        rated=counted.rated,
        new_rows=counted.labelled,
        release_running=Turns(store, model).live() is not None,
    )
    # Whether a retraining helped is seen before the cool-down allows an alarm.
    seen = replace(facts, drift=last is not None and (last.alarmed or last.outcome == Outcome.FAIL))
    judged = last is not None and last.outcome in (Outcome.PASS, Outcome.FAIL)
    history = Attempts(store, model).history(seen, settings, judged=judged, longest=policy.longest_retraining)
    return Question(facts=facts, history=tuple(history), settings=settings)


def question_now(
    store: Store, model: str, *, champion: LedgerEntry | None, now: float, policy: Policy, minimum_new_rows: int
) -> Question:
    """:func:`question` outside a drift check, with the drift that the last check saw."""
    newest = Periods(store, model).newest(most=1)
    last = newest[-1] if newest and champion is not None and newest[-1].watch.epoch == champion.epoch else None
    feedback = None
    if champion is not None:
        feedback = feedback_of(store, champion, known=last.feedback if last else None)
    return question(
        store,
        model,
        champion=champion,
        feedback=feedback,
        last=last,
        now=now,
        policy=policy,
        minimum_new_rows=minimum_new_rows,
    )


def feedback_of(store: Store, champion: LedgerEntry, *, known: Feedback | None) -> Feedback:
    """What users said since the champion's training, up to the newest batch.

    :param known: counted by an earlier check under the same champion.
    """
    if known is None:
        dataset = champion.evidence.get("dataset")
        known = Feedback(through=learnt_through(dataset) if dataset else -1)
    return count_feedback(store, champion, known=known, through=batches.next_number(store, champion.model) - 1)


def _first_promotion(store: Store, champion: LedgerEntry) -> float:
    """When its version first became champion: a version that a rollback returned to was trained long before."""
    return min(
        entry.at
        for entry in Ledger(store, champion.model).entries()
        if entry.action is Action.PROMOTE and entry.version == champion.version
    )


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
