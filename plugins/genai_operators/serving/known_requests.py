"""Which model answered a request, and what was said: for feedback, which names a request and nothing else."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from genai_operators.serving import batches
from genai_operators.store import Store

MAX_KNOWN = 50_000
MAX_BATCHES_LOADED = 2_000
MAX_BATCHES_HELD = 32


@dataclass(frozen=True, kw_only=True)
class Place:
    """The batch that holds a request."""

    model: str
    number: int


class KnownRequests:
    """The newest requests by hashed id. Texts stay in the store and are fetched when somebody judges them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._places: OrderedDict[str, Place] = OrderedDict()
        self._texts: OrderedDict[Place, dict[str, dict[str, Any]]] = OrderedDict()

    def remember(self, request_id: str, place: Place) -> None:
        """Note where a request is; the oldest is forgotten beyond :data:`MAX_KNOWN`."""
        self._places[request_id] = place
        if len(self._places) > MAX_KNOWN:
            self._places.popitem(last=False)

    def place(self, request_id: str) -> Place | None:
        return self._places.get(request_id)

    def text(self, request_id: str) -> dict[str, Any] | None:
        """The text record of a request; None when its batch was deleted after its retention."""
        place = self._places[request_id]
        if place not in self._texts:
            records = batches.read_batch(self._store, place.model, "text", place.number) or []
            self._texts[place] = {item["request_id"]: item for item in records if item["kind"] == "request"}
            if len(self._texts) > MAX_BATCHES_HELD:
                self._texts.popitem(last=False)
        return self._texts[place].get(request_id)

    def load(self, model: str, *, end: int) -> None:
        """Learn the newest requests of a model from its batches before number ``end``."""
        found: list[tuple[str, Place]] = []
        for number in range(end - 1, max(-1, end - 1 - MAX_BATCHES_LOADED), -1):
            records = batches.read_batch(self._store, model, "facts", number) or []
            place = Place(model=model, number=number)
            found += [(item["request_id"], place) for item in reversed(records) if item["kind"] == "request"]
            if len(found) >= MAX_KNOWN:
                break
        for request_id, place in reversed(found):
            self.remember(request_id, place)
