"""Back to an earlier version, at once: verified, started beside the champion, then given all traffic.

Nothing is remembered but the ledger and the gateway: whoever goes on reads there how far it came.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from genai_operators.compute.owners import Owner
from genai_operators.compute.watch import Poll
from genai_operators.exceptions import GateFailed, RegistryUnavailable
from genai_operators.release.canary import Controller
from genai_operators.release.convergence import converge
from genai_operators.release.journal import Turns
from genai_operators.release.ledger import Action, Ledger, LedgerEntry
from genai_operators.release.parts import Parts
from genai_operators.release.plan import ReleasePlan
from genai_operators.release.rollback_report import previous_version
from genai_operators.release.subject import STATUS_SETTLED, open_parts
from genai_operators.serving.contract import Deployment, Slot
from genai_operators.store import Store

#: In the evidence of a ledger entry: which rollback wrote it.
REQUEST = "request"
PENDING_PREFIX = "rollbacks"


@dataclass(frozen=True, kw_only=True)
class PendingRollback:
    """A rollback that somebody waits for: until it ends, the target in the canary slot is no leftover."""

    model: str
    owner: Owner

    def remember(self, store: Store) -> None:
        """Written before anything is started."""
        store.put_json(self._path, {"owner": self.owner.to_json()})

    def forget(self, store: Store) -> None:
        """It has ended, one way or the other."""
        store.delete(self._path)

    @property
    def _path(self) -> str:
        return f"{PENDING_PREFIX}/{self.model}/{self.owner.key}.json"


def pending_rollbacks(store: Store, model: str) -> Iterator[PendingRollback]:
    """Rollbacks of a model that have not ended, as far as they know themselves."""
    for info in store.list(f"{PENDING_PREFIX}/{model}"):
        record = store.find_json(info.path)
        if record is not None:
            yield PendingRollback(model=model, owner=Owner.from_json(record["owner"]))


class RollbackSubject:
    """A rollback as something that a task waits for. Made anew from JSON wherever the waiting goes on."""

    def __init__(
        self,
        *,
        store: str,
        target: Mapping[str, Any],
        expected_epoch: int,
        owner: Mapping[str, Any],
        reason: str,
        serve: Mapping[str, Any],
        ready_timeout_s: float,
        began_at: float,
        parts: Mapping[str, Any],
    ) -> None:
        """All arguments are plain JSON.

        :param target: the deployment that takes over.
        :param expected_epoch: newest epoch of the ledger when the target was chosen.
        :param owner: the task run that wants it; a repetition finds its own entry in the ledger.
        :param parts: see :func:`~genai_operators.release.subject.open_parts`.
        """
        self._store = Store.open(store)
        self._target = Deployment.from_json(target)
        self._ledger = Ledger(self._store, self._target.model)
        self._expected_epoch = expected_epoch
        self._owner, self._reason = Owner.from_json(owner), reason
        self._pending = PendingRollback(model=self._target.model, owner=self._owner)
        self._ready_timeout_s, self._began_at = ready_timeout_s, began_at
        self._description = parts
        self._serve = serve
        self._lock = threading.Lock()
        self._said: set[str] = set()

    def poll(self) -> Poll:
        """One step: stop a release under way, start the target, write the ledger, give it the traffic, set the alias.

        :raises GateFailed: the target does not answer in time; the champion serves on.
        :raises LedgerConflict: somebody promoted another version meanwhile.
        """
        with self._lock:
            lines: list[str] = []
            self._pending.remember(self._store)
            if not self._stop_release(lines):
                return Poll(lines=lines)
            parts = self._parts()
            entry = self._own_entry()
            if entry is None and not self._warm(parts, lines):
                return Poll(lines=lines)
            entry = entry or self._append()
            if not converge(parts.serving, self._target):
                return Poll(lines=lines)
            lines += self._set_alias(parts)
            self._pending.forget(self._store)
            lines.append(f"v{self._target.version} is champion again (ledger epoch {entry.epoch})")
            return Poll(lines=lines, settled=self._settlement(entry))

    def cancel(self, reason: str) -> None:
        """Nobody waits any more. A target that is warming up goes away; one that is in the ledger stays."""
        with self._lock:
            if self._own_entry() is None:
                parts = self._parts()
                canary = parts.serving.status().canary
                if canary is not None and canary.id == self._target.id:
                    parts.serving.rollback()
                self._pending.forget(self._store)

    def _stop_release(self, lines: list[str]) -> bool:
        model = self._target.model
        live = Turns(self._store, model).live()
        if live is None:
            return True
        plan = ReleasePlan.load(self._store, model, live)
        self._say(lines, f"stopping release {live} of v{plan.candidate.version} first")
        controller = Controller(plan, open_parts(self._description, model=model, serve=plan.serve))
        return controller.cancel(f"a rollback to v{self._target.version} was asked for").phase.ended

    def _warm(self, parts: Parts, lines: list[str]) -> bool:
        serving, target = parts.serving, self._target
        status = serving.status()
        if status.champion is not None and status.champion.id == target.id:
            return True
        if status.canary is None or status.canary.id != target.id:
            parts.verify(target)
            slot = Slot.CHAMPION if status.champion is None else Slot.CANARY
            serving.deploy(target, slot=slot.value)
            self._say(lines, f"starting {target.id}; the champion serves on meanwhile")
        slot = Slot.CHAMPION if status.champion is None else Slot.CANARY
        if serving.ready(slot.value):
            return True
        if parts.clock() - self._began_at > self._ready_timeout_s:
            serving.rollback()
            self._pending.forget(self._store)
            raise GateFailed(
                f"{target.id} did not answer within {self._ready_timeout_s:.0f} s; the champion serves on. See its "
                "log, or roll back to another version."
            )
        return False

    def _append(self) -> LedgerEntry:
        return self._ledger.append(
            Action.ROLLBACK,
            self._target.version,
            self._target.digest,
            actor=f"{self._owner.dag_id}/{self._owner.run_id}/{self._owner.task_id}",
            reason=self._reason,
            evidence={**self._evidence(), REQUEST: self._owner.key, "runtime": self._target.runtime},
            expected_epoch=self._expected_epoch,
        )

    def _own_entry(self) -> LedgerEntry | None:
        for entry in self._ledger.verify()[self._expected_epoch :]:
            if entry.evidence.get(REQUEST) == self._owner.key:
                return entry
        return None

    def _evidence(self) -> dict[str, str]:
        """What stood with the version when it was champion before."""
        known = [entry for entry in self._ledger.entries() if entry.version == self._target.version]
        return dict(known[-1].evidence) if known else {}

    def _set_alias(self, parts: Parts) -> list[str]:
        """The alias follows the ledger; where the registry is away, reconciliation sets it within a minute."""
        try:
            parts.aliases.set_champion(self._target.model, self._target.version)
        except RegistryUnavailable as error:
            return [f"the alias champion is set later: {error}"]
        return []

    def _settlement(self, entry: LedgerEntry) -> dict[str, Any]:
        return {
            "status": STATUS_SETTLED,
            "outcome": "rolled_back",
            "champion_version": entry.version,
            "previous": previous_version([one for one in self._ledger.verify() if one.epoch <= entry.epoch]),
            "digest": entry.digest,
            "epoch": entry.epoch,
            "reason": entry.reason,
        }

    def _parts(self) -> Parts:
        return open_parts(self._description, model=self._target.model, serve=self._serve)

    def _say(self, lines: list[str], line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            lines.append(line)
