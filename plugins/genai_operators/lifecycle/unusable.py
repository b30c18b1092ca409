"""The DAGs of a wrong model file: same ids, same tasks, and every task fails with what is wrong.

If they vanished instead, Airflow would call them stale and hide their history, and nobody would see the message.
One thing goes on: a release that was under way when the file became wrong, by its frozen plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import DAG, BaseOperator

from genai_operators.exceptions import SpecError
from genai_operators.lifecycle.common import RETRIES, RETRY_DELAY
from genai_operators.lifecycle.names import DRIFT_TASKS, RETRAIN_TASKS, ROLLBACK_TASKS, Lifecycle, dag_id
from genai_operators.operators.canary import CanaryReleaseOperator
from genai_operators.operators.retry import FailureRetryPolicy
from genai_operators.operators.workload import owner_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from genai_operators.release.plan import ReleasePlan

TASKS: dict[Lifecycle, Sequence[str]] = {
    Lifecycle.RETRAIN: RETRAIN_TASKS,
    Lifecycle.DRIFT: DRIFT_TASKS,
    Lifecycle.ROLLBACK: ROLLBACK_TASKS,
}


class UnusableModelFileOperator(BaseOperator):
    """Stands in for a task whose model file is wrong, also for one that was deferred when the file became wrong.

    :param message: every problem of the file, as ``file:line:column: what``.
    """

    def __init__(self, *, message: str, **kwargs: Any) -> None:
        kwargs.setdefault("retry_policy", FailureRetryPolicy())
        super().__init__(**kwargs)
        self.message = message

    def execute(self, context: Context) -> NoReturn:
        """Fail. :raises SpecError: always; a retry does not help, an edit of the file does."""
        raise SpecError(self.message)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> NoReturn:
        """Fail alike: the stage that deferred is not known any more. Clearing the task adopts its workload again."""
        self.execute(context)


class UnderWayReleaseOperator(CanaryReleaseOperator):
    """Goes on with the release that this very task started while the file was right; begins none.

    :param message: every problem of the file.
    """

    def __init__(self, *, message: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.message = message

    def _plan(self, context: Context, settings: Mapping[str, Any]) -> ReleasePlan:
        """:raises SpecError: this task has no release under way."""
        from genai_operators.release.journal import Turns
        from genai_operators.release.plan import ReleasePlan
        from genai_operators.store import Store

        store = Store.open(settings["store"])
        live = Turns(store, self.model).live()
        plan = ReleasePlan.find(store, self.model, live) if live else None
        if plan is None or plan.owner != owner_of(context):
            raise SpecError(self.message)
        self.log.warning("the model file is wrong; release %s goes on with its frozen plan\n%s", live, self.message)
        return plan


def unusable_dags(model: str, message: str) -> list[DAG]:
    """The DAGs of a model whose file has these problems. None runs by itself."""
    return [_unusable_dag(model, lifecycle, message) for lifecycle in Lifecycle]


def _unusable_dag(model: str, lifecycle: Lifecycle, message: str) -> DAG:
    doc = f"### The model file is wrong\n\n```\n{message}\n```\n\nEvery task fails until it is mended."
    with DAG(
        dag_id=dag_id(model, lifecycle),
        description="The model file is wrong; see the tasks' log",
        schedule=None,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        tags=["genai", model, "wrong model file"],
        doc_md=doc,
        # For the release under way, whose gateway may be away for a moment; a wrong file fails at once all the same.
        default_args={"retries": RETRIES, "retry_delay": RETRY_DELAY},
        auto_register=False,
    ) as dag:
        previous: BaseOperator | None = None
        for task_id in TASKS[lifecycle]:
            task = _stand_in(model, task_id, message)
            if previous is not None:
                previous >> task
            previous = task
    return dag


def _stand_in(model: str, task_id: str, message: str) -> BaseOperator:
    if task_id == "release":
        return UnderWayReleaseOperator(task_id=task_id, message=message, model=model, version=0)
    return UnusableModelFileOperator(task_id=task_id, message=message)
