"""The Airflow DAG genai_maintenance: each hour, what nobody in the cluster looks after any more is removed.

It is skipped where no cluster is configured.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable

from genai_operators.operators.maintenance import RemoveOrphansOperator
from genai_operators.operators.retry import FailureRetryPolicy

with DAG(
    dag_id="genai_maintenance",
    description="Removes what nobody in the Kubernetes cluster looks after any more",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("17 * * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["genai"],
    default_args={"owner": "genai"},
):
    RemoveOrphansOperator(
        task_id="remove_orphans",
        retries=2,
        retry_policy=FailureRetryPolicy(),
        execution_timeout=timedelta(minutes=10),
    )
