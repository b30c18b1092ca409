"""A backend whose attempts do what a test says. It records what it was asked to do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar

from genai_operators.compute.contract import ABSENT, Attempt, Phase, Probe
from genai_operators.compute.resources import Usage
from genai_operators.exceptions import GenaiError


class FakeBackend:
    """Attempts begin only when a test calls :meth:`begin`."""

    target: ClassVar[str] = "local"
    restarts: ClassVar[bool] = False

    def __init__(self) -> None:
        self.launched: list[int] = []
        self.stopped: list[int] = []
        self.probes: dict[int, Probe] = {}
        self.launch_error: GenaiError | None = None

    def launch(self, attempt: Attempt) -> None:
        if self.launch_error is not None:
            raise self.launch_error
        self.launched.append(attempt.number)

    def probe(self, attempt: Attempt) -> Probe:
        return self.probes.get(attempt.number, Probe(Phase.STARTING, ABSENT))

    def stop(self, attempt: Attempt) -> None:
        self.stopped.append(attempt.number)

    def describe(self) -> dict[str, Any]:
        return {"target": self.target}

    def usage(self, attempt: Attempt) -> Sequence[Usage]:
        return ()

    def begin(self, attempt: Attempt, *, at: float | None = None) -> None:
        """The attempt's supervisor is up."""
        at = time.time() if at is None else at
        attempt.store.create_json(attempt.path("started.json"), {"process": {"pid": 1}, "at": at})
        self.beat(attempt, 0)
        self.probes[attempt.number] = Probe(Phase.RUNNING)

    def beat(self, attempt: Attempt, number: int, **more: Any) -> None:
        """The supervisor says that it lives."""
        attempt.store.put_json(attempt.path("heartbeat.json"), {"beat": number, "ended": False, **more})

    def vanish(self, attempt: Attempt) -> None:
        """Every process of the attempt is gone without a word."""
        self.probes[attempt.number] = Probe(Phase.FAILED, "gone", "its process is gone")

    def stop_resumably(self, attempt: Attempt, *, code: int = 75) -> None:
        """It ended in a way that can be resumed."""
        self.beat(attempt, 99, ended=True, code=code)
        self.vanish(attempt)

    def end(self, attempt: Attempt, *, code: int, **more: Any) -> None:
        """It ended for good."""
        attempt.store.create_json(attempt.path("exit.json"), {"code": code, **more})
        self.vanish(attempt)
