"""Which records teach and which examine, decided by the hash of the prompt.

So the same prompt is always on the same side, in every run and however much data is added, and no random state is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from genai_operators.workloads.records import Record

NEW_EVALUATION_SHARE = 0.25  # of the rows that users taught
_BITS = 32


def split(records: Sequence[Record], *, share: float, salt: str) -> tuple[list[Record], list[Record]]:
    """(kept, held out): about ``share`` of the distinct prompts are held out.

    :param salt: splits that must not depend on each other use different ones.
    """
    kept: list[Record] = []
    held_out: list[Record] = []
    for record in records:
        (held_out if _position(record, salt) < share else kept).append(record)
    return kept, held_out


def split_exactly(records: Sequence[Record], *, share: float, salt: str) -> tuple[list[Record], list[Record]]:
    """Like :func:`split`, but the share is exact: those with the smallest hashes are held out.

    For few rows, where chance would leave too few to evaluate on. A prompt may change sides when rows are added, so
    only for rows that no model has learnt yet. Copies of a prompt must have been removed.
    """
    ranked = sorted(range(len(records)), key=lambda index: _position(records[index], salt))
    chosen = set(ranked[: round(share * len(records))])
    kept = [record for index, record in enumerate(records) if index not in chosen]
    return kept, [records[index] for index in sorted(chosen)]


def _position(record: Record, salt: str) -> float:
    """A number in [0, 1) that only prompt and salt decide."""
    digest = hashlib.sha256(f"{salt}/{record.prompt_digest}".encode()).digest()
    return float(int.from_bytes(digest[: _BITS // 8], "big") / 2**_BITS)
