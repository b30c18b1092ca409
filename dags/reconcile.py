"""The Airflow DAG genai_reconcile: each minute, jobs, traffic and aliases converge to their owners and the ledger."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, CronTriggerTimetable

from genai_operators.operators.reconcile import ReconcileOperator

with DAG(
    dag_id="genai_reconcile",
    description="Makes jobs, traffic and aliases follow their owners and the ledger",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("* * * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["genai"],
    default_args={"owner": "genai"},
):
    ReconcileOperator(task_id="reconcile", execution_timeout=timedelta(minutes=5))
