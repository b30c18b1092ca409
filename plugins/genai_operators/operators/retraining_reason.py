"""Why a retraining runs: what the policy said when it began it, or would say of one that somebody else began."""

from __future__ import annotations

from dataclasses import dataclass

from genai_operators.decisions.policy_facts import Trigger
from genai_operators.operators.policy_question import question_now
from genai_operators.operators.retraining_attempts import Attempts
from genai_operators.release.ledger import LedgerEntry
from genai_operators.spec.model import ModelSpec
from genai_operators.store import Store


@dataclass(frozen=True, kw_only=True)
class Reason:
    """:param text: one sentence, for the log and the plan's page."""

    trigger: Trigger
    text: str

    @property
    def rows_changed(self) -> bool:
        """Whether users ask, or judge, otherwise than they did: then a candidate owes more on new rows."""
        return self.trigger in (Trigger.DRIFT, Trigger.FEEDBACK)


def reason_of(
    store: Store, model: str, spec: ModelSpec, *, champion: LedgerEntry | None, by_policy: bool, now: float
) -> Reason:
    """Of a run that begins now.

    :param by_policy: was it the drift check's event that began it?
    :param now: seconds since the epoch.
    """
    if by_policy:
        return _stored_reason(store, model)
    asked = question_now(
        store,
        model,
        champion=champion,
        now=now,
        policy=spec.policy,
        minimum_new_rows=spec.data.minimum_new_rows if spec.data.feedback else 0,
    )
    return Reason(trigger=Trigger.REQUEST, text=f"by itself, the policy would say: {asked.answer().reason}")


def note_request(store: Store, model: str, *, champion: LedgerEntry | None, run: str, now: float) -> None:
    """Count a retraining that the policy did not begin in its history, once a run; a first training is none."""
    if champion is not None:
        Attempts(store, model).begin(at=now, trigger=Trigger.REQUEST, run=run)


def _stored_reason(store: Store, model: str) -> Reason:
    asked = [began for began in Attempts(store, model).began() if began.decision is not None]
    if not asked:  # somebody else's event: a DAG of their own, or by hand in the UI
        return Reason(trigger=Trigger.DRIFT, text="an event of the drift alarm began this run; no decision is stored")
    decided = store.get_json(f"policy/{model}/decisions/{asked[-1].decision:010d}.json")
    return Reason(trigger=asked[-1].trigger, text=f"the policy said: {decided['decision']['reason']}")
