"""How long an attempt is waited for: the limits of its phases, and those of a stop that it was asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from genai_operators.compute import attempts, cancelling
from genai_operators.compute.backends import BackendOf
from genai_operators.compute.contract import Attempt, Phase, Probe
from genai_operators.compute.standing import Limits
from genai_operators.exceptions import GenaiError, QuotaExceeded, WorkloadFailed, WorkloadTimeout

#: Long past the grace of a supervisor that was asked to stop: it hangs, and is killed.
CANCEL_PATIENCE_S = 180.0
#: A supervisor that could not write for this long has ended its child; see ``supervisor.LEASE_S``.
SILENT_S = 60.0


class Patience:
    """Ends, or asks to end, what outlasted a limit."""

    def __init__(self, backend_of: BackendOf, limits: Limits) -> None:
        self._backend_of = backend_of
        self._limits = limits

    def overdue(self, attempt: Attempt, probe: Probe, *, where: str, silent_s: float) -> GenaiError | None:
        """The error if its phase outlasted the limit. It then can never begin, or was asked to stop for that reason.

        :param silent_s: since its heartbeat last changed.
        """
        if probe.phase is Phase.RUNNING:
            return self._ran_too_long(attempt, where=where)
        limits = {
            Phase.QUEUED: self._limits.queued_s,
            Phase.STARTING: self._limits.starting_s,
            Phase.PREEMPTED: self._limits.preempted_s,
        }
        limit_s = limits.get(probe.phase)
        since = attempt.claim["at"] if probe.since is None else probe.since
        waited_s = time.time() - since
        if probe.phase is Phase.PREEMPTED:  # the claim is older than that
            waited_s = silent_s if probe.since is None else max(silent_s, waited_s)
        if limit_s is None or waited_s <= limit_s:
            return None
        told = f"{where} was {probe.phase} for more than {limit_s:.0f} s. {probe.detail}".strip()
        error = WorkloadFailed(told) if probe.phase is Phase.STARTING else QuotaExceeded(told)
        return error if self._take_back(attempt, error, silent_s=silent_s) else None

    def _take_back(self, attempt: Attempt, error: GenaiError, *, silent_s: float) -> bool:
        """``False`` if it has just begun, so that there is nothing to be impatient about."""
        if attempts.abandon(attempt, reason=str(error)):
            attempts.give_up(attempt, error)
        elif self._backend_of(attempt).restarts and silent_s >= SILENT_S:  # taken away, it waits for another machine
            attempts.request_cancel(attempt, reason=str(error), error=type(error))
        else:
            return False
        self._backend_of(attempt).stop(attempt)
        return True

    def _ran_too_long(self, attempt: Attempt, *, where: str) -> GenaiError | None:
        limit_s = self._limits.running_s
        if limit_s is None:
            return None
        started = attempt.store.find_json(attempt.path("started.json"))
        if started is None or time.time() - started["at"] <= limit_s:
            return None
        error = WorkloadTimeout(
            f"{where} ran longer than its limit of {limit_s:.0f} s. Its checkpoints are kept: "
            "raise the limit and run the task again."
        )
        attempts.request_cancel(attempt, reason=str(error), error=type(error))
        return error

    def enforce_cancel(self, attempt: Attempt, asked: Mapping[str, Any]) -> None:
        """:param asked: its cancel.json. What has not begun cannot hear of it; what hangs does not."""
        if cancelling.never_began(attempt) or time.time() - asked["at"] > CANCEL_PATIENCE_S:
            self._backend_of(attempt).stop(attempt)
