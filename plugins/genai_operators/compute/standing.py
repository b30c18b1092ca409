"""Where a workload stands, how it settled, and how long each of its phases may last."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from genai_operators.compute.contract import Phase

#: Characters of an error that travel in a trigger event; the whole is in exit.json.
LONGEST_MESSAGE = 1500
#: Phases that may have a limit.
LIMITED_PHASES = frozenset(phase.value for phase in (Phase.QUEUED, Phase.STARTING, Phase.RUNNING, Phase.PREEMPTED))
#: How often in a row a workload may resume without a newer checkpoint.
RESUMES_WITHOUT_PROGRESS = 3


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long each phase may last, in seconds (``None``: no limit), and how often a resume may bring nothing."""

    queued_s: float | None = 24 * 3600.0
    starting_s: float | None = 300.0
    running_s: float | None = None
    preempted_s: float | None = 3600.0
    resumes_without_progress: int = RESUMES_WITHOUT_PROGRESS

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``Limits(**record)`` restores it."""
        return asdict(self)


class Status(StrEnum):
    """How it settled, for one who waits."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Settled:
    """The end of the waiting. ``error`` is the class name of the failure."""

    status: Status
    error: str | None = None
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, for a trigger event."""
        return {"status": self.status.value, "error": self.error, "message": self.message[:LONGEST_MESSAGE]}


@dataclass(frozen=True)
class Standing:
    """Where the workload stands after a step. ``news`` are lines for people, each said once by this driver."""

    phase: Phase
    attempt: int
    news: tuple[str, ...] = ()
    settled: Settled | None = None
