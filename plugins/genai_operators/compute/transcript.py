"""What a workload says, line by line, as numbered chunks of log and of progress in the store."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from genai_operators.compute.checkpoint_time import with_longest
from genai_operators.compute.chunks import ChunkWriter
from genai_operators.compute.contract import Attempt

#: Lines are written this often, or once a tenth of the run so far: the first ones at once, for whoever waits for them.
LOG_FLUSH_S = (0.2, 1.0)
LOG_FLUSH_BYTES = 64 * 1024
TAIL_LINES = 8
#: Progress is written this often, or once a hundredth of the run so far: dense at first, sparse in a long run.
PROGRESS_FLUSH_S = (1.0, 30.0)
PROGRESS_PREFIX = "::progress "


class Transcript:
    """The log and the progress of one attempt.

    :param write: does a write to the store that may fail for now; what was not written is tried again later.
    """

    def __init__(self, attempt: Attempt, *, write: Callable[[Callable[[], None]], bool]) -> None:
        self._log = ChunkWriter(store=attempt.store, prefix=attempt.path("log"), suffix="txt", numbered=True)
        self._progress = ChunkWriter(store=attempt.store, prefix=attempt.path("progress"), suffix="jsonl")
        self._write = write
        self._began = self._last_log = self._last_progress = time.monotonic()
        #: The newest figures that the workload told.
        self.latest: dict[str, Any] = {}
        #: Its last lines.
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def go_on(self, figures: Mapping[str, Any]) -> None:
        """Continue where an earlier process of the same attempt stopped. :raises StoreUnavailable: nothing changed.

        :param figures: the newest that it told.
        """
        self._log.go_on()
        self._progress.go_on()
        self.latest = dict(figures)

    def take(self, line: str, *, besides: Mapping[str, Any]) -> None:
        """A line of the workload: progress where it says so, else log.

        :param besides: figures that others measured, to be written along with progress.
        """
        if not line.startswith(PROGRESS_PREFIX):
            self.tail.append(line)
            self._log.add(line)
            return
        try:
            figures = json.loads(line.removeprefix(PROGRESS_PREFIX))
            self.latest = with_longest(self.latest, figures)
            self._progress.add(json.dumps({**besides, **figures}, sort_keys=True))
        except (ValueError, TypeError):
            shown = line.removeprefix(PROGRESS_PREFIX)[:80]
            self.take(f"(progress that is not a JSON object: {shown})", besides={})

    def flush(self, *, everything: bool = False) -> None:
        """Write what is due."""
        now = time.monotonic()
        shortest, longest = LOG_FLUSH_S
        due = now - self._last_log >= min(max(shortest, (now - self._began) / 10), longest)
        if everything or due or self._log.pending_bytes >= LOG_FLUSH_BYTES:
            self._last_log = now
            self._write(self._log.flush)
        shortest, longest = PROGRESS_FLUSH_S
        if everything or now - self._last_progress >= min(max(shortest, (now - self._began) / 100), longest):
            self._last_progress = now
            self._write(self._progress.flush)
