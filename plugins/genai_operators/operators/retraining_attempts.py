"""What was tried before: a model's retrainings in the store, and how each ended.

    policy/<model>/attempts/<time>-<trigger>.json     a retraining that the policy or somebody began
    policy/<model>/rejections/<time>-<run>.json       an evaluation that was against a candidate
    policy/<model>/endings/<attempt>.json             how it ended, once that is certain; create-only

The ending is read off what other parts wrote anyway: a promotion in the ledger, a release that ended without one, a
rejection. One retraining runs at a time, so what lies between an attempt and the next belongs to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from genai_operators.compute.owners import Owner
from genai_operators.decisions.policy_facts import Attempt, AttemptOutcome, Facts, PolicySettings, Trigger
from genai_operators.release.journal import TERMINAL, TURNS, EventType
from genai_operators.release.ledger import Action, Ledger
from genai_operators.store import Store

RECORD_VERSION = 1
REMEMBERED = 50
"""Newest attempts that are read: more than any budget window holds."""

_DIGITS = 10


@dataclass(frozen=True, kw_only=True)
class Began:
    """A retraining that began.

    :param name: of its record; sorts by time.
    :param decision: number of the decision that began it; ``None`` for a request.
    """

    name: str
    at: float
    trigger: Trigger
    run: str
    decision: int | None = None


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a retraining ended. :param certain: nothing later can change it."""

    outcome: AttemptOutcome
    certain: bool


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What there is to see between an attempt and the next one.

    :param promoted_at: when a promotion was written, seconds since the epoch.
    :param rejected: an evaluation or a canary was against the candidate, or somebody took its promotion back.
    :param broken: it ended for a reason that says nothing of the candidate.
    """

    promoted_at: float | None = None
    rejected: bool = False
    broken: bool = False


class Attempts:
    """The retrainings of one model."""

    def __init__(self, store: Store, model: str) -> None:
        self._store = store
        self._model = model
        self._root = f"policy/{model}"

    def begin(self, *, at: float, trigger: Trigger, run: str, decision: int | None = None) -> bool:
        """Note that a retraining begins, once a run. ``False`` if this run noted it before."""
        if any(began.run == run for began in self.began()):
            return False
        record = {"version": RECORD_VERSION, "at": at, "trigger": str(trigger), "run": run, "decision": decision}
        return self._store.create_json(f"{self._root}/attempts/{_stamp(at)}-{trigger}.json", record)

    def reject(self, owner: Owner, *, at: float) -> None:
        """Note that an evaluation was against a candidate."""
        record = {"version": RECORD_VERSION, "at": at, "run": owner.to_json()}
        self._store.create_json(f"{self._root}/rejections/{_stamp(at)}-{owner.key}.json", record)

    def began(self) -> list[Began]:
        """The newest attempts, oldest first."""
        folder = f"{self._root}/attempts"
        found = []
        for name in self._store.list_names(folder)[-REMEMBERED:]:
            record = self._store.get_json(f"{folder}/{name}")
            found.append(
                Began(
                    name=name,
                    at=record["at"],
                    trigger=Trigger(record["trigger"]),
                    run=record["run"],
                    decision=record["decision"],
                )
            )
        return found

    def history(self, facts: Facts, settings: PolicySettings, *, judged: bool, longest: timedelta) -> list[Attempt]:
        """For the policy: every attempt with its outcome. Endings that are certain now are written down.

        :param facts: of now, with the drift that the last check saw.
        :param judged: has a check judged traffic under the present champion?
        :param longest: an attempt without an ending after this time is broken.
        """
        began = [attempt for attempt in self.began() if attempt.at <= facts.now.timestamp()]
        until = [attempt.at for attempt in began[1:]] + [float("inf")] * bool(began)
        return [
            Attempt(
                at=datetime.fromtimestamp(attempt.at, UTC),
                trigger=attempt.trigger,
                outcome=self._outcome(attempt, end, facts, settings, judged=judged, longest=longest),
            )
            for attempt, end in zip(began, until, strict=True)
        ]

    def _outcome(
        self,
        attempt: Began,
        until: float,
        facts: Facts,
        settings: PolicySettings,
        *,
        judged: bool,
        longest: timedelta,
    ) -> AttemptOutcome:
        path = f"{self._root}/endings/{attempt.name}"
        known = self._store.find_json(path)
        if known is not None:
            return AttemptOutcome(known["outcome"])
        trace = self._trace(attempt.at, until)
        ending = ending_of(attempt, trace, facts=facts, settings=settings, judged=judged, longest=longest)
        if ending.certain:
            record = {"version": RECORD_VERSION, "outcome": str(ending.outcome), "at": facts.now.timestamp()}
            self._store.create_json(path, record)
        return ending.outcome

    def _trace(self, begin: float, end: float) -> Trace:
        entries = [entry for entry in Ledger(self._store, self._model).entries() if begin <= entry.at < end]
        promotions = [entry.at for entry in entries if entry.action is Action.PROMOTE]
        if promotions:
            taken_back = any(e.action is Action.ROLLBACK and e.at >= promotions[0] for e in entries)
            return Trace(rejected=True) if taken_back else Trace(promoted_at=promotions[0])
        if any(begin <= at < end for at in self._rejections()):
            return Trace(rejected=True)
        cause = self._rollback_cause(begin, end)
        if cause is None:  # one retraining at a time: where the next one began, this one had ended
            return Trace(broken=end < float("inf"))
        from genai_operators.release.progress import NOBODYS_FAULT  # it brings what drives a release; DAG files do not

        return Trace(rejected=cause not in NOBODYS_FAULT, broken=cause in NOBODYS_FAULT)

    def _rejections(self) -> list[float]:
        return [float(name.partition("-")[0]) for name in self._store.list_names(f"{self._root}/rejections")]

    def _rollback_cause(self, begin: float, end: float) -> str | None:
        """Why the release that began in this time was rolled back; ``None`` without one, or while it lives."""
        folder = f"releases/{self._model}/{TURNS}"
        for name in reversed(self._store.list_names(folder)):
            turn = self._store.get_json(f"{folder}/{name}")
            if turn["at"] < begin:
                return None
            if turn["at"] < end:
                return _cause(self._store, f"releases/{self._model}/{turn['release']}/events")
        return None


def ending_of(
    attempt: Began, trace: Trace, *, facts: Facts, settings: PolicySettings, judged: bool, longest: timedelta
) -> Ending:
    """How an attempt ended, as far as can be seen now.

    A promoted one helped if what called for it is gone and stays away for the length of the cool-down, and if a check
    could have seen it.
    """
    from genai_operators.decisions.policy import judge_attempt

    now = facts.now.timestamp()
    if trace.promoted_at is not None:
        asked = Attempt(
            at=datetime.fromtimestamp(attempt.at, UTC), trigger=attempt.trigger, outcome=AttemptOutcome.RUNNING
        )
        outcome = judge_attempt(asked, promoted=True, facts=facts, settings=settings)
        over = judged and now - trace.promoted_at >= settings.cool_down.total_seconds()
        return Ending(outcome=outcome, certain=over or outcome is AttemptOutcome.NO_HELP)
    if trace.rejected:
        return Ending(outcome=AttemptOutcome.NO_HELP, certain=True)
    if trace.broken or now > attempt.at + longest.total_seconds():
        return Ending(outcome=AttemptOutcome.BROKEN, certain=True)
    return Ending(outcome=AttemptOutcome.RUNNING, certain=False)


def _cause(store: Store, events: str) -> str | None:
    names = store.list_names(events)
    if not names or EventType(store.get_json(f"{events}/{names[-1]}")["type"]) not in TERMINAL:
        return None
    for name in reversed(names):
        event = store.get_json(f"{events}/{name}")
        if event["type"] == EventType.ROLLING_BACK:
            return str(event["data"]["cause"])
    return None


def _stamp(at: float) -> str:
    return f"{int(at):0{_DIGITS}d}"
