"""When a failed task is tried again: the failure's class says whether that helps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.sdk import RetryDecision, RetryPolicy

from genai_operators import exceptions
from genai_operators.exceptions import GenaiError

if TYPE_CHECKING:
    from airflow.sdk import Context

#: Where the task's own ``retry_delay`` would be too long, or too short to change anything.
RETRY_DELAYS: Mapping[type[GenaiError], timedelta] = {
    exceptions.LedgerConflict: timedelta(seconds=5),
    exceptions.Preempted: timedelta(seconds=10),
    exceptions.NodeLost: timedelta(seconds=10),
    exceptions.StoreUnavailable: timedelta(seconds=30),
    exceptions.ClusterUnavailable: timedelta(seconds=30),
    exceptions.RegistryUnavailable: timedelta(seconds=30),
    exceptions.GatewayUnavailable: timedelta(seconds=30),
    exceptions.QuotaExceeded: timedelta(minutes=5),
}


class FailureRetryPolicy(RetryPolicy):
    """Fail at once where a retry cannot help; retry, after a fitting delay, where it can.

    It never goes beyond the task's ``retries``, and leaves every error that is not ours to Airflow's own rules.
    """

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide from the class alone: the same failure is treated the same, wherever it comes from."""
        if not isinstance(exception, GenaiError):
            return RetryDecision.default()
        name = type(exception).__name__
        if not exception.retry_helps:
            return RetryDecision.fail(reason=f"{name}: a retry does not help")
        return RetryDecision.retry(delay=RETRY_DELAYS.get(type(exception)), reason=f"{name}: a retry may help")
