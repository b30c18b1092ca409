"""``<model>__drift``: compares the traffic with what the champion learnt; an alarm starts ``<model>__retrain``."""

from __future__ import annotations

from airflow.sdk import DAG, CronTriggerTimetable

from genai_operators.lifecycle.common import dag_arguments, workload_arguments
from genai_operators.lifecycle.names import DRIFT_TASKS, Lifecycle, dataset_asset, drift_alias
from genai_operators.operators.assets import endpoint_asset
from genai_operators.operators.drift import CheckDriftOperator
from genai_operators.spec.model import ModelSpec

DOC = """\
Compares recent prompts with those that the champion learnt. On drift, at most once within the cool-down, it raises an
alarm. Then the policy says whether to retrain, because of drift or of anything else that the model file names, or why
to wait; *retrain* starts the retraining. Without a champion or traffic the check is skipped.
"""


def drift_dag(model: str, spec: ModelSpec) -> DAG:
    """The drift check of one model."""
    cron = spec.schedule.drift
    with DAG(
        **dag_arguments(model, spec, Lifecycle.DRIFT, doc=DOC),
        schedule=CronTriggerTimetable(cron, timezone="UTC") if cron else None,
    ) as dag:
        CheckDriftOperator(
            task_id="check",
            model=model,
            drift=spec.drift,
            policy=spec.policy,
            minimum_new_rows=spec.data.minimum_new_rows if spec.data.feedback else 0,
            inlets=[endpoint_asset(model), dataset_asset(model)],
            outlets=[drift_alias(model)],
            **workload_arguments(spec),
        )
    assert tuple(dag.task_ids) == DRIFT_TASKS, "task ids never depend on what the model file says"
    return dag
