"""A growing text as numbered objects, written once each: ``log/000000.txt``, ``log/000001.txt``, ...

An object store cannot append. A reader that knows the next number needs one request to learn whether there is more,
sees every chunk exactly once, and may stop and start again anywhere.
"""

from __future__ import annotations

from genai_operators.exceptions import ObjectNotFound
from genai_operators.store import Store


class ChunkWriter:
    """Collects lines and writes them as the next chunk when told to.

    One writer a prefix at a time. A process that was replaced but does not know it yet may write one more chunk: its
    number is taken then, and this writer goes on after it, so that neither's lines are lost.

    :param numbered: put a number before each line, from 1, without a gap over all chunks of the prefix.
    """

    def __init__(self, *, store: Store, prefix: str, suffix: str, numbered: bool = False) -> None:
        self._store = store
        self._prefix = prefix
        self._suffix = suffix
        self._numbered = numbered
        self._number = 0
        self._line_number = 1
        self._lines: list[str] = []
        self._frozen: list[str] = []
        self.pending_bytes = 0

    def go_on(self) -> None:
        """Continue after the chunks that are there, which another process wrote."""
        numbers = [int(stem) for name in self._store.list_names(self._prefix) if (stem := name.split(".")[0]).isdigit()]
        if numbers:
            self._number = max(numbers)
            self._pass_over(self._store.get(chunk_path(self._prefix, self._number, self._suffix)))

    def add(self, line: str) -> None:
        """Keep a line (without its end) for the next chunk."""
        self._lines.append(line)
        self.pending_bytes += len(line) + 1

    def flush(self) -> None:
        """Write what was collected, if anything.

        A chunk that failed to be written is tried again with the same number and the same bytes. If the store says that
        it exists, the earlier try did arrive, or it is the last word of a process that this one replaced.

        :raises StoreUnavailable: the lines are kept.
        """
        if not self._frozen:
            if not self._lines:
                return
            self._frozen = self._lines
            self._lines, self.pending_bytes = [], 0
        while self._frozen:
            data = self._encode(self._frozen)
            path = chunk_path(self._prefix, self._number, self._suffix)
            written = data if self._store.create(path, data) else self._store.get(path)
            if written == data:
                self._frozen = []
            self._pass_over(written)

    def _encode(self, lines: list[str]) -> bytes:
        if self._numbered:
            lines = [f"{number:06d} {line}" for number, line in enumerate(lines, start=self._line_number)]
        return ("\n".join(lines) + "\n").encode("utf-8", errors="replace")

    def _pass_over(self, chunk: bytes) -> None:
        self._number += 1
        if self._numbered:
            self._line_number = int(chunk.rstrip(b"\n").rpartition(b"\n")[2].split(b" ", 1)[0]) + 1


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
