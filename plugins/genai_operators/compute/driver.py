"""The state machine that takes a workload to its end. The waiting task and the trigger run the same one.

A driver keeps only hints that may be lost with its process (when it launched, when it last saw a heartbeat change);
everything that matters is in the store. Two drivers of one workload are as good as one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from genai_operators.compute import attempts, owners
from genai_operators.compute.contract import GONE, UNREACHABLE, Attempt, Backend, Phase, Probe, Result
from genai_operators.compute.ending import Disposition, Ending
from genai_operators.compute.owners import Owner
from genai_operators.exceptions import (
    ConfigurationError,
    GenaiError,
    NoProgress,
    QuotaExceeded,
    WorkloadCancelled,
    WorkloadFailed,
    WorkloadTimeout,
)
from genai_operators.store import Store

#: The backend says gone; only when the heartbeat has not moved for this long either is the attempt taken for dead.
STALE_AFTER_S = 6.0
#: Nobody can look where it runs: its supervisor ends it after a lease of 60 s, so this long is proof enough.
LOST_AFTER_S = 300.0
#: A claimed attempt without a sign of life is launched again this often; its fence lets only one begin.
RELAUNCH_S = 5.0
#: The result is there; the process may take this long to end.
FINISH_S = 30.0
#: Long past the grace of a supervisor that was asked to stop: it hangs, and is killed.
CANCEL_PATIENCE_S = 180.0
#: Characters of an error that travel in a trigger event; the whole is in exit.json.
LONGEST_MESSAGE = 1500


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long each phase may last, in seconds (``None``: no limit), and how often a resume may bring nothing."""

    queued_s: float | None = 24 * 3600.0
    starting_s: float | None = 300.0
    running_s: float | None = None
    resumes_without_progress: int = 3

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``Limits(**record)`` restores it."""
        return asdict(self)


#: Phases that may have a limit.
LIMITED_PHASES = frozenset({Phase.QUEUED.value, Phase.STARTING.value, Phase.RUNNING.value})


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


class Driver:
    """Drives one workload for one owner. Not safe for several threads; cheap to make."""

    def __init__(
        self,
        *,
        store: Store,
        directory: str,
        backend: Backend,
        owner: Owner,
        after: int = 0,
        limits: Limits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """:param after: attempts up to this number are history; see :class:`.attempts.Joined`."""
        self._store = store
        self._directory = directory
        self._backend = backend
        self._owner = owner
        self._after = after
        self._limits = limits or Limits()
        self._monotonic = monotonic
        self._newest: Attempt | None = None
        self._launched: dict[int, float] = {}
        self._seen: tuple[int, int, float] = (0, -1, 0.0)  # attempt, beat, when it was first seen
        self._result_seen: float | None = None
        self._phase: tuple[int, Phase] | None = None

    def advance(self) -> Standing:
        """Take one step: look, and do what is due. Never waits for the workload."""
        attempt = self._newest = attempts.newest_attempt(self._store, self._directory, known=self._newest)
        result = attempts.find_result(self._store, self._directory)
        if result is not None:
            return self._finish(result, attempt)
        if not owners.is_owner(self._store, self._directory, self._owner):
            error = WorkloadCancelled(f"{self._directory}: {self._owner} was taken off its owners; it was cancelled")
            return self._settle(attempt.number if attempt else 0, Status.CANCELLED, error)
        if attempt is None:
            return self._claim(None, stalls=0, why="")
        look = self._look(attempt)
        return self._wait(attempt, look) if isinstance(look, Probe) else self._after_end(attempt, look)

    # --- looking -----------------------------------------------------------------------------------------------

    def _look(self, attempt: Attempt) -> Probe | Ending:
        """Its end if that is proved, else what the backend knows."""
        ending = attempts.recorded_ending(attempt)
        if ending is not None:
            return ending
        probe = self._backend.probe(attempt)
        silent_s = self._silence(attempt)
        gone = probe.phase in GONE and silent_s >= STALE_AFTER_S
        if not gone and not (probe.reason == UNREACHABLE and silent_s >= LOST_AFTER_S):
            return probe
        # It may have written its last words between the two looks.
        told = f"{probe.detail or 'it is gone'}, and its heartbeat stopped"
        return attempts.recorded_ending(attempt) or Ending(
            code=None, message=told, cancelled=attempts.is_cancelled(attempt)
        )

    def _silence(self, attempt: Attempt) -> float:
        """Seconds since the heartbeat changed, by this process's clock: clocks of other machines may differ."""
        heartbeat = self._store.find_json(attempt.path("heartbeat.json"))
        beat = -1 if heartbeat is None else int(heartbeat["beat"])
        number, last_beat, since = self._seen
        if (number, last_beat) != (attempt.number, beat) or since == 0.0:
            since = self._monotonic()
            self._seen = (attempt.number, beat, since)
        return self._monotonic() - since

    # --- while it runs -----------------------------------------------------------------------------------------

    def _wait(self, attempt: Attempt, probe: Probe) -> Standing:
        error = self._overdue(attempt, probe)
        if error is not None:
            return self._settle(attempt.number, Status.FAILED, error)
        news = self._phase_news(attempt, probe)
        if probe.phase is Phase.STARTING:
            self._launch_again(attempt)
        elif attempts.is_cancelled(attempt):
            self._enforce_cancel(attempt)
        return Standing(phase=probe.phase, attempt=attempt.number, news=news)

    def _phase_news(self, attempt: Attempt, probe: Probe) -> tuple[str, ...]:
        if self._phase == (attempt.number, probe.phase) or probe.phase is Phase.STARTING:
            return ()
        self._phase = (attempt.number, probe.phase)
        return (f"attempt {attempt.number}: {probe.phase}" + (f" ({probe.detail})" if probe.detail else ""),)

    def _launch_again(self, attempt: Attempt) -> None:
        last = self._launched.get(attempt.number)
        due = time.time() - attempt.claim["at"] > RELAUNCH_S if last is None else self._monotonic() - last > RELAUNCH_S
        if due:
            self._launched[attempt.number] = self._monotonic()
            self._backend.launch(attempt)

    def _overdue(self, attempt: Attempt, probe: Probe) -> GenaiError | None:
        """The error if its phase outlasted the limit; the attempt is then ended, or asked to end."""
        where = self._where(attempt)
        waited_s = time.time() - attempt.claim["at"]
        if probe.phase is Phase.RUNNING:
            started = self._store.find_json(attempt.path("started.json"))
            ran_s = time.time() - started["at"] if started else 0.0
            if self._limits.running_s is None or ran_s <= self._limits.running_s:
                return None
            attempts.request_cancel(attempt, reason=f"it ran longer than {self._limits.running_s:.0f} s")
            return WorkloadTimeout(
                f"{where} ran longer than its limit of {self._limits.running_s:.0f} s. Its checkpoints are kept: "
                "raise the limit and run the task again."
            )
        limit_s = self._limits.queued_s if probe.phase is Phase.QUEUED else self._limits.starting_s
        if probe.phase in GONE or limit_s is None or waited_s <= limit_s:
            return None
        told = f"{where} was {probe.phase} for more than {limit_s:.0f} s. {probe.detail}".strip()
        error = QuotaExceeded(told) if probe.phase is Phase.QUEUED else WorkloadFailed(told)
        if not attempts.abandon(attempt, reason=str(error)):
            return None  # it has just begun
        attempts.give_up(attempt, error)
        self._backend.stop(attempt)
        return error

    def _enforce_cancel(self, attempt: Attempt) -> None:
        asked = self._store.get_json(attempt.path("cancel.json"))
        if time.time() - asked["at"] > CANCEL_PATIENCE_S:
            self._backend.stop(attempt)

    # --- when it ended -----------------------------------------------------------------------------------------

    def _after_end(self, attempt: Attempt, ending: Ending) -> Standing:
        if attempt.number <= self._after:
            return self._claim(attempt, stalls=0, why=f"attempt {attempt.number} had ended: {ending.describe()}")
        if ending.disposition is Disposition.RESUME:
            return self._resume(attempt, ending)
        if ending.disposition is Disposition.FAIL:
            return self._settle(attempt.number, Status.FAILED, ending.failure(self._where(attempt)))
        result = attempts.find_result(self._store, self._directory)  # it is written before the end: look once more
        if result is not None:
            return self._finish(result, attempt)
        error = WorkloadFailed(f"{self._where(attempt)} ended with exit code 0 but left no result.json")
        attempts.give_up(attempt, error)
        return self._settle(attempt.number, Status.FAILED, error)

    def _resume(self, attempt: Attempt, ending: Ending) -> Standing:
        """Claim the next attempt, unless resuming has stopped to bring anything."""
        step = attempts.newest_checkpoint_step(self._store, self._directory)
        advanced = step > int(attempt.claim["step"]) or ending.cancelled
        stalls = 0 if advanced else int(attempt.claim["stalls"]) + 1
        why = f"attempt {attempt.number} ended: {ending.describe()}"
        if stalls <= self._limits.resumes_without_progress:
            return self._claim(attempt, stalls=stalls, why=why)
        reached = f"step {step}" if step >= 0 else "the first checkpoint"
        error = NoProgress(
            f"{self._where(attempt)}: resumed {stalls - 1} times without getting past {reached}; "
            f"last, {ending.describe()}. Read its log for what stops it; if it is preempted between two checkpoints, "
            "save them more often."
        )
        attempts.give_up(attempt, error)
        return self._settle(attempt.number, Status.FAILED, error)

    def _claim(self, previous: Attempt | None, *, stalls: int, why: str) -> Standing:
        step = -1 if previous is None else attempts.newest_checkpoint_step(self._store, self._directory)
        number = 1 if previous is None else previous.number + 1
        news = [why] if why else []
        attempt = attempts.claim(
            self._store,
            self._directory,
            number=number,
            backend=self._backend.describe(),
            owner=self._owner,
            step=step,
            stalls=stalls,
        )
        if attempt is None:
            return Standing(phase=Phase.STARTING, attempt=number, news=tuple(news))  # somebody else is at it
        news.append(
            f"attempt {number}: claimed" + (f", resumes from the checkpoint of step {step}" if step >= 0 else "")
        )
        self._launched[number] = self._monotonic()
        try:
            self._backend.launch(attempt)
        except (ConfigurationError, WorkloadFailed) as error:
            if attempts.abandon(attempt, reason=str(error)):
                attempts.give_up(attempt, error)
                return self._settle(number, Status.FAILED, error, news=news)
        return Standing(phase=Phase.STARTING, attempt=number, news=tuple(news))

    def _finish(self, result: Result, newest: Attempt | None) -> Standing:
        """There is a result. Wait a little for the end of the process, so that its last lines are there too."""
        winner = Attempt(store=self._store, directory=self._directory, number=result.attempt)
        if self._result_seen is None:
            self._result_seen = self._monotonic()
        if newest is not None and newest.number != winner.number and attempts.recorded_ending(newest) is None:
            attempts.request_cancel(newest, reason=f"attempt {winner.number} had finished first")
        ended = isinstance(self._look(winner), Ending)
        if not ended and self._monotonic() - self._result_seen < FINISH_S:
            return Standing(phase=Phase.RUNNING, attempt=winner.number)
        if not ended:
            attempts.request_cancel(winner, reason="its result is there but its process did not end")
        news = (f"attempt {winner.number}: succeeded in {result.seconds:.1f} s",)
        return Standing(Phase.SUCCEEDED, winner.number, news=news, settled=Settled(Status.SUCCEEDED))

    def _settle(self, number: int, status: Status, error: GenaiError, news: list[str] | None = None) -> Standing:
        settled = Settled(status, error=type(error).__name__, message=str(error))
        return Standing(Phase.FAILED, number, news=tuple(news or ()), settled=settled)

    def _where(self, attempt: Attempt) -> str:
        kind, fingerprint = self._directory.split("/")[-2:]
        return f"{kind} {fingerprint[:12]}, attempt {attempt.number} ({self._store.uri_of(attempt.path('log'))})"
