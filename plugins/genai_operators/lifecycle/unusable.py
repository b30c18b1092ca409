"""The DAGs of a wrong model file: same ids, same tasks, and every task fails with what is wrong.

If they vanished instead, Airflow would call them stale and hide their history, and nobody would see the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from airflow.sdk import DAG, BaseOperator

from genai_operators.exceptions import SpecError
from genai_operators.lifecycle.names import DRIFT_TASKS, RETRAIN_TASKS, ROLLBACK_TASKS, Lifecycle, dag_id

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
        super().__init__(**kwargs)
        self.message = message

    def execute(self, context: Any) -> NoReturn:
        """Fail. :raises SpecError: always; a retry does not help, an edit of the file does."""
        raise SpecError(self.message)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Any) -> NoReturn:
        """Fail alike: the stage that deferred is not known any more. Clearing the task adopts its workload again."""
        self.execute(context)


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
        tags=["genai", model, "wrong model file"],
        doc_md=doc,
        auto_register=False,
    ) as dag:
        previous: BaseOperator | None = None
        for task_id in TASKS[lifecycle]:
            task = UnusableModelFileOperator(task_id=task_id, message=message, retries=0)
            if previous is not None:
                previous >> task
            previous = task
    return dag
