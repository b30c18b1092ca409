"""A backend whose attempts do what a test says. It records what it was asked to do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar

from genai_operators.compute.contract import ABSENT, Attempt, Phase, Probe
from genai_operators.compute.resources import Resources, Usage
from genai_operators.exceptions import GenaiError


class FakeBackend:
    """Attempts begin only when a test calls :meth:`begin`."""

    target: ClassVar[str] = "local"
    restarts: ClassVar[bool] = False

    def __init__(self) -> None:
        self.launched: list[int] = []
        self.asked: dict[int, Resources] = {}
        self.stopped: list[int] = []
        self.probes: dict[int, Probe] = {}
        self.used: dict[int, list[Usage]] = {}
        self.launch_error: GenaiError | None = None

    def launch(self, attempt: Attempt) -> None:
        if self.launch_error is not None:
            raise self.launch_error
        self.launched.append(attempt.number)
        self.asked[attempt.number] = attempt.resources

    def probe(self, attempt: Attempt) -> Probe:
        return self.probes.get(attempt.number, Probe(Phase.STARTING, ABSENT))

    def stop(self, attempt: Attempt) -> None:
        self.stopped.append(attempt.number)

    def describe(self) -> dict[str, Any]:
        return {"target": self.target}

    def usage(self, attempt: Attempt) -> Sequence[Usage]:
        return self.used.get(attempt.number, ())

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

    def stop_resumably(self, attempt: Attempt, *, code: int = 75, **more: Any) -> None:
        """It ended in a way that can be resumed."""
        self.beat(attempt, 99, ended=True, code=code, **more)
        self.vanish(attempt)

    def end(self, attempt: Attempt, *, code: int | None, **more: Any) -> None:
        """It ended for good."""
        attempt.store.create_json(attempt.path("exit.json"), {"code": code, **more})
        self.vanish(attempt)


class FakeCluster(FakeBackend):
    """A platform that replaces what it takes away. The same description opens the same one, as with a real cluster."""

    target: ClassVar[str] = "fake"
    restarts: ClassVar[bool] = True
    opened: ClassVar[dict[str, FakeCluster]] = {}

    def __new__(cls, *, name: str) -> FakeCluster:
        return cls.opened.setdefault(name, super().__new__(cls))

    def __init__(self, *, name: str) -> None:
        if not hasattr(self, "name"):
            super().__init__()
            self.name = name

    def describe(self) -> dict[str, Any]:
        return {"target": self.target, "name": self.name}

    def stop(self, attempt: Attempt) -> None:
        super().stop(attempt)
        self.vanish(attempt)

    def take_away(self, attempt: Attempt) -> None:
        """The machine goes; the workload had time for a checkpoint."""
        self.beat(attempt, 99, ended=True, code=75)
        self.probes[attempt.number] = Probe(Phase.PREEMPTED, "preempted", "its node was preempted")

    def replace(self, attempt: Attempt, *, number: int, step: int, stalls: int) -> None:
        """The next process of the attempt is up."""
        record = {"incarnation": f"pod-{number}", "process": {"pid": 1}, "step": step, "stalls": stalls}
        attempt.store.create_json(attempt.path(f"starts/{number}.json"), record)
        self.beat(attempt, 100 * number, start=number)
        self.probes[attempt.number] = Probe(Phase.RUNNING)
