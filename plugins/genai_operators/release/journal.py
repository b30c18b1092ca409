"""What happened to a release: numbered events, each written once. The next number is the compare-and-swap.

``releases/<model>/<id>/events/<k>.json``. A controller decides from the events it has read and writes its decision as
event k; if another controller was faster, the write fails, and the decision is taken anew from what that one wrote.
``releases/<model>/turns/<n>.json`` names the n-th release of a model: one at a time, in turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from genai_operators.exceptions import GenaiError
from genai_operators.store import Store

EVENT_SCHEMA = 1
EVENT_DIGITS = 6
TURN_DIGITS = 8
TURNS = "turns"


class EventType(StrEnum):
    """What an event says happened. Those in ``-ING`` are decisions, carried out until the next event says so."""

    STARTED = "started"
    DEPLOYED = "deployed"
    READY = "ready"
    WEIGHT_SET = "weight_set"
    OBSERVED = "observed"
    STEP_PASSED = "step_passed"
    HELD = "held"
    ASKED = "asked"
    ANSWERED = "answered"
    PROMOTING = "promoting"
    PROMOTED = "promoted"
    ROLLING_BACK = "rolling_back"
    RETURNED = "returned"
    ROLLED_BACK = "rolled_back"


TERMINAL = frozenset({EventType.PROMOTED, EventType.ROLLED_BACK})


class JournalCorrupt(GenaiError):
    """An event cannot be read, or does not fit what came before it. A retry does not help: look at the named event."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event.

    :param number: from 1, without gaps.
    :param at: the controller's clock, seconds since the epoch.
    :param by: which controller wrote it.
    :param data: what the event says, plain JSON; see :mod:`genai_operators.release.progress`.
    """

    number: int
    type: EventType
    at: float
    by: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "schema": EVENT_SCHEMA,
            "number": self.number,
            "type": str(self.type),
            "at": self.at,
            "by": self.by,
            "data": dict(self.data),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Event:
        """:raises ValueError: for a record of another schema or version of this code."""
        if record.get("schema") != EVENT_SCHEMA:
            raise ValueError(f"it has schema {record.get('schema')!r}, this code reads {EVENT_SCHEMA}")
        return cls(
            number=record["number"],
            type=EventType(record["type"]),
            at=record["at"],
            by=record["by"],
            data=record["data"],
        )


class Journal:
    """The events of one release."""

    def __init__(self, store: Store, directory: str) -> None:
        """:param directory: ``releases/<model>/<id>``."""
        self._store = store
        self._directory = directory

    def append(self, event: Event) -> bool:
        """Write an event; ``False`` if its number is taken: somebody else went on first."""
        return self._store.create_json(self._path(event.number), event.to_json())

    def after(self, number: int) -> Iterator[Event]:
        """Events above ``number``, in order.

        :raises JournalCorrupt: naming the first that cannot be read.
        """
        while (record := self._store.find_json(self._path(number + 1))) is not None:
            number += 1
            try:
                yield Event.from_json(record)
            except (ValueError, KeyError, AttributeError) as error:
                where = self._store.uri_of(self._path(number))
                raise JournalCorrupt(
                    f"{where} cannot be read: {error}. It was edited, or written by another version of this code; "
                    "restore it, or run the version that wrote it"
                ) from error

    def has(self, number: int) -> bool:
        """Whether an event of this number was written."""
        return self._store.exists(self._path(number))

    def request_cancel(self, reason: str, *, at: float) -> bool:
        """Ask whoever drives the release to abort it; the first reason stands."""
        return self._store.create_json(f"{self._directory}/cancel.json", {"reason": reason, "at": at})

    def cancel_reason(self) -> str | None:
        """Why the release is to be aborted, if it is."""
        record = self._store.find_json(f"{self._directory}/cancel.json")
        return None if record is None else str(record["reason"])

    def _path(self, number: int) -> str:
        return f"{self._directory}/events/{number:0{EVENT_DIGITS}d}.json"


class Turns:
    """Which releases a model had, in order. The next turn can be taken once the last release has ended."""

    def __init__(self, store: Store, model: str) -> None:
        self._store = store
        self._folder = f"releases/{model}/{TURNS}"
        self._model = model

    def last(self) -> tuple[int, str] | None:
        """Number and id of the newest release."""
        names = [name for name in self._store.list_names(self._folder) if name.endswith(".json")]
        if not names:
            return None
        return int(PurePosixPath(names[-1]).stem), str(self._store.get_json(f"{self._folder}/{names[-1]}")["release"])

    def all(self) -> list[str]:
        """Ids of all releases, oldest first."""
        return [str(self._store.get_json(info.path)["release"]) for info in self._store.list(self._folder)]

    def take(self, release: str, *, at: float) -> int | None:
        """The turn of ``release``; ``None`` while another release is under way, or just took the turn."""
        last = self.last()
        if last is not None and last[1] == release:
            return last[0]
        if last is not None and not self._ended(last[1]):
            return None
        number = (last[0] if last else 0) + 1
        taken = self._store.create_json(f"{self._folder}/{number:0{TURN_DIGITS}d}.json", {"release": release, "at": at})
        return number if taken else None

    def live(self) -> str | None:
        """The release that is under way, if one is."""
        last = self.last()
        return None if last is None or self._ended(last[1]) else last[1]

    def _ended(self, release: str) -> bool:
        names = self._store.list_names(f"releases/{self._model}/{release}/events")
        if not names:
            return False
        record = self._store.get_json(f"releases/{self._model}/{release}/events/{names[-1]}")
        return EventType(record["type"]) in TERMINAL
