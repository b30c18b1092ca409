"""Captured traffic, read back: what users asked, what the model answered, and what users said of it.

Batches are numbered and create-only (``traffic/<model>/text/<seq>.jsonl``), so a range of numbers always means the same
rows, until their retention deletes them. A deleted batch is passed over; its facts stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from genai_operators.exceptions import DataError, ObjectNotFound
from genai_operators.store import Store
from genai_operators.workloads.records import ROLES, Message, Record

OK = 200


class TrafficWindow(BaseModel):
    """A range of batches of a model, both ends included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: int = Field(ge=0, description="Number of the first batch.")
    last: int = Field(ge=0, description="Number of the last batch.")


@dataclass(frozen=True)
class Judged:
    """A prompt with the answer that a user found right or put in its place."""

    record: Record
    corrected: bool


def read_requests(store: Store, model: str, window: TrafficWindow) -> list[Record]:
    """Prompts that were answered with status 200, and their answers, in order of arrival.

    An answer that was not captured is empty; the prompt still counts.
    """
    found = []
    for number in range(window.first, window.last + 1):
        for line in _text_records(store, model, number):
            messages = _messages(line.get("messages"))
            if line.get("kind") == "request" and line.get("status") == OK and messages:
                answer = Message("assistant", str(line.get("answer") or ""))
                found.append(Record(str(line["request_id"]), (*messages, answer), "traffic"))
    return found


def read_feedback(store: Store, model: str, window: TrafficWindow, *, limit: int) -> list[Judged]:
    """The newest ``limit`` judgements, oldest first: the model's own answer where users said right, theirs where
    corrected.

    Batches are read backwards and no further than needed. A request that was judged twice counts as it was judged last.
    "Wrong" without a correction teaches nothing and is left out.
    """
    newest: dict[str, Judged | None] = {}
    for number in range(window.last, window.first - 1, -1):
        for line in reversed(list(_text_records(store, model, number))):
            if line.get("kind") == "feedback" and (identity := str(line["request_id"])) not in newest:
                newest[identity] = _judged(line, identity)
        if len(newest) >= limit:
            break
    return [judged for judged in reversed(list(newest.values())) if judged is not None][-limit:]


def _judged(line: dict[str, Any], identity: str) -> Judged | None:
    messages = _messages(line.get("messages"))
    correction = line.get("correction")
    answer = correction if correction is not None else line.get("answer") if line.get("rating") == "right" else None
    if not messages or answer is None:
        return None
    return Judged(
        Record(f"feedback-{identity}", (*messages, Message("assistant", str(answer))), "feedback"),
        corrected=correction is not None,
    )


def _messages(value: Any) -> tuple[Message, ...]:
    """The messages of a request; none when it holds anything but plain text messages in known roles."""
    if not isinstance(value, list):
        return ()
    for turn in value:
        if not isinstance(turn, dict) or turn.get("role") not in ROLES or not isinstance(turn.get("content"), str):
            return ()
    return tuple(Message(turn["role"], turn["content"]) for turn in value)


def _text_records(store: Store, model: str, number: int) -> Iterator[dict[str, Any]]:
    """The records of one batch, in order; none when its text was deleted."""
    path = f"traffic/{model}/text/{number:010d}.jsonl"
    try:
        content = store.get(path)
    except ObjectNotFound:
        return
    for position, line in enumerate(content.split(b"\n"), start=1):
        if not line:
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{store.uri_of(path)}, line {position}: the captured traffic is damaged ({error}). Delete the batch's "
                "text, as its retention would, and run again."
            ) from error
        yield record
