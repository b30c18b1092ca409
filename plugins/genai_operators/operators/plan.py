"""The first task of a retraining: decide what this run does, say it, and on a dry run stop there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.bases.skipmixin import SkipMixin

from genai_operators.exceptions import ConfigurationError
from genai_operators.operators.links import ReportLink
from genai_operators.operators.retry import FailureRetryPolicy
from genai_operators.reports_app import report_url
from genai_operators.spec.compute import ComputeTarget
from genai_operators.spec.evaluate import NewDataRule
from genai_operators.spec.model import ModelSpec
from genai_operators.store import Store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from genai_operators.operators.gpu_choice import GpuChoice
    from genai_operators.operators.gpu_outlook import Training
    from genai_operators.operators.ladders import Ladders
    from genai_operators.operators.plan_page import PlanPage
    from genai_operators.operators.retraining_reason import Reason
    from genai_operators.release.ledger import LedgerEntry

#: The form's word for "no choice of my own".
AS_THE_FILE_SAYS = "as the model file says"


class Cause(StrEnum):
    """Why a run began."""

    DRIFT = "drift"
    SCHEDULE = "schedule"
    MANUAL = "manual"


class PlanRetrainingOperator(BaseOperator, SkipMixin):
    """Decide what a retraining does, write it to the log, and skip everything downstream on a dry run.

    What it decides is returned, so that every later task of the run sees the same, whatever the ledger says by then:
    ``{"model", "cause", "champion", "recipe", "refresh", "seed", "rule_on_new", "runtime", "dry_run", "hardware"}``;
    ``hardware`` is the URI of what the workloads ask a cluster for, ``None`` on this machine. The page with the plots
    (how soon a canary finds harm, what GPUs cost) is behind the link *Report*. ::

        plan = PlanRetrainingOperator(task_id="plan", model="support_bot", spec=spec, plan_only="{{ params.dry_run }}")
        FineTuneOperator(task_id="fine_tune", recipe="{{ ti.xcom_pull(task_ids='plan')['recipe'] }}", ...)

    :param model: the model's public name.
    :param spec: its model file.
    :param plan_only: print and stop; nothing is started, and only the plan's page is written. Templated.
    :param recipe: instead of the model file's. Templated.
    :param seed: instead of the model file's. Templated.
    :param rule_on_new: what the candidate owes on new rows; ``auto`` is decided here: superior after drift. Templated.
    :param runtime: server of the release, instead of the model file's. Templated.
    :param extra_data: path or URI of more training rows. Templated.
    :param reuse: whether earlier results of the same inputs are used again; for the text only. Templated.
    :param store: URI of the object store; the connection ``genai_store`` when ``None``. Templated.
    """

    template_fields: Sequence[str] = (
        "plan_only",
        "recipe",
        "seed",
        "rule_on_new",
        "runtime",
        "extra_data",
        "reuse",
        "store",
    )
    operator_extra_links: Sequence[BaseOperatorLink] = (ReportLink(),)

    def __init__(
        self,
        *,
        model: str,
        spec: ModelSpec,
        plan_only: bool | str = False,
        recipe: str = AS_THE_FILE_SAYS,
        seed: int | str | None = None,
        rule_on_new: str = NewDataRule.AUTO.value,
        runtime: str | None = None,
        extra_data: str | None = None,
        reuse: bool | str = True,
        store: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", FailureRetryPolicy())
        # `task.output["name"]` in a DAG file then means that part of what is returned.
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.model = model
        self.spec = spec
        self.plan_only = plan_only
        self.recipe = recipe
        self.seed = seed
        self.rule_on_new = rule_on_new
        self.runtime = runtime
        self.extra_data = extra_data
        self.reuse = reuse
        self.store = store
        self.report_url = ""

    def execute(self, context: Context) -> dict[str, Any]:
        """Decide, say it, and skip the rest on a dry run.

        :raises SpecError: the chosen recipe does not exist or is wrong.
        :raises ConfigurationError: the chosen runtime does not exist.
        """
        from genai_operators.hooks import settings
        from genai_operators.operators.gpu_outlook import Training
        from genai_operators.operators.retraining_reason import note_request, reason_of
        from genai_operators.release.last_plan import write_last_plan
        from genai_operators.release.ledger import Ledger
        from genai_operators.spec.loader import read_recipe

        store = Store.open(self.store or settings.store_uri())
        champion = Ledger(store, self.model).champion()
        by_policy, now = cause_of(context) is Cause.DRIFT, time.time()
        reason = reason_of(store, self.model, self.spec, champion=champion, by_policy=by_policy, now=now)
        decided = self._decide(context, champion, reason=reason)
        recipe = read_recipe(decided["recipe"], root=settings.project_root())
        training = Training(recipe=recipe, champion=champion if decided["refresh"] else None, files=self._files())
        ladders, gpus, note = self._hardware(store, training)
        page = self._page(store, decided, champion=champion, training=training, reason=reason, gpus=gpus, gpu_note=note)
        for line in [*self._lines(page, gpus), *(ladders.lines() if ladders is not None else [])]:
            self.log.info("%s", line)
        self.report_url = report_url(page.save(store))
        if decided["dry_run"]:
            self.log.info("dry run: nothing is started")
            self.skip(ti=context["ti"], tasks=context["task"].get_flat_relatives(upstream=False))
        else:
            write_last_plan(store, self.model, spec=self.spec.to_json(), run=context["run_id"])
            if not by_policy:
                note_request(store, self.model, champion=champion, run=context["run_id"], now=now)
        saved = None if ladders is None or decided["dry_run"] else ladders.save(store, self.model)
        return {**decided, "hardware": saved}

    def _decide(
        self, context: Context, champion: LedgerEntry | None, *, reason: Reason | None = None
    ) -> dict[str, Any]:
        cause = cause_of(context)
        refresh = champion is not None and self.spec.train.refresh is not None
        recipe = self.recipe
        if recipe == AS_THE_FILE_SAYS:
            recipe = str(self.spec.train.refresh) if refresh else self.spec.train.recipe
        rule = NewDataRule(self.rule_on_new)
        if rule is NewDataRule.AUTO:
            changed = cause is Cause.DRIFT and (reason is None or reason.rows_changed)
            rule = NewDataRule.SUPERIOR if changed else NewDataRule.NON_INFERIOR
        runtime = self.runtime or self.spec.serve.runtime
        if runtime not in self.spec.serve.runtime_names:
            known = ", ".join(self.spec.serve.runtime_names)
            raise ConfigurationError(
                f"{self.model}: no runtime {runtime!r}; serve.runtimes of the model file has {known}"
            )
        return {
            "model": self.model,
            "cause": cause.value,
            "champion": champion.version if champion else None,
            "recipe": recipe,
            "refresh": refresh and recipe == self.spec.train.refresh,
            "seed": self.spec.train.seed if self.seed in (None, "", "None") else int(str(self.seed)),
            "rule_on_new": rule.value,
            "runtime": runtime,
            "dry_run": is_true(self.plan_only),
        }

    def _page(
        self,
        store: Store,
        decided: dict[str, Any],
        *,
        champion: LedgerEntry | None,
        training: Training,
        reason: Reason,
        gpus: GpuChoice | None,
        gpu_note: str,
    ) -> PlanPage:
        from genai_operators.operators.outlook import canary_forecast, canary_lines, recent_traffic
        from genai_operators.operators.plan_page import PlanPage

        canary = self.spec.canary
        against = f"champion v{champion.version}" if champion else "no champion"
        traffic = recent_traffic(store, champion, canary=canary)
        return PlanPage(
            model=self.model,
            subtitle=f"{decided['cause']} run, {against}; workloads run on {self.spec.compute.target}",
            reason=reason.text,
            headings=("workload", "inputs", "parameters", "takes"),
            workloads=self._workloads(store, decided, against=against, training=training, gpus=gpus),
            release=(
                f"release by runtime {decided['runtime']}:",
                *canary_lines(canary, traffic=traffic, has_champion=champion is not None),
            ),
            deadline_s=canary.deadline.total_seconds(),
            forecast=canary_forecast(canary, traffic) if champion and traffic else None,
            gpus=gpus,
            gpu_note=gpu_note,
        )

    def _workloads(
        self, store: Store, decided: dict[str, Any], *, against: str, training: Training, gpus: GpuChoice | None
    ) -> list[tuple[str, str, str, str]]:
        from genai_operators.hooks import settings
        from genai_operators.operators.earlier_runs import describe, earlier_duration
        from genai_operators.operators.time_estimate import training_estimate

        start = f"from {against}" if decided["refresh"] else f"from {training.recipe.base_model}"
        feedback = "on" if self.spec.data.feedback else "off"
        rows = [
            ("validate", ", ".join(self._files()), f"suite {self.spec.data.suite}, feedback {feedback}"),
            ("fine_tune", "the validated rows", f"recipe {decided['recipe']}, seed {decided['seed']}, {start}"),
            ("evaluate", "the held-out rows", f"against {against}, new rows: {decided['rule_on_new']}"),
        ]
        takes = {row[0]: describe(earlier_duration(store, row[0], model=self.model)) for row in rows}
        if earlier_duration(store, "fine_tune", model=self.model) is None:
            there = gpus if self.spec.compute.target is not ComputeTarget.LOCAL else None
            estimate = training_estimate(training, root=settings.project_root(), gpus=there)
            takes["fine_tune"] = estimate or takes["fine_tune"]
        return [(*row, takes[row[0]]) for row in rows]

    def _hardware(self, store: Store, training: Training) -> tuple[Ladders | None, GpuChoice | None, str]:
        """What to ask a cluster for; on this machine only an outlook, and a note that says so.

        :raises ConfigurationError: see :func:`~genai_operators.operators.cluster_plan.cluster_plan`.
        """
        from genai_operators.hooks import settings
        from genai_operators.operators.cluster_plan import cluster_plan
        from genai_operators.operators.gpu_outlook import gpu_outlook

        root, today = settings.project_root(), datetime.now(UTC).date()
        if self.spec.compute.target is ComputeTarget.LOCAL:
            return None, *gpu_outlook(training, store=store, root=root, today=today)
        ladders, choice = cluster_plan(training, compute=self.spec.compute, store=store, root=root, today=today)
        return ladders, choice, ""

    def _files(self) -> list[str]:
        extra = [] if self.extra_data in (None, "", "None") else [str(self.extra_data)]
        return [*self.spec.data.train, *extra]

    def _lines(self, page: PlanPage, gpus: GpuChoice | None) -> list[str]:
        from genai_operators.operators.outlook import render_table

        reuse = "used again where inputs are unchanged" if is_true(self.reuse) else "not used again"
        return [
            f"plan of {self.model}: {page.subtitle}",
            page.reason,
            *render_table(page.headings, page.workloads),
            f"earlier results are {reuse}",
            page.release[0],
            *(f"  {line}" for line in page.release[1:]),
            *([page.gpu_note] if page.gpu_note else []),
            *(gpus.lines() if gpus is not None and not page.gpu_note else []),
        ]


def cause_of(context: Context) -> Cause:
    """Whether drift, the schedule or a person began this run."""
    run_type = context["dag_run"].run_type
    causes = {"asset_triggered": Cause.DRIFT, "scheduled": Cause.SCHEDULE}
    return causes.get(getattr(run_type, "value", run_type), Cause.MANUAL)


def is_true(value: object) -> bool:
    """A rendered template is a string."""
    return str(value).strip().lower() in ("true", "1", "yes")
