"""The operator that runs any workload on any compute. Stages subclass it and add only their own parameters."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, get_args

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.exceptions import AirflowSkipException

from genai_operators.compute import attempts
from genai_operators.compute.budget import find_spent
from genai_operators.compute.cancelling import withdraw
from genai_operators.compute.contract import Artifact, Result, Workload
from genai_operators.compute.ending import error_class
from genai_operators.compute.owners import Owner
from genai_operators.compute.reach import bring_within_reach
from genai_operators.compute.standing import LIMITED_PHASES, RESUMES_WITHOUT_PROGRESS, Limits
from genai_operators.compute.watch import STATUS_TIMEOUT, WorkloadSubject
from genai_operators.decisions.verdict import Outcome, Verdict
from genai_operators.exceptions import (
    ConfigurationError,
    GateFailed,
    WorkloadFailed,
    WorkloadTimeout,
)
from genai_operators.operators import lineage
from genai_operators.operators.links import ReportLink, RunLink
from genai_operators.operators.placement import HardwareLike, Placement, place
from genai_operators.operators.retry import FailureRetryPolicy
from genai_operators.operators.waiting import defer, start, wait
from genai_operators.reports_app import report_url, run_url
from genai_operators.store import Store, canonical_json

if TYPE_CHECKING:
    from airflow.sdk import Context

OnFailure = Literal["fail", "warn", "skip", "ask"]
SUBJECT = f"{WorkloadSubject.__module__}.{WorkloadSubject.__qualname__}"
LARGEST_REFERENCE_BYTES = 2048
ACCEPT, REJECT = "Continue", "Stop"


class WorkloadOperator(BaseOperator):
    """Run one workload, once, and return a reference to what came out.

    The workload's identity is its content. Unchanged inputs reuse the earlier result; a retry, on any worker, meets the
    job that the first try started; a job that was killed resumes from its newest valid checkpoint. Neither this task's
    process nor a triggerer has to live for that.

    A subclass names its :attr:`workload_kind` and says what to compute::

        class CountWords(WorkloadOperator):
            workload_kind = "count_words"
            template_fields = ("text", *WorkloadOperator.template_fields)

            def __init__(self, *, text: str, **kwargs):
                super().__init__(**kwargs)
                self.text = text

            def build_workload(self, context):
                return Workload(kind=self.workload_kind, params={"text": self.text}, code_digest=code_digest())

    The XCom it returns is ``{"workload", "result", "outputs": {name: {"uri", "digest"}}, "verdict", "report"}`` with
    whatever :meth:`finish` adds, at most 2 kB.

    :param compute: where it runs: a target's name or ``{"target": ..., settings}``.
    :param hardware: what it asks a cluster for, see :class:`~genai_operators.compute.resources.Resources`: a mapping;
        a list, the preferred first and what to fall back to after it; or the URI that the plan returned. Templated.
    :param max_cost: most that the workload may cost, over all its attempts, in the price file's currency. At the limit
        it checkpoints and stops. Templated.
    :param store: URI of the object store; the connection ``genai_store`` when ``None``. Templated.
    :param reuse: ``False`` computes once more for every DAG run, even when nothing changed. Templated.
    :param timeout: how long this try may wait for the workload. Then it is asked to checkpoint and stop, and
        :class:`~genai_operators.exceptions.WorkloadTimeout` is raised; the checkpoints are kept.
    :param phase_timeouts: limits of the phases ``queued``, ``starting``, ``running`` and ``preempted`` of each attempt.
    :param resumes_without_progress: how often in a row it may resume without a newer checkpoint; then
        :class:`~genai_operators.exceptions.NoProgress` is raised.
    :param poll_interval: seconds between two looks at it.
    :param on_failure: what to do when the gate's verdict is against it: ``fail``; ``warn`` and go on; ``skip`` this
        task; or ``ask`` a person, among Airflow's required actions.
    :param deferrable: wait in the triggerer, which submits to a cluster as well; ``False`` waits on the worker, by the
        same state machine.
    """

    workload_kind: ClassVar[str]
    #: Which environment the workload needs: ``airflow`` for light ones, ``workload`` for those with torch.
    environment: ClassVar[Literal["airflow", "workload"]] = "workload"
    #: Verdicts that are against it. Silence is: what could not be judged does not pass.
    blocking_outcomes: ClassVar[frozenset[Outcome]] = frozenset({Outcome.FAIL, Outcome.INCONCLUSIVE})

    template_fields: Sequence[str] = ("store", "reuse", "hardware", "max_cost")
    operator_extra_links: Sequence[BaseOperatorLink] = (ReportLink(), RunLink())

    def __init__(
        self,
        *,
        compute: str | Mapping[str, Any] = "local",
        hardware: HardwareLike = None,
        max_cost: float | str | None = None,
        store: str | None = None,
        reuse: bool | str = True,
        timeout: timedelta | None = None,
        phase_timeouts: Mapping[str, timedelta] | None = None,
        resumes_without_progress: int = RESUMES_WITHOUT_PROGRESS,
        poll_interval: float = 2.0,
        on_failure: OnFailure = "fail",
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", FailureRetryPolicy())
        # `task.output["name"]` in a DAG file then means that part of the reference.
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        if on_failure not in get_args(OnFailure):
            raise ValueError(f"on_failure is {on_failure!r}; it is one of {', '.join(get_args(OnFailure))}")
        if unknown := sorted(set(phase_timeouts or {}) - LIMITED_PHASES):
            raise ValueError(f"phase_timeouts names {unknown[0]!r}; phases are {', '.join(sorted(LIMITED_PHASES))}")
        self.compute = compute
        self.hardware = hardware
        self.max_cost = max_cost
        self.store = store
        self.reuse = reuse
        self.timeout = timeout
        self.phase_timeouts = phase_timeouts
        self.resumes_without_progress = resumes_without_progress
        self.poll_interval = poll_interval
        self.on_failure: OnFailure = on_failure
        self.deferrable = deferrable
        self.report_url = ""
        self.run_url = ""
        self._lineage: tuple[Mapping[str, Artifact], Mapping[str, Artifact]] = ({}, {})

    # --- what a subclass says ----------------------------------------------------------------------------------

    @abstractmethod
    def build_workload(self, context: Context) -> Workload:
        """What is to be computed. Runs on the worker, once templates are rendered; may read the store."""

    def finish(self, context: Context, result: Result) -> dict[str, Any]:
        """More to say in the returned reference, or to publish (asset events). Called whatever the verdict is."""
        return {}

    # --- running -----------------------------------------------------------------------------------------------

    def execute(self, context: Context) -> Any:
        """Reuse, adopt or begin; then wait."""
        workload = self.build_workload(context)
        if str(self.reuse).strip().lower() not in ("true", "1", "yes"):  # a rendered template is a string
            workload = replace(workload, nonce=context["run_id"])
        store, owner = self._open_store(), owner_of(context)
        joined = attempts.join(store, workload, owner)
        self.run_url = run_url(joined.directory)  # Airflow asks for the link whenever this process ends, so also here
        if joined.result is not None and not joined.returning:
            self._log_reuse(store, joined.directory, joined.result)
            return self._conclude(context, store, joined.directory, joined.result)
        placement = place(
            compute=self.compute,
            hardware=self.hardware,
            max_cost=self.max_cost,
            kind=workload.kind,
            environment=self.environment,
        )
        if placement.is_elsewhere:
            self._log_lines(bring_within_reach(store, workload))
        arguments: dict[str, Any] = {
            "store": store.uri,
            "directory": joined.directory,
            **placement.arguments(),
            "owner": owner.to_json(),
            "after": joined.after,
            "limits": self._limits(placement),
        }
        subject = WorkloadSubject(**arguments)
        self.log.info("workload %s at %s", joined.directory, store.uri_of(joined.directory))
        if not (self.deferrable and placement.is_elsewhere):
            # Elsewhere the triggerer submits: it has the cluster's client, which a worker would import for a second.
            start(subject, log=self.log)
        deadline = time.time() + self.timeout.total_seconds() if self.timeout else None
        if self.deferrable:
            defer(self, SUBJECT, arguments, owner=owner, poll_interval=self.poll_interval, deadline=deadline)
        settled = wait(subject, deadline=deadline, poll_interval=self.poll_interval, log=self.log)
        return self.resume(context, {**settled, "subject": arguments})

    def resume(self, context: Context, event: Mapping[str, Any]) -> Any:
        """The waiting is over: leave the owners, then return the reference or raise what happened.

        :param event: of :class:`~genai_operators.triggers.SettleTrigger`.
        :raises GenaiError: the class says what happened and whether a retry helps.
        """
        opened, directory = Store.open(event["subject"]["store"]), event["subject"]["directory"]
        self.run_url = run_url(directory)
        owner = owner_of(context)
        if event["status"] == STATUS_TIMEOUT:
            withdraw(opened, directory, owner, reason=f"{owner} waited longer than its timeout")
            raise WorkloadTimeout(
                f"{directory}: not finished within the timeout of {self.timeout}; it was asked to checkpoint and stop. "
                "Raise the timeout and run the task again: it resumes."
            )
        withdraw(opened, directory, owner, reason=f"{owner} has settled")
        result = attempts.find_result(opened, directory) if event["status"] == "succeeded" else None
        if result is None:
            raise (error_class(event.get("error")) or WorkloadFailed)(event.get("message") or f"{directory}: {event}")
        return self._conclude(context, opened, directory, result)

    def on_kill(self) -> None:
        """Cancels nothing: a restarted scheduler also kills task processes whose tasks live on."""
        self.log.info("this process is being stopped; the workload goes on, and the next try adopts it")

    # --- the result --------------------------------------------------------------------------------------------

    def _conclude(self, context: Context, store: Store, directory: str, result: Result) -> Any:
        self._remember(store, directory, result)
        reference = {
            "workload": directory.partition("/")[2],
            "result": store.uri_of(f"{directory}/result.json"),
            "outputs": {name: artifact.to_json() for name, artifact in result.outputs.items()},
            "verdict": None if result.verdict is None else str(result.verdict.outcome),
            "report": result.report_uri,
            **self._cost(store, directory),
            **self.finish(context, result),
        }
        if (size := len(canonical_json(reference))) > LARGEST_REFERENCE_BYTES:
            raise ConfigurationError(
                f"{type(self).__name__}.finish returned too much: the reference is {size} bytes, at most "
                f"{LARGEST_REFERENCE_BYTES} go into XCom. Put data into the store and return its URI."
            )
        verdict = result.verdict
        if verdict is None or verdict.outcome not in self.blocking_outcomes:
            return reference
        return self._object(context, verdict, reference, store=store.uri, directory=directory)

    def _cost(self, store: Store, directory: str) -> dict[str, Any]:
        """What all attempts together have cost; nothing where that is not known (this machine is there anyway)."""
        spent = find_spent(store, directory)
        if spent is None:
            return {}
        self.log.info("%s", spent.describe())
        return {"cost": round(spent.cost, 4), "currency": spent.currency, "gpu_hours": round(spent.gpu_hours, 4)}

    def _remember(self, store: Store, directory: str, result: Result) -> None:
        """For the log, the report link and the lineage event, all of which come after this process did the work."""
        spec = store.get_json(f"{directory}/spec.json")
        inputs = {name: Artifact.from_json(artifact) for name, artifact in spec["inputs"].items()}
        self._lineage = (inputs, result.outputs)
        self.run_url = run_url(directory)
        if result.report_uri is not None:
            self.report_url = report_url(store.path_of(result.report_uri))
        figures = ", ".join(f"{name} {value:.4g}" for name, value in sorted(result.metrics.items()))
        memory_mb = result.peak_memory_bytes / 1e6
        self.log.info("computed in %.1f s, %.0f MB at most. %s", result.seconds, memory_mb, figures)
        if result.verdict is not None:
            self._log_lines(result.verdict.render_text().splitlines())

    def _object(self, context: Context, verdict: Verdict, reference: dict[str, Any], **where: str) -> Any:
        """The gate is against it: do what the author chose."""
        if self.on_failure == "warn":
            self.log.warning("%s; going on, as on_failure is 'warn'", verdict.summary)
            return reference
        if self.on_failure == "skip":
            raise AirflowSkipException(verdict.summary)
        if self.on_failure == "ask":
            self._ask(context, verdict, reference, **where)
        raise GateFailed(f"{verdict.render_text()}\nReport: {reference['report']}")

    def _ask(self, context: Context, verdict: Verdict, reference: dict[str, Any], **where: str) -> NoReturn:
        from airflow.sdk.exceptions import TaskAwaitingInput
        from airflow.sdk.execution_time.hitl import upsert_hitl_detail

        upsert_hitl_detail(
            ti_id=context["ti"].id,
            options=[ACCEPT, REJECT],
            subject=f"{self.task_id}: {verdict.summary}",
            body=f"{verdict.render_markdown()}\n\nReport: `{reference['report']}`",
        )
        raise TaskAwaitingInput(method_name="answered", kwargs={"reference": reference, **where})

    def answered(
        self, context: Context, event: Mapping[str, Any], *, reference: dict[str, Any], store: str, directory: str
    ) -> Any:
        """A person decided about a verdict that was against it. :raises GateFailed: they stopped it."""
        opened = Store.open(store)
        result = Result.from_json(opened.get_json(f"{directory}/result.json"))
        self._remember(opened, directory, result)
        who = (event.get("responded_by_user") or {}).get("name", "nobody")
        if event.get("chosen_options") != [ACCEPT]:
            told = f"stopped by {who} after the verdict {reference['verdict']}"
            raise GateFailed(f"{told}. Report: {reference['report']}")
        self.log.info("%s decided to go on in spite of the verdict %s", who, reference["verdict"])
        return reference

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> Any:
        """Inputs and outputs as OpenLineage data sets; ``None`` where its provider is not installed."""
        inputs, outputs = self._lineage
        return lineage.operator_lineage(inputs=inputs.values(), outputs=outputs.values())

    # --- settings ----------------------------------------------------------------------------------------------

    def _open_store(self) -> Store:
        from genai_operators.hooks import settings

        return Store.open(self.store or settings.store_uri())

    def _limits(self, placement: Placement) -> dict[str, Any]:
        seconds: dict[str, Any] = {
            f"{phase}_s": limit.total_seconds() for phase, limit in (self.phase_timeouts or {}).items()
        }
        resumes = {"resumes_without_progress": self.resumes_without_progress}
        return Limits(**{**placement.limits(), **seconds, **resumes}).to_json()

    def _log_reuse(self, store: Store, directory: str, result: Result) -> None:
        claim = store.find_json(f"{directory}/attempts/{result.attempt}/claim.json") or {}
        by = Owner.from_json(claim["by"]) if claim.get("by") else "an earlier run"
        self.log.info("inputs unchanged: reused the result of %s (computed for %s)", directory, by)

    def _log_lines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.log.info("%s", line)


def owner_of(context: Context) -> Owner:
    """The task instance of a context, the same for all its tries."""
    ti = context["ti"]
    map_index = -1 if ti.map_index is None else ti.map_index
    return Owner(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=map_index)
