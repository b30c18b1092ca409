"""The ledger: which version of a model is champion, who made it so, and why. One object an entry, never changed.

``ledger/<model>/<epoch>.json``. An entry is created with the store's create-only write, so the store itself is the
compare-and-swap: of two promoters that both saw epoch 12, one writes 13 and the other gets :class:`LedgerConflict`.
Each entry carries the sha256 of the bytes before it. The chain shows an edit, a gap or a swap; a rewrite of the whole
chain, or a cut at its end, shows only against an epoch and digest noted elsewhere (reports and task logs note them).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath

from genai_operators.exceptions import LedgerConflict, LedgerCorrupt
from genai_operators.store import Store, canonical_json, sha256_bytes

LEDGER_SCHEMA = 1
EPOCH_DIGITS = 8


class Action(StrEnum):
    """What an entry does: a new champion, back to an older one, or a version that may never be served again."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    RETIRE = "retire"


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One line of the ledger.

    :param epoch: 1 for the first entry, without gaps.
    :param version: registry version that the action is about.
    :param digest: digest of the manifest of its model directory.
    :param actor: who did it, e.g. ``support_bot__retrain/manual__2026-01-01/release``.
    :param evidence: what it rests on, by name: ``model`` (URI of the model directory in the store), ``release`` (its
        id), ``runtime``, ``report``, and whatever the caller adds. Strings only.
    :param at: seconds since the epoch.
    :param previous: sha256 of the bytes of the entry before; ``None`` for the first.
    :param sha256: of this entry's own bytes; not part of them.
    """

    model: str
    epoch: int
    action: Action
    version: int
    digest: str
    actor: str
    reason: str
    evidence: Mapping[str, str] = field(default_factory=dict)
    at: float
    previous: str | None
    sha256: str = ""

    def to_bytes(self) -> bytes:
        """The stored object; its sha256 is what the next entry names."""
        record = {"schema": LEDGER_SCHEMA, **asdict(self), "evidence": dict(self.evidence)}
        del record["sha256"]
        return canonical_json(record)

    @classmethod
    def from_bytes(cls, data: bytes) -> LedgerEntry:
        """:raises ValueError: when the bytes are not an entry of this schema."""
        try:
            record = json.loads(data)
            if record.pop("schema") != LEDGER_SCHEMA:
                raise ValueError("another schema")
            record["action"] = Action(record["action"])
            return cls(**record, sha256=sha256_bytes(data))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a ledger entry: {error!r}") from error


class Ledger:
    """The ledger of one model in a store. Reads are never cached: another process may have written."""

    def __init__(self, store: Store, model: str, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self.model = model

    def entries(self) -> list[LedgerEntry]:
        """Every entry, oldest first.

        :raises LedgerCorrupt: naming the first object that cannot be read.
        """
        return [self._read(epoch) for epoch in self._epochs()]

    def head(self) -> LedgerEntry | None:
        """The newest entry."""
        epochs = self._epochs()
        return self._read(epochs[-1]) if epochs else None

    def epoch(self) -> int:
        """Epoch of the newest entry, 0 for an empty ledger: what :meth:`append` expects."""
        epochs = self._epochs()
        return epochs[-1] if epochs else 0

    def champion(self) -> LedgerEntry | None:
        """The entry that made the present champion champion; ``None`` before the first promotion.

        :raises LedgerCorrupt: a broken chain names no champion, see :meth:`verify`.
        """
        reigns = champions(self.verify())
        return reigns[-1] if reigns else None

    def previous_champion(self) -> LedgerEntry | None:
        """Where a rollback goes: the champion before the present one that was not itself rolled back or retired.

        :raises LedgerCorrupt: see :meth:`verify`.
        """
        reigns = champions(self.verify())
        return reigns[-2] if len(reigns) > 1 else None

    def append(
        self,
        action: Action | str,
        version: int,
        digest: str,
        *,
        actor: str,
        reason: str,
        evidence: Mapping[str, str],
        expected_epoch: int,
    ) -> LedgerEntry:
        """Write the next entry, if ``expected_epoch`` is still the newest.

        :raises LedgerConflict: somebody else wrote first; read the ledger and decide again.
        :raises LedgerCorrupt: nothing is written behind a broken chain, see :meth:`verify`.
        :raises ValueError: for an action that makes no sense, such as retiring the champion.
        """
        entries = self.verify()
        head = entries[-1] if entries else None
        epoch = head.epoch if head else 0
        if epoch != expected_epoch:
            raise LedgerConflict(self._conflict(expected_epoch, head))
        action = Action(action)
        reigns = champions(entries)
        if action is Action.RETIRE and reigns and reigns[-1].version == version:
            raise ValueError(
                f"{self.model} v{version} is the champion; promote or roll back to another before retiring it"
            )
        entry = LedgerEntry(
            model=self.model,
            epoch=epoch + 1,
            action=action,
            version=version,
            digest=digest,
            actor=actor,
            reason=reason,
            evidence=dict(evidence),
            at=self._clock(),
            previous=head.sha256 if head else None,
        )
        data = entry.to_bytes()
        if not self._store.create(self._path(entry.epoch), data):
            raise LedgerConflict(self._conflict(expected_epoch, self._read(entry.epoch)))
        return LedgerEntry.from_bytes(data)

    def verify(self) -> list[LedgerEntry]:
        """Read every entry and follow the chain.

        :returns: the entries, oldest first.
        :raises LedgerCorrupt: naming the first entry that is missing, unreadable, or does not follow its predecessor.
        """
        entries: list[LedgerEntry] = []
        previous: str | None = None
        for expected, epoch in enumerate(self._epochs(), start=1):
            if epoch != expected:
                raise LedgerCorrupt(self._broken(expected, "the entry is missing"))
            entry = self._read(epoch)
            if (entry.model, entry.epoch) != (self.model, epoch):
                raise LedgerCorrupt(self._broken(epoch, f"it says {entry.model} epoch {entry.epoch}"))
            if entry.previous != previous:
                raise LedgerCorrupt(
                    self._broken(epoch, "it does not follow the entry before it; one of the two was changed")
                )
            previous = entry.sha256
            entries.append(entry)
        return entries

    def _epochs(self) -> list[int]:
        stems = (PurePosixPath(info.path).stem for info in self._store.list(f"ledger/{self.model}"))
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def _read(self, epoch: int) -> LedgerEntry:
        try:
            return LedgerEntry.from_bytes(self._store.get(self._path(epoch)))
        except ValueError as error:
            raise LedgerCorrupt(self._broken(epoch, str(error))) from error

    def _path(self, epoch: int) -> str:
        return f"ledger/{self.model}/{epoch:0{EPOCH_DIGITS}d}.json"

    def _conflict(self, expected: int, head: LedgerEntry | None) -> str:
        now = f"epoch {head.epoch}: {head.action} v{head.version} by {head.actor}" if head else "epoch 0"
        return (
            f"the ledger of {self.model} moved while this was under way: expected epoch {expected}, found {now}. "
            "Nothing was changed; look at the new champion and decide again."
        )

    def _broken(self, epoch: int, what: str) -> str:
        return (
            f"ledger of {self.model}, entry {self._store.uri_of(self._path(epoch))}: {what}. Nothing is promoted on a "
            "broken ledger; compare the store's own versions or a backup and restore the entry."
        )


def champions(entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    """The champions in force, oldest first, the present one last.

    A promotion adds one; a rollback returns to an earlier one and forgets those above it, so that two rollbacks in a
    row go back two champions; a retired version is never returned to.
    """
    reigns: list[LedgerEntry] = []
    for entry in entries:
        if entry.action is Action.RETIRE:
            reigns = [reign for reign in reigns if reign.version != entry.version]
            continue
        if entry.action is Action.ROLLBACK:
            known = [index for index, reign in enumerate(reigns) if reign.version == entry.version]
            reigns = reigns[: known[-1]] if known else reigns
        reigns.append(entry)
    return reigns


def release_of(entry: LedgerEntry | None) -> str | None:
    """Id of the release that wrote an entry, if one did."""
    return entry.evidence.get("release") if entry else None
