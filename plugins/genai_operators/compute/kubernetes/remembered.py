"""Answers that may be some seconds old, so that looking often does not mean asking often."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Remembered(Generic[Answer]):
    """Remembers answers by question, in this process, for ``seconds`` each. Safe for several threads."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._answers: dict[tuple[int, Hashable], tuple[float, Answer]] = {}
        self._lock = threading.Lock()

    def get(self, question: Hashable, ask: Callable[[], Answer]) -> Answer:
        """The remembered answer, or what ``ask`` says now. A failure is not remembered."""
        key, now = (os.getpid(), question), time.monotonic()
        with self._lock:
            known = self._answers.get(key)
            if known is not None and now - known[0] < self._seconds:
                return known[1]
        answer = ask()
        with self._lock:
            self._answers = {each: kept for each, kept in self._answers.items() if now - kept[0] < self._seconds}
            self._answers[key] = (now, answer)
        return answer
