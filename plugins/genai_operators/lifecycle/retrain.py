"""``<model>__retrain``: plan, validate, fine-tune, evaluate, register, approve, release."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, chain

from genai_operators.lifecycle.common import dag_arguments, workload_arguments
from genai_operators.lifecycle.form import retrain_form
from genai_operators.lifecycle.names import (
    RETRAIN_TASKS,
    Lifecycle,
    dataset_asset,
    drift_alias,
    endpoint_asset,
    version_asset,
)
from genai_operators.operators.approve import ApproveReleaseOperator
from genai_operators.operators.canary import CanaryReleaseOperator
from genai_operators.operators.evaluate import EvaluateModelOperator
from genai_operators.operators.fine_tune import FineTuneOperator
from genai_operators.operators.plan import PlanRetrainingOperator
from genai_operators.operators.register import RegisterModelOperator
from genai_operators.operators.validate import ValidateDatasetOperator
from genai_operators.spec.model import ModelSpec

DOC = """\
Validates the data, fine-tunes, evaluates against the champion, signs and registers, and releases by a canary.
Starts by itself when the drift check raises an alarm{cron}. *Trigger* opens a form; a **dry run** only prints the plan.
"""
#: The form's switch, as the operators understand it.
REUSE = "{{ not params.force_retrain }}"


def retrain_dag(model: str, spec: ModelSpec, *, recipes: Sequence[str]) -> DAG:
    """The retraining of one model. ``recipes``: the names that the form offers."""
    cron = spec.schedule.retrain
    doc = DOC.format(cron=f", and at `{cron}`" if cron else "")
    with DAG(
        **dag_arguments(model, spec, Lifecycle.RETRAIN, doc=doc),
        schedule=_schedule(model, cron),
        params=retrain_form(spec, recipes=recipes),
    ) as dag:
        plan = PlanRetrainingOperator(
            task_id="plan",
            model=model,
            spec=spec,
            plan_only="{{ params.dry_run }}",
            recipe="{{ params.recipe }}",
            seed="{{ params.seed }}",
            rule_on_new="{{ params.rule_on_new }}",
            runtime="{{ params.runtime }}",
            extra_data="{{ params.extra_data }}",
            reuse=REUSE,
        )
        validate = _validate(model, spec)
        fine_tune = FineTuneOperator(
            task_id="fine_tune",
            model=model,
            dataset=validate.output,
            recipe=plan.output["recipe"],
            refresh=plan.output["refresh"],
            seed=plan.output["seed"],
            rehearsal=spec.train.rehearsal,
            timeout=spec.train.timeout,
            reuse=REUSE,
            inlets=[dataset_asset(model)],
            **workload_arguments(spec),
        )
        evaluate = EvaluateModelOperator(
            task_id="evaluate",
            model=model,
            dataset=validate.output,
            candidate=fine_tune.output,
            evaluate=spec.evaluate,
            rule_on_new=plan.output["rule_on_new"],
            output=spec.data.output.value,
            on_failure=spec.evaluate.on_failure.value,
            reuse=REUSE,
            **workload_arguments(spec),
        )
        register = RegisterModelOperator(
            task_id="register",
            model=model,
            training=fine_tune.output["result"],
            evaluation=evaluate.output["result"],
            outlets=[version_asset(model)],
        )
        approve = ApproveReleaseOperator(
            task_id="approve",
            model=model,
            required="{{ params.ask_before_release }}",
            candidate=f"{model} v{{{{ ti.xcom_pull(task_ids='register')['version'] }}}}",
            results={"Evaluation": evaluate.output["result"]},
            approvers=spec.governance.approvers,
            timeout=spec.governance.approval_timeout,
        )
        release = CanaryReleaseOperator(
            task_id="release",
            model=model,
            version=register.output["version"],
            canary=spec.canary,
            serve=spec.serve,
            runtime=plan.output["runtime"],
            output_kind=spec.data.output.value,
            inlets=[version_asset(model)],
            outlets=[endpoint_asset(model)],
        )
        chain(plan, validate, fine_tune, evaluate, register, approve, release)
    assert tuple(dag.task_ids) == RETRAIN_TASKS, "task ids never depend on what the model file says"
    return dag


def _validate(model: str, spec: ModelSpec) -> ValidateDatasetOperator:
    data = spec.data
    return ValidateDatasetOperator(
        task_id="validate",
        model=model,
        train=list(data.train),
        evaluation=data.evaluation,
        data_format=data.format.value,
        prompt=data.prompt,
        answer=data.answer,
        system=data.system,
        output=data.output.value,
        holdout=data.holdout,
        suite=data.suite,
        feedback=data.feedback,
        minimum_new_rows=data.minimum_new_rows,
        maximum_new_rows=data.maximum_new_rows,
        extra_data="{{ params.extra_data }}",
        on_failure=data.on_failure.value,
        reuse=REUSE,
        outlets=[dataset_asset(model)],
        **workload_arguments(spec),
    )


def _schedule(model: str, cron: str | None) -> Any:
    alarm = drift_alias(model)
    if cron is None:
        return alarm
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(cron, timezone="UTC"), assets=alarm)
