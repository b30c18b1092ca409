"""Kueue, as far as Jobs and JobSets with a queue name see it."""

from __future__ import annotations

from tests.fakes.kubernetes.admission import Admission
from tests.fakes.kubernetes.storage import Store


class Kueue:
    """Suspends what names a queue, and admits it when there is quota."""

    def __init__(self, store: Store, admission: Admission, without: set[str]) -> None:
        self._store = store
        self._admission = admission
        self._without = without
        self._held = False

    def hold(self, held: bool) -> None:
        """While held, nothing is admitted."""
        self._held = held

    def evict(self, namespace: str, name: str, *, reason: str, message: str, requeue_after_s: float) -> None:
        """Take a workload's quota away."""
        raise KeyError(f"no workload {namespace}/{name}")
