"""Traffic in the store: numbered, create-only batches of facts and, apart from them, of text.

    traffic/<model>/facts/<seq>.jsonl    what happened, without text; kept
    traffic/<model>/text/<seq>.jsonl     prompts, answers, corrections; deleted after the retention

One JSON object a line, told apart by ``kind``: ``batch`` (the first line: which part of the access log it covers),
``request``, ``feedback``. Numbers run from 0 without a gap. The text of a number is written before its facts, so the
facts are the commit: whoever reads facts ``n`` finds text ``n``, or it was deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

from genai_operators.exceptions import ObjectNotFound
from genai_operators.store import Store

SCHEMA_VERSION = 1
ROOT = "traffic"

Kind = Literal["facts", "text"]


def batch_path(model: str, kind: Kind, seq: int) -> str:
    return f"{ROOT}/{model}/{kind}/{seq:010d}.jsonl"


def encode(records: Iterable[dict[str, Any]]) -> bytes:
    """JSON lines in ASCII, so that no reader can mistake a character of a prompt for the end of a line."""
    return b"".join(json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n" for record in records)


def decode(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.split(b"\n") if line]


def read_batch(store: Store, model: str, kind: Kind, seq: int) -> list[dict[str, Any]] | None:
    """The records of a batch, its header first; None when there is none."""
    try:
        return decode(store.get(batch_path(model, kind, seq)))
    except ObjectNotFound:
        return None


def next_number(store: Store, model: str) -> int:
    """The number that the next batch of facts will have. It asks for a few objects and lists none."""
    if not store.exists(batch_path(model, "facts", 0)):
        return 0
    low, high = 0, 1
    while store.exists(batch_path(model, "facts", high)):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if store.exists(batch_path(model, "facts", middle)):
            low = middle
        else:
            high = middle
    return high
