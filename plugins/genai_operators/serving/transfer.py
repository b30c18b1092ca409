"""From lines of the access log to numbered batches in the store: each line once, whatever dies.

The first record of a batch says which part of the log it covers, so the store itself remembers how far each model is;
the position file in the directory only saves reading again. A batch is two objects, text first. After a crash between
them the text's own record says where it ended, and the facts are made of exactly those lines.
"""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from genai_operators.exceptions import StoreUnavailable
from genai_operators.serving import batches
from genai_operators.serving.access_log import AccessLog, Line, Position
from genai_operators.serving.admin import Admin
from genai_operators.serving.capture import CapturedFeedback, CapturedRequest, LineUnreadable, parse_line
from genai_operators.serving.contract import OutputKind
from genai_operators.serving.identity import hashed, log_identity, salt_of
from genai_operators.serving.known_requests import KnownRequests, Place
from genai_operators.serving.retention import delete_old_text
from genai_operators.serving.state import StateDirectory, replace_file
from genai_operators.store import Store

log = logging.getLogger(__name__)

BACKLOG_BYTES = 1 << 20
ROTATE_BYTES = 16 << 20
# Feedback may be logged before the request that it judges: its line waits this long for it.
FEEDBACK_PATIENCE_S = 5.0
# A gateway that is killed leaves half a line; the next one writes on behind it.
LINE_BEGINS = b'{"at":"'
START: Position = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A line and what it holds."""

    line: Line
    record: CapturedRequest | CapturedFeedback | None


@dataclass(frozen=True, kw_only=True)
class Reached:
    """How far a model is: the number of its next batch, and the position up to which its lines are published."""

    number: int
    reached: Position


@dataclass(kw_only=True)
class Batch:
    """What one batch of a model will hold."""

    facts: list[dict[str, Any]] = field(default_factory=list)
    text: list[dict[str, Any]] = field(default_factory=list)


class Ingest:
    """Moves one gateway directory's log into one store. Make a new one after any failure: it finds its place again."""

    def __init__(self, *, directory: Path, store: Store, admin: Admin) -> None:
        self._directory = directory
        self._store = store
        self._states = StateDirectory(directory)
        self._salt = salt_of(directory)
        self._log_id = log_identity(self._salt)
        self._log = AccessLog(directory, admin=admin)
        self._position_path = directory / "ingest" / "position.json"
        self._known = KnownRequests(store)
        self._places: dict[str, Reached] = {}
        # Where the lines end of which a crash left a text without its facts.
        self._unfinished: Position | None = None
        self._rotated_at = time.monotonic()
        self._position = self._read_position()
        for model in store.list_names(batches.ROOT):
            self._find_place(model)

    def step(self, *, now: float) -> bool:
        """Publish what the log holds next. False when there was nothing.

        :param now: seconds since the epoch.
        """
        parsed = self._parse(self._log.read(self._position, until=self._unfinished))
        ready = parsed if self._unfinished else self._without_early_feedback(parsed, now=now)
        if not ready:
            return not parsed and self._go_to_next_generation()
        end = ready[-1].line.end
        for model, batch in self._batches(ready).items():
            self._publish(model, batch, end=end)
        self._unfinished = None
        self._go_to(end)
        return True

    def is_behind(self) -> bool:
        """Is there more than one batch's worth to read?"""
        return self._log.backlog(self._position) > BACKLOG_BYTES

    def rotate_if_due(self, *, age_s: float) -> None:
        """Rotate a log that is large, or has lasted ``age_s`` seconds, so that prompts do not stay in it."""
        size, age = self._log.size(), time.monotonic() - self._rotated_at
        if size > ROTATE_BYTES or (size > 0 and age > age_s):
            self.rotate()

    def rotate(self) -> None:
        """Start a new log file now, unless the last rotation is not over; the old file is deleted once it is read."""
        if not self._log.is_finished(self._position[0]):
            self._log.rotate(self._position[0])
            self._rotated_at = time.monotonic()

    def delete_old_text(self, *, now: float) -> None:
        """Enforce each model's retention."""
        retention = {state.model: state.retention_s for state in self._states.read_all()}
        if deleted := delete_old_text(self._store, retention_s=retention, now=now):
            log.info("Deleted %s batches of text that were older than their retention", deleted)

    # --- from lines to records ---------------------------------------------------------------------------------

    def _parse(self, lines: list[Line]) -> list[Parsed]:
        outputs = {state.model: state.output for state in self._states.read_all()} if lines else {}
        return [Parsed(line=line, record=self._record(line, outputs=outputs)) for line in lines]

    def _record(self, line: Line, *, outputs: Mapping[str, OutputKind]) -> CapturedRequest | CapturedFeedback | None:
        try:
            return parse_line(
                line.content,
                hashed=lambda value: hashed(value, salt=self._salt),
                output_of=lambda model: outputs.get(model, OutputKind.TEXT),
            )
        except LineUnreadable as error:
            if (start := line.content.rfind(LINE_BEGINS)) > 0:
                return self._record(replace(line, content=line.content[start:]), outputs=outputs)
            log.warning("The access log's line at %s is damaged (%s); passed over", line.start, error)
            return None

    def _without_early_feedback(self, parsed: list[Parsed], *, now: float) -> list[Parsed]:
        """Everything before the first feedback whose request is not in the log yet and may still come."""
        here = {item.record.fact.request_id for item in parsed if isinstance(item.record, CapturedRequest)}
        for k, item in enumerate(parsed):
            if isinstance(item.record, CapturedFeedback):
                fact = item.record.fact
                known = fact.request_id in here or self._known.place(fact.request_id)
                if not known and now - fact.at < FEEDBACK_PATIENCE_S:
                    return parsed[:k]
        return parsed

    def _batches(self, parsed: list[Parsed]) -> dict[str, Batch]:
        """Records by model, without those that a batch of their model covers already."""
        found: dict[str, Batch] = defaultdict(Batch)
        requests = {
            item.record.fact.request_id: item.record for item in parsed if isinstance(item.record, CapturedRequest)
        }
        for item in parsed:
            if isinstance(item.record, CapturedRequest):
                model, record = item.record.model, item.record
                addition = ({"kind": "request", **record.fact.to_json()}, record.text())
            elif isinstance(item.record, CapturedFeedback):
                joined = self._join(item.record, requests)
                if joined is None:
                    log.info("Feedback at %s names a request that is not known; passed over", item.line.start)
                    continue
                model, text = joined
                addition = ({"kind": "feedback", **item.record.fact.to_json()}, text)
            else:
                continue
            if item.line.start >= self._place(model).reached:
                found[model].facts.append(addition[0])
                found[model].text.append(addition[1])
        return dict(found)

    def _join(
        self, feedback: CapturedFeedback, requests: Mapping[str, CapturedRequest]
    ) -> tuple[str, dict[str, Any]] | None:
        """The model that a feedback is about, and its text with the prompt and answer that it judges."""
        request_id = feedback.fact.request_id
        if (request := requests.get(request_id)) is not None:
            return request.model, feedback.text(messages=request.messages or [], answer=request.answer)
        if (place := self._known.place(request_id)) is None:
            return None
        said = self._known.text(request_id) or {"messages": [], "answer": None}
        return place.model, feedback.text(messages=said["messages"], answer=said["answer"])

    # --- from records to objects -------------------------------------------------------------------------------

    def _publish(self, model: str, batch: Batch, *, end: Position) -> None:
        """Text, then facts. An object that exists is the one that a crash left: it was made of the same lines."""
        place = self._place(model)
        header = {
            "kind": "batch",
            "schema_version": batches.SCHEMA_VERSION,
            "log": self._log_id,
            "from": list(place.reached),
            "to": list(end),
        }
        self._store.create(batches.batch_path(model, "text", place.number), batches.encode([header, *batch.text]))
        if not self._store.create(
            batches.batch_path(model, "facts", place.number), batches.encode([header, *batch.facts])
        ):
            raise StoreUnavailable(f"another ingest wrote batch {place.number} of {model}; starting over")
        for fact in batch.facts:
            if fact["kind"] == "request":
                self._known.remember(fact["request_id"], Place(model=model, number=place.number))
        self._places[model] = Reached(number=place.number + 1, reached=end)

    def _place(self, model: str) -> Reached:
        return self._places.get(model, Reached(number=0, reached=START))

    def _find_place(self, model: str) -> None:
        """How far the store is with a model, and whether a crash left a text without its facts."""
        number = batches.next_number(self._store, model)
        self._known.load(model, end=number)
        last = batches.read_batch(self._store, model, "facts", number - 1) if number else None
        self._places[model] = Reached(number=number, reached=self._end_of(last))
        if (orphan := batches.read_batch(self._store, model, "text", number)) is not None:
            if orphan[0]["log"] == self._log_id:
                self._unfinished = self._end_of(orphan)
            else:
                self._store.delete(batches.batch_path(model, "text", number))

    def _end_of(self, records: list[dict[str, Any]] | None) -> Position:
        """Where a batch of this log ends; positions in another directory's log mean nothing here."""
        if records is None or records[0]["log"] != self._log_id:
            return START
        generation, offset = records[0]["to"]
        return int(generation), int(offset)

    # --- the position ------------------------------------------------------------------------------------------

    def _read_position(self) -> Position:
        try:
            generation, offset = json.loads(self._position_path.read_text(encoding="utf-8"))["position"]
        except FileNotFoundError:
            return START
        return int(generation), int(offset)

    def _go_to(self, position: Position) -> None:
        self._position = position
        replace_file(self._position_path, json.dumps({"position": list(position)}).encode())

    def _go_to_next_generation(self) -> bool:
        """Leave a finished file behind and delete it."""
        if (following := self._log.next_generation(self._position)) is None:
            return False
        self._go_to(following)
        self._log.delete_before(following[0])
        return True
