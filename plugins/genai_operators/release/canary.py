"""The controller of a release: one action for each phase, each of them harmless to repeat.

It acts, then writes down that it did (:mod:`~genai_operators.release.journal`). After a crash in between, the next
controller acts once more and writes it down; of two controllers at once, one writes and the other goes on from there.
So no step is left out, and none is taken twice. Decisions (promote, roll back) are written *before* they are carried
out.

A controller that slept for hours may wake up just before an action. So each action begins with a look whether the
journal has moved on, and every look at the gateway puts right what a late action may have changed.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Mapping

from genai_operators.exceptions import (
    GenaiError,
    LedgerConflict,
    LedgerCorrupt,
    ManifestMismatch,
    RegistryUnavailable,
    ServingFailed,
    SignatureInvalid,
    UnsafeWeights,
)
from genai_operators.release.convergence import converge
from genai_operators.release.decision import Decision, decide, decide_answer, promote, roll_back
from genai_operators.release.facts import pack
from genai_operators.release.journal import Event, EventType, Journal, Turns
from genai_operators.release.ledger import Action, Ledger, LedgerEntry, release_of
from genai_operators.release.parts import Parts
from genai_operators.release.plan import ReleasePlan
from genai_operators.release.progress import Cause, Phase, Progress
from genai_operators.serving.contract import ObservationBatch, Slot

#: Most transitions in one tick: bounds how long a tick takes, changes nothing else.
TRANSITIONS_PER_TICK = 25
#: A canary that has run for long is looked at less often: this share of the time on the step, within these bounds.
OBSERVE_SHARE = 0.01
LONGEST_OBSERVE_INTERVAL_S = 30.0
#: The servers are asked this often whether they still answer (each time they generate one token).
HEALTH_INTERVAL_S = 15.0
#: After a rollback, without any traffic, the last requests of the candidate are waited for this long.
COUNTING_TIMEOUT_S = 30.0

log = logging.getLogger(__name__)


class Controller:
    """Drives one release. Any number may run at once, anywhere; each can be thrown away at any moment."""

    def __init__(self, plan: ReleasePlan, parts: Parts, *, name: str = "") -> None:
        """:param name: stands in the events that this controller writes."""
        self.plan = plan
        self.progress = Progress.begin(plan)
        self.journal = Journal(parts.store, plan.directory)
        self._parts = parts
        self._name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._asked_health_at: float | None = None

    def tick(self) -> Progress:
        """Do what is due and return where the release stands. Blocks for a few requests at most.

        :raises GatewayUnavailable: nothing was changed; the release goes on at the next tick.
        :raises StoreUnavailable: likewise.
        """
        for _ in range(TRANSITIONS_PER_TICK):
            self.refresh()
            if self.progress.phase.ended:
                break
            decision = self._next()
            if decision is None:
                break
            self._write(decision)
        return self.progress

    def refresh(self) -> None:
        """Read what was written since."""
        for event in self.journal.after(self.progress.number):
            self.progress.apply(event)

    def now(self) -> float:
        """The clock that stands in the events."""
        return self._parts.clock()

    def cancel(self, reason: str) -> Progress:
        """Abort the release and return the champion to 100 %, unless its promotion was decided already."""
        self.journal.request_cancel(reason, at=self._parts.clock())
        return self.tick()

    def answer(self, answer: str, *, by: str) -> None:
        """What a person decided about a release that asked; the first answer counts."""
        self.refresh()
        if self.progress.phase is Phase.ASKING and self.progress.answer is None:
            self._write(Decision(type=EventType.ANSWERED, data={"answer": answer, "by": by}))

    # --- which action ------------------------------------------------------------------------------------------

    def _next(self) -> Decision | None:
        """Act as the phase demands; what happened is returned to be written down."""
        phase = self.progress.phase
        if phase not in _DECIDED and (reason := self.journal.cancel_reason()) is not None:
            return roll_back(Cause.ABORT, reason)
        try:
            return _ACTIONS[phase](self)
        except (ManifestMismatch, SignatureInvalid, UnsafeWeights) as error:
            return self._failed(Cause.VERIFICATION, error)
        except LedgerCorrupt as error:
            return self._failed(Cause.CONFLICT, error)
        except ServingFailed as error:
            return self._failed(Cause.SERVING, error)

    def _failed(self, cause: Cause, error: GenaiError) -> Decision:
        if self.progress.phase in _DECIDED:
            raise error
        return roll_back(cause, str(error))

    def _write(self, decision: Decision) -> bool:
        event = Event(
            number=self.progress.number + 1,
            type=decision.type,
            at=self._parts.clock(),
            by=self._name,
            data=decision.data,
        )
        if not self.journal.append(event):
            # Another controller went on. What this one took in meanwhile may differ from what that one wrote down.
            log.info("release %s: another controller wrote event %s first", self.plan.release, event.number)
            return False
        self.progress.apply(event)
        return True

    def _is_current(self) -> bool:
        """Is the journal still where we are? Asked right before something is changed."""
        return not self.journal.has(self.progress.number + 1)

    # --- one action for each phase -----------------------------------------------------------------------------

    def _start(self) -> Decision | None:
        now = self._parts.clock()
        turn = Turns(self._parts.store, self.plan.model).take(self.plan.release, at=now)
        if turn is None:
            return None
        epoch = len(self._ledger().verify())
        if epoch != self.plan.ledger_epoch:
            reason = f"the champion changed (ledger epoch {self.plan.ledger_epoch} -> {epoch}) before the release began"
            return roll_back(Cause.CONFLICT, f"{reason}; start a new run against the new champion")
        return Decision(type=EventType.STARTED, data={"turn": turn, "release": self.plan.release})

    def _deploy(self) -> Decision | None:
        if not self._is_current():
            return None
        plan, serving = self.plan, self._parts.serving
        self._parts.verify(plan.candidate)
        if plan.champion is None:
            serving.deploy(plan.candidate, slot=Slot.CHAMPION.value)
            return Decision(type=EventType.DEPLOYED, data={"slot": str(Slot.CHAMPION), "deployment": plan.candidate.id})
        held = serving.status().champion
        if held is None or held.id != plan.champion.id:
            self._parts.verify(plan.champion)
            serving.deploy(plan.champion, slot=Slot.CHAMPION.value)
        serving.deploy(plan.candidate, slot=Slot.CANARY.value)
        return Decision(type=EventType.DEPLOYED, data={"slot": str(Slot.CANARY), "deployment": plan.candidate.id})

    def _warm_up(self) -> Decision | None:
        plan, serving = self.plan, self._parts.serving
        waited = self._parts.clock() - (self.progress.deployed_at or 0.0)
        first = plan.champion is None
        ready = serving.ready(Slot.CHAMPION.value) and (first or serving.ready(Slot.CANARY.value))
        if ready and first:
            return promote("the first version of this model: there is no champion to compare it with")
        if ready:
            return Decision(type=EventType.READY, data={"seconds": round(waited, 3)})
        if waited > plan.ready_timeout_s:
            return roll_back(
                Cause.SERVING,
                f"{plan.candidate.id} did not answer within {plan.ready_timeout_s:.0f} s; see its log, or raise "
                "canary.startup_timeout in the model file",
            )
        return None

    def _shift(self) -> Decision | None:
        if not self._is_current():
            return None
        step = self.plan.steps[self.progress.step]
        ack = self._parts.serving.set_weight(step.percent, release=self.plan.release)
        return Decision(
            type=EventType.WEIGHT_SET,
            data={
                "step": self.progress.step,
                "percent": step.percent,
                "route_version": ack.route_version,
                "acknowledged_at": ack.acknowledged_at,
            },
        )

    def _observe(self) -> Decision | None:
        now = self._parts.clock()
        self._keep_weight()
        self._check_health(now)
        observed = self._take_in(now)
        return observed or decide(self.progress, now=now)

    def _take_in(self, now: float) -> Decision | None:
        if now < (self.progress.last_observed_at or 0.0) + self._observe_interval(now):
            return None
        batch = self._parts.serving.observations(self.progress.cursor)
        return None if batch.next == self.progress.cursor else self._observed(batch)

    def _observed(self, batch: ObservationBatch) -> Decision:
        data = {
            "since": self.progress.cursor,
            "next": batch.next,
            "facts": pack(batch.requests, batch.feedback),
            "states": self.progress.evidence.preview(batch.requests, batch.feedback),
        }
        return Decision(type=EventType.OBSERVED, data=data)

    def _ask(self) -> Decision | None:
        if self.progress.answer is None:
            self._keep_weight()
            return None
        by = next(e.data["by"] for e in reversed(self.progress.events) if e.type is EventType.ANSWERED)
        return decide_answer(self.progress.answer, by=by, standing=self.progress.evidence.standing())

    def _promote(self) -> Decision | None:
        plan, serving = self.plan, self._parts.serving
        try:
            entry = self._ledger_entry()
        except (LedgerConflict, LedgerCorrupt) as error:
            return roll_back(Cause.CONFLICT, str(error))
        if not converge(serving, plan.candidate):
            return None
        return Decision(
            type=EventType.PROMOTED, data={"epoch": entry.epoch, "sha256": entry.sha256, "alias": self._set_alias()}
        )

    def _roll_back(self) -> Decision | None:
        if self.progress.turn is None:
            return Decision(type=EventType.ROLLED_BACK)  # it never began, and another release may be under way
        if self.plan.champion is None:
            self._parts.serving.retire(Slot.CHAMPION.value)
            return Decision(type=EventType.ROLLED_BACK)
        self._parts.serving.rollback()
        return Decision(type=EventType.RETURNED)

    def _count(self) -> Decision | None:
        """The last requests of the candidate become known after it lost its traffic: wait, so that all are counted.

        Facts come in the order of completion, and the candidate's last request had ended when its server went away. So
        all are known once a request is known that arrived after that.
        """
        now, returned_at = self._parts.clock(), self.progress.returned_at or 0.0
        batch = self._parts.serving.observations(self.progress.cursor)
        if batch.next != self.progress.cursor:
            return self._observed(batch)
        complete = self.progress.evidence.newest_arrival > returned_at
        aborted = self.progress.decision.get("cause") == Cause.ABORT  # nobody waits for the figure
        if complete or aborted or now > returned_at + COUNTING_TIMEOUT_S:
            return Decision(type=EventType.ROLLED_BACK)
        return None

    # --- how ---------------------------------------------------------------------------------------------------

    def _ledger(self) -> Ledger:
        return Ledger(self._parts.store, self.plan.model, clock=self._parts.clock)

    def _ledger_entry(self) -> LedgerEntry:
        """The entry of this release, written now unless a crash or another controller left one."""
        plan, ledger = self.plan, self._ledger()
        for entry in ledger.verify()[plan.ledger_epoch :]:
            if release_of(entry) == plan.release:
                return entry
        evidence = {
            **plan.evidence,
            "release": plan.release,
            "runtime": plan.candidate.runtime,
            "report": self._parts.store.uri_of(f"{plan.directory}/report.html"),
        }
        try:
            return ledger.append(
                Action.PROMOTE,
                plan.candidate.version,
                plan.candidate.digest,
                actor=plan.actor,
                reason=str(self.progress.decision["reason"]),
                evidence=evidence,
                expected_epoch=plan.ledger_epoch,
            )
        except LedgerConflict:
            head = ledger.head()
            if head is not None and release_of(head) == plan.release:
                return head
            raise

    def _set_alias(self) -> str:
        """The alias follows the ledger; where the registry is away, reconciliation sets it within a minute."""
        try:
            self._parts.aliases.set_champion(self.plan.model, self.plan.candidate.version)
        except RegistryUnavailable as error:
            log.warning("the alias champion of %s is set later: %s", self.plan.model, error)
            return "pending"
        return "set"

    def _keep_weight(self) -> None:
        """Put the gateway right if somebody, perhaps a late controller, changed it."""
        status, plan = self._parts.serving.status(), self.plan
        if status.canary is None or status.canary.id != plan.candidate.id:
            found = "nothing" if status.canary is None else status.canary.id
            raise ServingFailed(
                f"the canary slot of {plan.model} holds {found}, not {plan.candidate.id}: it was changed by hand"
            )
        if status.percent != self.progress.percent and self._is_current():
            log.warning(
                "the gateway sent %g %% to the canary, set back to %g %%", status.percent, self.progress.percent
            )
            self._parts.serving.set_weight(self.progress.percent, release=plan.release)

    def _check_health(self, now: float) -> None:
        """A server that died for good raises; one that restarts shows in the errors."""
        if self._asked_health_at is None or now - self._asked_health_at >= HEALTH_INTERVAL_S:
            self._parts.serving.ready(Slot.CANARY.value)
            self._asked_health_at = now

    def _observe_interval(self, now: float) -> float:
        on_step = now - (self.progress.step_since or now)
        return min(on_step * OBSERVE_SHARE, LONGEST_OBSERVE_INTERVAL_S)


#: Decided already: carried out as soon as it can be, whatever comes in between.
_DECIDED = frozenset({Phase.PROMOTING, Phase.ROLLING_BACK, Phase.COUNTING})

_ACTIONS: Mapping[Phase, Callable[[Controller], Decision | None]] = {
    Phase.PLANNED: Controller._start,
    Phase.DEPLOYING: Controller._deploy,
    Phase.WARMING_UP: Controller._warm_up,
    Phase.SHIFTING: Controller._shift,
    Phase.OBSERVING: Controller._observe,
    Phase.ASKING: Controller._ask,
    Phase.PROMOTING: Controller._promote,
    Phase.ROLLING_BACK: Controller._roll_back,
    Phase.COUNTING: Controller._count,
}
