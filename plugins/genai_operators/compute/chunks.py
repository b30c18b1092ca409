"""A growing text as numbered objects, written once each: ``log/000000.txt``, ``log/000001.txt``, ...

An object store cannot append. A reader that knows the next number needs one request to learn whether there is more,
sees every chunk exactly once, and may stop and start again anywhere.
"""

from __future__ import annotations

from genai_operators.exceptions import ObjectNotFound
from genai_operators.store import Store


class ChunkWriter:
    """Collects lines and writes them as the next chunk when told to. One writer a prefix."""

    def __init__(self, *, store: Store, prefix: str, suffix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._suffix = suffix
        self._number = 0
        self._lines: list[str] = []
        self._frozen: bytes | None = None
        self.pending_bytes = 0

    def add(self, line: str) -> None:
        """Keep a line (without its end) for the next chunk."""
        self._lines.append(line)
        self.pending_bytes += len(line) + 1

    def flush(self) -> None:
        """Write what was collected, if anything.

        A chunk that failed to be written is tried again with the same number and the same bytes. If the store says that
        it exists, the earlier try did arrive: nobody else writes here.

        :raises StoreUnavailable: the lines are kept.
        """
        if self._frozen is None:
            if not self._lines:
                return
            self._frozen = ("\n".join(self._lines) + "\n").encode("utf-8", errors="replace")
            self._lines, self.pending_bytes = [], 0
        self._store.create(chunk_path(self._prefix, self._number, self._suffix), self._frozen)
        self._frozen = None
        self._number += 1


def read_chunk(store: Store, prefix: str, number: int, suffix: str) -> list[str] | None:
    """The lines of a chunk, ``None`` while it is not written."""
    try:
        data = store.get(chunk_path(prefix, number, suffix))
    except ObjectNotFound:
        return None
    return data.decode("utf-8", errors="replace").splitlines()


def chunk_path(prefix: str, number: int, suffix: str) -> str:
    """Path of chunk ``number`` (from 0)."""
    return f"{prefix}/{number:06d}.{suffix}"
