"""A release as something that a task waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from genai_operators.compute.watch import Poll
from genai_operators.release.canary import Controller
from genai_operators.release.journal import EventType
from genai_operators.release.ledger import Ledger
from genai_operators.release.narrate import describe_event, describe_standing
from genai_operators.release.parts import Parts
from genai_operators.release.plan import ReleasePlan
from genai_operators.release.progress import Phase, Progress
from genai_operators.store import Store

#: A line about where the release stands is shown this often while nothing happens.
STANDING_INTERVAL_S = 15.0
LONGEST_REASON = 600

STATUS_SETTLED, STATUS_ASKING = "settled", "asking"
OUTCOMES = {Phase.PROMOTED: "promoted", Phase.ROLLED_BACK: "rolled_back", Phase.ABORTED: "aborted"}

PartsFactory = Callable[[Mapping[str, Any], str, Mapping[str, Any]], Parts]


class ReleaseSubject:
    """Drives a release and says how it goes. Made anew from JSON wherever the waiting goes on."""

    def __init__(self, *, store: str, model: str, release: str, parts: Mapping[str, Any]) -> None:
        """:param parts: ``{"factory": "module:function", "settings": {...}}``, see :func:`open_parts`."""
        opened = Store.open(store)
        self.plan = ReleasePlan.load(opened, model, release)
        self.store = opened
        self._parts = open_parts(parts, model=model, serve=self.plan.serve)
        self.controller = Controller(self.plan, self._parts)
        self._shown: int | None = None
        self._to_note: int | None = None
        self._said_at: float | None = None
        self._lock = threading.Lock()
        self._cancelled = False

    def poll(self) -> Poll:
        """Do what is due; what happened since is in the lines.

        :raises GatewayUnavailable: traffic is as it was; the next poll goes on.
        """
        with self._lock:
            self._note_shown()
            if self._cancelled:
                return Poll(lines=[])
            progress = self.controller.tick()
            settled = settlement(progress, Ledger(self.store, self.plan.model))
            return Poll(lines=self._lines(progress), settled=settled)

    def cancel(self, reason: str) -> None:
        """Abort the release: the champion gets all traffic back. Nothing happens to one that is being promoted."""
        self._cancelled = True
        with self._lock:
            self.controller.cancel(reason)

    def _lines(self, progress: Progress) -> list[str]:
        shown = self._load_shown()
        new = [event for event in progress.events if event.number > shown and event.type is not EventType.OBSERVED]
        lines = [describe_event(self.plan, event) for event in new]
        now = self._parts.clock()
        if new:
            self._shown = self._to_note = new[-1].number
        if not progress.phase.ended and (new or now - (self._said_at or 0.0) >= STANDING_INTERVAL_S):
            lines.append(describe_standing(progress, now=now))
            self._said_at = now
        return lines

    def _load_shown(self) -> int:
        if self._shown is None:
            record = self.store.find_json(self._shown_path)
            self._shown = int(record["number"]) if record else 0
        return self._shown

    def _note_shown(self) -> None:
        """Lines of the last poll are in the task log by now; after a crash at most they show twice."""
        if self._to_note is not None:
            self.store.put_json(self._shown_path, {"number": self._to_note})
            self._to_note = None

    @property
    def _shown_path(self) -> str:
        return f"{self.plan.directory}/shown.json"


def settlement(progress: Progress, ledger: Ledger) -> dict[str, Any] | None:
    """How the release ended, or that it waits for a person; ``None`` while it goes on. Plain JSON, below 2 kB."""
    plan = progress.plan
    if progress.phase is Phase.ASKING and progress.answer is None:
        asked = next(event for event in reversed(progress.events) if event.type is EventType.ASKED)
        return {"status": STATUS_ASKING, "release": plan.release, "reason": asked.data["reason"][:LONGEST_REASON]}
    if not progress.phase.ended:
        return None
    champion = ledger.champion()
    exposure = progress.evidence.exposure
    used = progress.used(now=progress.ended_at or plan.created_at)
    first = plan.champion is None
    return {
        "status": STATUS_SETTLED,
        "release": plan.release,
        "outcome": OUTCOMES[progress.phase],
        "cause": progress.decision.get("cause"),
        "reason": str(progress.decision.get("reason", ""))[:LONGEST_REASON],
        "version": plan.candidate.version,
        "champion_version": champion.version if champion else None,
        "previous": None if plan.champion is None else plan.champion.version,
        "epoch": progress.epoch,
        "exposed_requests": 0 if first else exposure.requests,
        "exposed_users": 0 if first else exposure.users,
        "exposed_tokens": 0 if first else exposure.tokens,
        "canary_cost": 0.0 if first else round(used.cost, 4),
        "seconds": round((progress.ended_at or 0.0) - plan.created_at, 1),
    }


def open_parts(parts: Mapping[str, Any], *, model: str, serve: Mapping[str, Any]) -> Parts:
    """Call the factory that a description names: the layers above say what a release works with, in plain JSON.

    :param parts: ``{"factory": "module:function", "settings": {...}}``; called with the settings, ``model`` and
        ``serve``.
    :param serve: serving options as in the plan.
    """
    module, _, function = str(parts["factory"]).partition(":")
    factory: PartsFactory = getattr(import_module(module), function)
    return factory(parts["settings"], model, serve)
