"""The state machine that takes a workload to its end. The waiting task and the trigger run the same one.

A driver keeps only hints that may be lost with its process (when it launched, when it last saw a heartbeat change);
everything that matters is in the store. Two drivers of one workload are as good as one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

from genai_operators.compute import attempts, cancelling, escalation, owners
from genai_operators.compute.aftermath import demanded, trouble_of
from genai_operators.compute.backends import BackendOf
from genai_operators.compute.budget import SPENT, Budget, Meter
from genai_operators.compute.contract import ABSENT, Attempt, Backend, Phase, Probe, Result
from genai_operators.compute.ending import Disposition, Ending
from genai_operators.compute.escalation import Ask, Trouble
from genai_operators.compute.liveness import Liveness
from genai_operators.compute.news import News
from genai_operators.compute.owners import Owner
from genai_operators.compute.patience import Patience
from genai_operators.compute.resources import Resources
from genai_operators.compute.standing import Limits, Settled, Standing, Status
from genai_operators.exceptions import (
    BudgetExceeded,
    ClusterUnavailable,
    ConfigurationError,
    GenaiError,
    NoProgress,
    QuotaExceeded,
    WorkloadCancelled,
    WorkloadFailed,
    WorkloadTimeout,
)
from genai_operators.store import Store

#: A claimed attempt without a sign of life is launched again this often; its fence lets only one begin.
RELAUNCH_S = 5.0
#: The same where the namespace has no room for it, as many may be waiting there.
NO_ROOM_RELAUNCH_S = 15.0
#: Reason of the phase ``QUEUED`` until there is room.
NO_ROOM = "quota"
#: The result is there; the process may take this long to end.
FINISH_S = 30.0


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
        ladder: Sequence[Resources] = (),
        budget: Budget | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param after: attempts up to this number are history; see :class:`.attempts.Joined`.
        :param ladder: what an attempt may ask for, the preferred first; see :mod:`.escalation`.
        :param budget: at its limit the workload is asked to checkpoint and stop.
        """
        self._store = store
        self._directory = directory
        self._backend = backend
        self._owner = owner
        self._after = after
        self._limits = limits or Limits()
        self._ladder = tuple(ladder)
        self._budget = budget
        self._monotonic = monotonic
        self._backend_of = BackendOf(backend)
        self._meter = Meter(store, directory, backend_of=self._backend_of, monotonic=monotonic)
        self._life = Liveness(self._backend_of, monotonic=monotonic)
        self._patience = Patience(self._backend_of, self._limits)
        self._news = News()
        self._newest: Attempt | None = None
        self._launched: dict[int, float] = {}
        self._no_room: dict[int, str] = {}
        self._start = 0
        self._result_seen: float | None = None

    def advance(self) -> Standing:
        """Take one step: look, and do what is due. Never waits for the workload."""
        attempt = self._newest = attempts.newest_attempt(self._store, self._directory, known=self._newest)
        result = attempts.find_result(self._store, self._directory)
        if result is not None:
            return self._finish(result, attempt)
        if not owners.is_owner(self._store, self._directory, self._owner):
            error = WorkloadCancelled(f"{self._directory}: {self._owner} was taken off its owners; it was cancelled")
            return self._settle(attempt, Status.CANCELLED, error)
        if attempt is None:
            return self._claim(None, escalation.first(self._ladder), stalls=0)
        look = self._life.look(attempt)
        return self._wait(attempt, look) if isinstance(look, Probe) else self._after_end(attempt, look)

    # --- while it runs -----------------------------------------------------------------------------------------

    def _wait(self, attempt: Attempt, probe: Probe) -> Standing:
        absent = probe.reason == ABSENT
        if absent:
            probe = self._launch_again(attempt, probe)
        news = [*self._news.of_probe(attempt, probe), *self._look_at_restarts(attempt)]
        error = self._patience.overdue(attempt, probe, where=self._where(attempt), silent_s=self._life.silent_s)
        if isinstance(error, WorkloadTimeout):
            return self._settle(attempt, Status.FAILED, error, news=news)
        ending = None if error is None else attempts.recorded_ending(attempt)
        # What can never begin has ended by that; what was begun is seen gone first.
        if ending is not None and ending.disposition is Disposition.FAIL:
            return self._after_end(attempt, ending, news=news)
        self._mind_the_budget(attempt)
        if not absent and (asked := self._store.find_json(attempt.path("cancel.json"))) is not None:
            self._patience.enforce_cancel(attempt, asked)
        return Standing(phase=probe.phase, attempt=attempt.number, news=tuple(news))

    def _launch_again(self, attempt: Attempt, probe: Probe) -> Probe:
        """If it is time to. :returns: what is known of it now: while the namespace has no room it is in a queue."""
        number = attempt.number
        last = self._launched.get(number)
        interval_s = NO_ROOM_RELAUNCH_S if number in self._no_room else RELAUNCH_S
        since_s = time.time() - attempt.claim["at"] if last is None else self._monotonic() - last
        if since_s > interval_s:
            self._launched[number] = self._monotonic()
            self._no_room.pop(number, None)
            try:
                self._backend_of(attempt).launch(attempt)
            except QuotaExceeded as error:
                self._no_room[number] = str(error)
        return Probe(Phase.QUEUED, NO_ROOM, self._no_room[number]) if number in self._no_room else probe

    def _look_at_restarts(self, attempt: Attempt) -> list[str]:
        """The platform replaced its process. One that is taken away again and again without a step is stopped."""
        reached = int(self._life.heartbeat.get("start", 0))
        if reached == self._start:
            return []
        self._start, record = attempts.newest_start(attempt, known=reached)
        if not self._start:  # of the attempt before
            return []
        if int(record["stalls"]) > self._limits.resumes_without_progress:
            error = self._no_progress(
                attempt, stalls=int(record["stalls"]), step=int(record["step"]), last="taken away"
            )
            attempts.request_cancel(attempt, reason=str(error), error=NoProgress)
        return [self._news.of_start(attempt, self._start, record)]

    def _mind_the_budget(self, attempt: Attempt) -> None:
        self._meter.record(attempt)
        if self._is_spent(attempt) and not attempts.is_cancelled(attempt):
            attempts.request_cancel(attempt, reason=SPENT, error=BudgetExceeded)

    def _is_spent(self, attempt: Attempt) -> bool:
        return self._budget is not None and self._meter.spent(attempt).cost >= self._budget.max_cost

    # --- when it ended -----------------------------------------------------------------------------------------

    def _after_end(self, attempt: Attempt, ending: Ending, *, news: Sequence[str] = ()) -> Standing:
        self._meter.record(attempt, now=True)
        if ending.code is None and ending.disposition is Disposition.FAIL:  # nobody but the platform said so: keep it
            failure = ending.failure(self._where(attempt))
            attempts.give_up(attempt, failure, memory=ending.memory_that_ran_out)
        backend = self._backend_of(attempt)
        if backend.restarts and (ending.cancelled or ending.code is None):
            backend.stop(attempt)  # what did not end by itself is removed, so that nothing is left of it
        demand = demanded(attempt, ending)
        why = [*news, f"attempt {attempt.number} {self._ended(attempt)}: {ending.describe()}"]
        ask = self._next_ask(attempt, trouble_of(ending, demand))
        if ask is not None:
            if ask != Ask.of_claim(attempt.claim):
                why.append(f"now it asks for {ask.describe()}")
            return self._claim(attempt, ask, stalls=0, news=why)
        if isinstance(demand, BudgetExceeded):
            demand = self._spent_error(attempt) if self._is_spent(attempt) else None  # another owner's was smaller
        if demand is not None:
            return self._settle(attempt, Status.FAILED, demand, news=why)
        if ending.disposition is Disposition.RESUME:
            return self._resume(attempt, ending, news=why)
        if ending.disposition is Disposition.FAIL:
            return self._settle(attempt, Status.FAILED, ending.failure(self._where(attempt)), news=news)
        result = attempts.find_result(self._store, self._directory)  # it is written before the end: look once more
        if result is not None:
            return self._finish(result, attempt)
        error = WorkloadFailed(f"{self._where(attempt)} ended with exit code 0 but left no result.json")
        attempts.give_up(attempt, error)
        return self._settle(attempt, Status.FAILED, error, news=news)

    def _next_ask(self, attempt: Attempt, trouble: Trouble | None) -> Ask | None:
        """What to ask for in its place: another size after trouble, the same again after history; else ``None``."""
        ask = Ask.of_claim(attempt.claim)
        known = escalation.is_on(ask, self._ladder)
        if trouble is not None and known:
            batch = (self._life.heartbeat.get("progress") or {}).get("batch")
            escalated = escalation.escalate(ask, trouble, ladder=self._ladder, batch=batch)
            if escalated is not None:
                return escalated
        if attempt.number > self._after:
            return None
        return ask if trouble is None and known else escalation.first(self._ladder)

    def _resume(self, attempt: Attempt, ending: Ending, *, news: Sequence[str]) -> Standing:
        """Claim the next attempt, unless resuming has stopped to bring anything."""
        _, before = attempts.newest_start(attempt)
        step = attempts.newest_checkpoint_step(self._store, self._directory)
        advanced = step > int(before["step"]) or ending.cancelled
        stalls = 0 if advanced else int(before["stalls"]) + 1
        if stalls <= self._limits.resumes_without_progress:
            return self._claim(attempt, Ask.of_claim(attempt.claim), stalls=stalls, news=news)
        error = self._no_progress(attempt, stalls=stalls, step=step, last=ending.describe())
        attempts.give_up(attempt, error)
        return self._settle(attempt, Status.FAILED, error)

    def _claim(self, previous: Attempt | None, ask: Ask, *, stalls: int, news: Sequence[str] = ()) -> Standing:
        if previous is not None and self._is_spent(previous):
            return self._settle(previous, Status.FAILED, self._spent_error(previous), news=news)
        step = -1 if previous is None else attempts.newest_checkpoint_step(self._store, self._directory)
        number = 1 if previous is None else previous.number + 1
        attempt = attempts.claim(
            self._store,
            self._directory,
            number=number,
            backend=self._backend.describe(),
            owner=self._owner,
            step=step,
            stalls=stalls,
            ask=ask,
            budget=None if self._budget is None else asdict(self._budget),
        )
        if attempt is None:
            return Standing(phase=Phase.STARTING, attempt=number, news=tuple(news))  # somebody else is at it
        news = [*news, *self._news.of_claim(attempt, ask, step=step, budget=self._budget)]
        self._launched[number] = self._monotonic()
        try:
            self._backend.launch(attempt)
        except (ConfigurationError, WorkloadFailed) as error:
            if attempts.abandon(attempt, reason=str(error)):
                attempts.give_up(attempt, error)
                news += self._take_back(attempt)
                return self._settle(attempt, Status.FAILED, error, news=news)
        except QuotaExceeded as error:  # the next look says so
            self._no_room[number] = str(error)
        except ClusterUnavailable as error:
            news.append(f"attempt {number}: not launched yet: {error}")
        return Standing(phase=Phase.STARTING, attempt=number, news=tuple(news))

    def _take_back(self, attempt: Attempt) -> list[str]:
        """Half of a launch may be there (a Job without what its pods need): it would wait, or pend, for nobody."""
        try:
            self._backend.stop(attempt)
        except GenaiError as error:
            return [f"attempt {attempt.number} will not begin, but its platform may still have it: {error}"]
        return []

    def _finish(self, result: Result, newest: Attempt | None) -> Standing:
        """There is a result. Wait a little for the end of the process, so that its last lines are there too."""
        winner = newest
        if winner is None or winner.number != result.attempt:
            winner = attempts.find_attempt(self._store, self._directory, result.attempt)
        if self._result_seen is None:
            self._result_seen = self._monotonic()
        if newest is not None and newest.number != winner.number and not cancelling.has_ended(newest):
            cancelling.cancel(newest, reason=f"attempt {winner.number} had finished first")
        ended = isinstance(self._life.look(winner), Ending)
        if not ended and self._monotonic() - self._result_seen < FINISH_S:
            return Standing(phase=Phase.RUNNING, attempt=winner.number)
        if not ended:
            attempts.request_cancel(winner, reason="its result is there but its process did not end")
        self._meter.record(winner, now=True)
        spent = self._meter.write_total(winner if newest is None else newest)
        cost = "" if spent is None else f"; {spent.describe()}"
        news = (f"attempt {winner.number}: succeeded in {result.seconds:.1f} s{cost}",)
        return Standing(Phase.SUCCEEDED, winner.number, news=news, settled=Settled(Status.SUCCEEDED))

    def _settle(
        self, attempt: Attempt | None, status: Status, error: GenaiError, *, news: Sequence[str] = ()
    ) -> Standing:
        number = 0
        if attempt is not None:
            number = attempt.number
            self._meter.write_total(attempt)
        settled = Settled(status, error=type(error).__name__, message=str(error))
        return Standing(Phase.FAILED, number, news=tuple(news), settled=settled)

    # --- words -------------------------------------------------------------------------------------------------

    def _where(self, attempt: Attempt) -> str:
        kind, fingerprint = self._directory.split("/")[-2:]
        return f"{kind} {fingerprint[:12]}, attempt {attempt.number} ({self._store.uri_of(attempt.path('log'))})"

    def _ended(self, attempt: Attempt) -> str:
        return "had ended" if attempt.number <= self._after else "ended"

    def _spent_error(self, attempt: Attempt) -> BudgetExceeded:
        """:func:`_is_spent` has said so."""
        assert self._budget is not None
        progress = self._life.heartbeat.get("progress") or {}
        reached = f"step {progress['step']} of {progress.get('total', '?')}" if "step" in progress else "no step"
        return BudgetExceeded(
            f"{self._where(attempt)}: {self._meter.spent(attempt).describe()} of at most {self._budget.max_cost:g} "
            f"{self._budget.currency}; it reached {reached}. Its checkpoint is kept: raise max_cost and run the task "
            "again, then it goes on from there."
        )

    def _no_progress(self, attempt: Attempt, *, stalls: int, step: int, last: str) -> NoProgress:
        reached = f"step {step}" if step >= 0 else "the first checkpoint"
        return NoProgress(
            f"{self._where(attempt)}: resumed {stalls - 1} times without getting past {reached}; last, {last}. Read "
            "its log for what stops it; if it is preempted between two checkpoints, save them more often."
        )
