"""Where a release stands: the fold of its events. Nothing else is remembered, so any process can go on from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from genai_operators.release.evidence import Evidence
from genai_operators.release.facts import unpack
from genai_operators.release.journal import Event, EventType, JournalCorrupt
from genai_operators.release.plan import ReleasePlan

if TYPE_CHECKING:
    from genai_operators.decisions.sequential import Exposure


class Phase(StrEnum):
    """What the release is doing; the controller has one action for each."""

    PLANNED = "planned"
    DEPLOYING = "deploying"
    WARMING_UP = "warming up"
    SHIFTING = "shifting"
    OBSERVING = "observing"
    ASKING = "asking"
    PROMOTING = "promoting"
    ROLLING_BACK = "rolling back"
    COUNTING = "counting"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled back"
    ABORTED = "aborted"

    @property
    def ended(self) -> bool:
        """Nothing more will happen."""
        return self in (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED)


class Cause(StrEnum):
    """Why a release is rolled back."""

    HARM = "harm"
    BLAST_RADIUS = "blast_radius"
    DEADLINE = "deadline"
    SERVING = "serving"
    VERIFICATION = "verification"
    CONFLICT = "conflict"
    ANSWER = "answer"
    ABORT = "abort"


NOBODYS_FAULT = frozenset({Cause.ABORT, Cause.SERVING, Cause.CONFLICT})
"""Causes that say nothing of the candidate."""

_E, _P = EventType, Phase

#: What may happen in which phase, and where it leads. ``ROLLING_BACK`` may come at any time before ``PROMOTING``, and
#: after it only when the ledger refused the promotion.
_NEXT: dict[EventType, dict[Phase, Phase]] = {
    _E.STARTED: {_P.PLANNED: _P.DEPLOYING},
    _E.DEPLOYED: {_P.DEPLOYING: _P.WARMING_UP},
    _E.READY: {_P.WARMING_UP: _P.SHIFTING},
    _E.WEIGHT_SET: {_P.SHIFTING: _P.OBSERVING},
    _E.OBSERVED: {_P.OBSERVING: _P.OBSERVING, _P.COUNTING: _P.COUNTING},
    _E.STEP_PASSED: {_P.OBSERVING: _P.SHIFTING},
    _E.HELD: {_P.OBSERVING: _P.OBSERVING},
    _E.ASKED: {_P.OBSERVING: _P.ASKING},
    _E.ANSWERED: {_P.ASKING: _P.ASKING},
    _E.PROMOTING: {_P.WARMING_UP: _P.PROMOTING, _P.OBSERVING: _P.PROMOTING, _P.ASKING: _P.PROMOTING},
    _E.PROMOTED: {_P.PROMOTING: _P.PROMOTED},
    _E.ROLLING_BACK: {
        phase: _P.ROLLING_BACK for phase in _P if not phase.ended and phase not in (_P.ROLLING_BACK, _P.COUNTING)
    },
    _E.RETURNED: {_P.ROLLING_BACK: _P.COUNTING},
    _E.ROLLED_BACK: {_P.ROLLING_BACK: _P.ROLLED_BACK, _P.COUNTING: _P.ROLLED_BACK},
}


@dataclass
class Progress:
    """A release after its first ``number`` events.

    :param step: index into the plan's steps; the one that is shifted to or observed.
    :param step_since: when its weight was acknowledged.
    :param step_on_canary: how many requests of the candidate had been judged by then.
    :param cursor: position in the traffic up to which facts were taken in.
    :param returned_at: since when the champion has all traffic again.
    :param events: what happened, without the facts of the traffic: those of a long release would fill the memory.
    :param decision: data of the ``PROMOTING`` or ``ROLLING_BACK`` event.
    """

    plan: ReleasePlan
    evidence: Evidence
    number: int = 0
    phase: Phase = Phase.PLANNED
    turn: int | None = None
    started_at: float | None = None
    deployed_at: float | None = None
    step: int = 0
    step_since: float | None = None
    step_on_canary: int = 0
    percent: float = 0.0
    cursor: int = 0
    held: bool = False
    answer: str | None = None
    last_observed_at: float | None = None
    decision: Mapping[str, Any] = field(default_factory=dict)
    returned_at: float | None = None
    epoch: int | None = None
    ended_at: float | None = None
    events: list[Event] = field(default_factory=list)

    @classmethod
    def begin(cls, plan: ReleasePlan) -> Progress:
        """Before the first event."""
        return cls(plan=plan, evidence=Evidence(plan), cursor=plan.since)

    def apply(self, event: Event, *, trust_states: bool = True) -> None:
        """Go on by one event.

        :param trust_states: take the stored statistical states instead of computing them from the facts.
        :raises JournalCorrupt: when the event does not fit.
        """
        where = f"event {event.number} ({event.type}) of release {self.plan.release}"
        if event.number != self.number + 1:
            raise JournalCorrupt(f"{where}: expected number {self.number + 1}")
        if self.phase not in _NEXT[event.type]:
            raise JournalCorrupt(f"{where} cannot happen while the release is {self.phase}")
        handler = getattr(self, f"_on_{event.type}", None)
        if handler is not None:
            handler(event, trust_states) if event.type is EventType.OBSERVED else handler(event)
        self.phase = _NEXT[event.type][self.phase]
        if event.type is EventType.ROLLED_BACK and self.decision.get("cause") == Cause.ABORT:
            self.phase = Phase.ABORTED
        if self.phase.ended:
            self.ended_at, self.percent = event.at, 0.0
        self.number = event.number
        self.events.append(_lightened(event))

    @property
    def on_step(self) -> int:
        """Requests of the candidate judged on the present step."""
        return self.evidence.settled_on_canary - self.step_on_canary

    @property
    def is_last_step(self) -> bool:
        """Whether there is no larger share to go to."""
        return self.step >= len(self.plan.steps) - 1

    def used(self, *, now: float) -> Exposure:
        """What has met the candidate so far. Its server costs from its start until the champion has all again."""
        until = now if self.returned_at is None else self.returned_at
        serving_s = 0.0 if self.deployed_at is None else max(0.0, until - self.deployed_at)
        return self.evidence.exposure.used(self.plan, serving_s=serving_s)

    # --- one handler for each event that carries something ------------------------------------------------------

    def _on_started(self, event: Event) -> None:
        self.turn, self.started_at = event.data["turn"], event.at

    def _on_deployed(self, event: Event) -> None:
        self.deployed_at = event.at

    def _on_weight_set(self, event: Event) -> None:
        self.percent, self.step_since = event.data["percent"], event.at
        self.step_on_canary = self.evidence.settled_on_canary

    def _on_observed(self, event: Event, trust_states: bool) -> None:
        requests, feedback = unpack(event.data["facts"])
        self.evidence.absorb(requests, feedback, states=event.data["states"] if trust_states else None)
        self.cursor, self.last_observed_at = event.data["next"], event.at

    def _on_step_passed(self, _event: Event) -> None:
        self.step += 1

    def _on_held(self, _event: Event) -> None:
        self.held = True

    def _on_asked(self, _event: Event) -> None:
        self.percent = 0.0

    def _on_answered(self, event: Event) -> None:
        self.answer = event.data["answer"]

    def _on_promoting(self, event: Event) -> None:
        self.decision = event.data

    def _on_rolling_back(self, event: Event) -> None:
        self.decision = event.data

    def _on_returned(self, event: Event) -> None:
        self.percent, self.returned_at = 0.0, event.at

    def _on_promoted(self, event: Event) -> None:
        self.epoch = event.data["epoch"]


def _lightened(event: Event) -> Event:
    if event.type is not EventType.OBSERVED:
        return event
    return replace(event, data={"next": event.data["next"]})
