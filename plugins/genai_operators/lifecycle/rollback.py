"""``<model>__rollback``: back to an earlier champion, by a form or from another DAG."""

from __future__ import annotations

from airflow.sdk import DAG

from genai_operators.lifecycle.common import dag_arguments
from genai_operators.lifecycle.form import attach_form, rollback_form
from genai_operators.lifecycle.names import ROLLBACK_TASKS, Lifecycle, version_asset
from genai_operators.operators.assets import endpoint_asset
from genai_operators.operators.rollback import RollbackOperator
from genai_operators.spec.model import ModelSpec

DOC = """\
Gives all traffic to an earlier champion, or to the version in the form, after it was verified and started. A release
under way is stopped first. The ledger keeps who, when and why.
"""


def rollback_dag(model: str, spec: ModelSpec) -> DAG:
    """The rollback of one model; never runs by itself."""
    with DAG(**dag_arguments(model, spec, Lifecycle.ROLLBACK, doc=DOC), schedule=None) as dag:
        RollbackOperator(
            task_id="rollback",
            model=model,
            version="{{ params.version }}",
            reason="{{ params.reason }}",
            serve=spec.serve,
            output_kind=spec.data.output.value,
            ready_timeout=spec.canary.startup_timeout,
            inlets=[version_asset(model)],
            outlets=[endpoint_asset(model)],
        )
    attach_form(dag, rollback_form())
    assert tuple(dag.task_ids) == ROLLBACK_TASKS, "task ids never depend on what the model file says"
    return dag
