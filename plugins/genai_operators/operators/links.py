"""Links that the Airflow UI shows beside a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey


@runtime_checkable
class HasReport(Protocol):
    """An operator that knows, once it ran, where its report is read."""

    report_url: str


class ReportLink(BaseOperatorLink):
    """Opens the task's report. The plugin serves it to whoever is logged in to Airflow."""

    @property
    def name(self) -> str:
        """Text of the button."""
        return "Report"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Airflow asks on the worker, once the task has ended, and keeps the answer as an XCom. "" shows no link."""
        return operator.report_url if isinstance(operator, HasReport) else ""


@runtime_checkable
class HasRun(Protocol):
    """An operator that knows, once it ran, where the details of its workload's run are read."""

    run_url: str


class RunLink(BaseOperatorLink):
    """Opens the details of the run: attempts, phases, pods, cost, last lines."""

    @property
    def name(self) -> str:
        """Text of the button."""
        return "Run"

    def get_link(self, operator: Any, *, ti_key: TaskInstanceKey) -> str:
        """Airflow asks on the worker, once the task has ended, and keeps the answer as an XCom. "" shows no link."""
        return operator.run_url if isinstance(operator, HasRun) else ""
