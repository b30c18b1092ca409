"""The gateway's access log: read by position, rotated, and deleted soon after it was read, for it holds prompts.

A position is ``(generation, offset)``. The gateway writes ``access.jsonl``, the newest generation. To rotate, that file
is renamed ``access.<generation>.jsonl`` and the gateway is told to open its log again; until a new ``access.jsonl``
appears the old file may still grow, afterwards never. So each line belongs to one generation, and no offset shifts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from genai_operators.serving.admin import Admin
from genai_operators.serving.gateway import access_log_path

MAX_READ_BYTES = 8 << 20

Position = tuple[int, int]

_ROTATED = re.compile(r"access\.(\d+)\.jsonl")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line without its end; ``start`` and ``end`` are the positions of its first byte and of the next line's."""

    start: Position
    end: Position
    content: bytes


class AccessLog:
    """The log files of one gateway directory."""

    def __init__(self, directory: Path, *, admin: Admin) -> None:
        self._live = access_log_path(directory)
        self._admin = admin

    def read(self, position: Position, *, until: Position | None = None) -> list[Line]:
        """Whole lines from a position on, of one generation, about :data:`MAX_READ_BYTES` at most.

        :param until: read no line that starts at or after this position.
        """
        generation, offset = position
        finished = self.is_finished(generation)
        try:
            with self._file(generation).open("rb") as file:
                file.seek(offset)
                data = file.read(MAX_READ_BYTES)
        except FileNotFoundError:
            return []
        # The last line of a finished file may lack its end: the gateway was killed while it wrote.
        keep_tail = finished and len(data) < MAX_READ_BYTES
        lines = _split(data, generation=generation, offset=offset, keep_tail=keep_tail)
        return [line for line in lines if until is None or line.start < until]

    def next_generation(self, position: Position) -> Position | None:
        """Where to go on once a generation is finished and wholly read; None while it is not."""
        generation, offset = position
        if self.is_finished(generation) and offset >= self._rotated(generation).stat().st_size:
            return generation + 1, 0
        return None

    def is_finished(self, generation: int) -> bool:
        """Was it rotated, and does the gateway write to the next one already?"""
        return self._rotated(generation).exists() and self._live.exists()

    def size(self) -> int:
        """Bytes of the file that the gateway writes; 0 when there is none."""
        return self._live.stat().st_size if self._live.exists() else 0

    def backlog(self, position: Position) -> int:
        """Bytes of the position's generation that are still to be read."""
        generation, offset = position
        path = self._file(generation)
        return path.stat().st_size - offset if path.exists() else 0

    def rotate(self, generation: int) -> None:
        """Start a new generation, or ask the gateway again to do so.

        :param generation: of the file that the gateway writes now.
        :raises GatewayUnavailable: it is down; it opens the new file when it starts.
        """
        if not self._rotated(generation).exists():
            self._live.rename(self._rotated(generation))
        if not self._live.exists():
            self._admin.reopen_logs()

    def delete_before(self, generation: int) -> None:
        """Delete what was read."""
        for path in self._live.parent.iterdir():
            if (match := _ROTATED.fullmatch(path.name)) and int(match[1]) < generation:
                path.unlink()

    def _rotated(self, generation: int) -> Path:
        return self._live.with_name(f"access.{generation:08d}.jsonl")

    def _file(self, generation: int) -> Path:
        rotated = self._rotated(generation)
        return rotated if rotated.exists() else self._live


def _split(data: bytes, *, generation: int, offset: int, keep_tail: bool) -> Iterator[Line]:
    at = 0
    while at < len(data):
        stop = data.find(b"\n", at)
        if stop < 0:
            if not keep_tail:
                return
            stop = len(data)
        after = min(stop + 1, len(data))
        yield Line(start=(generation, offset + at), end=(generation, offset + after), content=data[at:stop])
        at = after
