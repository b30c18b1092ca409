"""``<model>__retrain``: plan, validate, fine-tune, evaluate, register, approve, release."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, chain

from genai_operators.lifecycle.common import dag_arguments, evaluation_arguments, training_arguments, workload_arguments
from genai_operators.lifecycle.form import attach_form, retrain_form
from genai_operators.lifecycle.names import (
    RETRAIN_TASKS,
    Lifecycle,
    champion_alias,
    dataset_asset,
    drift_alias,
    evaluation_asset,
    rows_asset,
    version_asset,
    weights_asset,
)
from genai_operators.operators.approve import ApproveReleaseOperator
from genai_operators.operators.assets import endpoint_asset
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
        decided: Any = plan.output
        validate = _validate(model, spec)
        dataset: Any = validate.output
        fine_tune = FineTuneOperator(
            task_id="fine_tune",
            model=model,
            dataset=dataset,
            recipe=decided["recipe"],
            refresh=decided["refresh"],
            seed=decided["seed"],
            rehearsal=spec.train.rehearsal,
            reuse=REUSE,
            inlets=[dataset_asset(model)],
            outlets=[weights_asset(model)],
            **training_arguments(spec, hardware=decided["hardware"]),
        )
        trained: Any = fine_tune.output
        evaluate = EvaluateModelOperator(
            task_id="evaluate",
            model=model,
            dataset=dataset,
            candidate=trained,
            evaluate=spec.evaluate,
            rule_on_new=decided["rule_on_new"],
            output_kind=spec.data.output.value,
            on_failure=spec.evaluate.on_failure.value,
            reuse=REUSE,
            inlets=[dataset_asset(model), weights_asset(model)],
            outlets=[evaluation_asset(model)],
            **evaluation_arguments(spec, hardware=decided["hardware"]),
        )
        evaluated: Any = evaluate.output
        register = RegisterModelOperator(
            task_id="register",
            model=model,
            training=trained["result"],
            evaluation=evaluated["result"],
            inlets=[weights_asset(model), evaluation_asset(model)],
            outlets=[version_asset(model)],
        )
        registered: Any = register.output
        approve = ApproveReleaseOperator(
            task_id="approve",
            model=model,
            required="{{ params.ask_before_release }}",
            candidate=f"{model} v{{{{ ti.xcom_pull(task_ids='register')['version'] }}}}",
            results={"Evaluation": evaluated["result"]},
            approvers=spec.governance.approvers,
            timeout=spec.governance.approval_timeout,
        )
        release = CanaryReleaseOperator(
            task_id="release",
            model=model,
            version=registered["version"],
            digest=registered["digest"],
            canary=spec.canary,
            serve=spec.serve,
            runtime=decided["runtime"],
            output_kind=spec.data.output.value,
            inlets=[version_asset(model)],
            outlets=[champion_alias(model)],
        )
        chain(plan, validate, fine_tune, evaluate, register, approve, release)
    attach_form(dag, retrain_form(spec, recipes=recipes))
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
        output_kind=data.output.value,
        holdout=data.holdout,
        suite=data.suite,
        feedback=data.feedback,
        minimum_new_rows=data.minimum_new_rows,
        maximum_new_rows=data.maximum_new_rows,
        extra_data="{{ params.extra_data }}",
        on_failure=data.on_failure.value,
        reuse=REUSE,
        inlets=[rows_asset(model), *([endpoint_asset(model)] if data.feedback else [])],
        outlets=[dataset_asset(model)],
        **workload_arguments(spec),
    )


def _schedule(model: str, cron: str | None) -> Any:
    alarm = drift_alias(model)
    if cron is None:
        return alarm
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(cron, timezone="UTC"), assets=alarm)
