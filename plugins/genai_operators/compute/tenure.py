"""Is this process still the attempt? Others may have taken it for dead, replaced it, or removed everything."""

from __future__ import annotations

from collections.abc import Callable

from genai_operators.compute.beginning import Start, is_superseded
from genai_operators.compute.contract import Attempt
from genai_operators.exceptions import StoreUnavailable


class Tenure:
    """Of one process of one attempt. While the store does not answer it holds; the lease bounds for how long."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.start = Start(0)

    def is_superseded(self) -> bool:
        """Whether the platform started another process in its place."""
        return _ask(lambda: is_superseded(self._attempt, self.start))

    def has_successor(self) -> bool:
        """Whether the next attempt has been claimed."""
        attempt = self._attempt
        successor = Attempt(store=attempt.store, directory=attempt.directory, number=attempt.number + 1)
        return _ask(lambda: attempt.store.exists(successor.path("claim.json")))

    def is_orphan(self) -> bool:
        """Whether somebody removed the store (``rm -r .run``): nobody can ever ask for the result, or for a stop."""
        return _ask(lambda: not self._attempt.store.exists(self._attempt.path("claim.json")))


def _ask(question: Callable[[], bool]) -> bool:
    try:
        return question()
    except StoreUnavailable:
        return False
