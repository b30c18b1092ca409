"""Release a registered version by a canary: a share of live traffic, widened step by step, under statistical guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args

from airflow.sdk import AssetAlias, BaseOperator, BaseOperatorLink
from airflow.sdk.exceptions import AirflowSkipException

from genai_operators.compute.contract import Artifact
from genai_operators.compute.ending import error_class
from genai_operators.exceptions import GateFailed, GenaiError, LedgerConflict, ReleaseAborted
from genai_operators.operators import lineage
from genai_operators.operators.assets import endpoint_asset
from genai_operators.operators.links import ReportLink
from genai_operators.operators.retry import FailureRetryPolicy
from genai_operators.operators.waiting import RELEASE_PATIENCE_S, defer, wait
from genai_operators.operators.workload import owner_of
from genai_operators.reports_app import report_url
from genai_operators.serving.contract import STANDARD_RUNTIME, OutputKind, ServeOptions
from genai_operators.spec.canary import Canary
from genai_operators.spec.serve import Serve

if TYPE_CHECKING:
    from airflow.sdk import Context

    from genai_operators.release.plan import ReleasePlan
    from genai_operators.release.starting import Intent
    from genai_operators.release.subject import ReleaseSubject
    from genai_operators.store import Store

OnRollback = Literal["fail", "warn", "skip"]
PROMOTE, ROLL_BACK = "Promote", "Roll back"
EVIDENCE_TAG = "genai.evidence."
SUBJECT = "genai_operators.release.subject.ReleaseSubject"
#: Parts of the event that say how the waiting went on, not how the release ended.
NOT_IN_REFERENCE = frozenset({"status", "subject"})


class CanaryReleaseOperator(BaseOperator):
    """Release a version of a model; it ends as champion, or the old champion keeps all traffic.

    The version gets a share of live traffic, step by step. It is promoted when every guardrail is *proved* acceptable,
    and rolled back when harm is proved, the blast radius is used up, its server fails, or the deadline comes without a
    proof. The first version of a model has nobody to be compared with: it is verified, deployed and promoted.

    The plan is frozen at the start; edits of the model file do not touch a release under way. Any crash resumes where
    it was. Marking the task failed returns the champion to 100 %; clearing it goes on. After a rollback or an abort the
    same run gives the same answer: trigger a new run for a new release. ::

        CanaryReleaseOperator(
            task_id="release",
            model="support_bot",
            version="{{ ti.xcom_pull(task_ids='register')['version'] }}",
            canary={"steps": [{"percent": 5, "minimum_soak": "1m", "minimum_requests": 20}], "deadline": "1h"},
            outlets=[AssetAlias("support_bot_champion")],
        )

    On a promotion, and on nothing else, every asset alias among the outlets gets an event of the endpoint's asset. A
    plain asset there would have one whenever the task succeeds, also when the endpoint did not change.

    Returns ``{"release", "outcome", "version", "champion_version", "previous", "exposed_requests", "exposed_users",
    "exposed_tokens", "canary_cost", "epoch", "report", ...}``; ``outcome`` is ``promoted``, ``rolled_back`` or
    ``unchanged``.

    :param model: the model's public name.
    :param version: version in the registry. Templated.
    :param digest: what the version must be, as ``RegisterModelOperator`` returns it; what the registry says of itself
        when empty. Templated.
    :param canary: rules, named as in a model file; see :class:`~genai_operators.spec.canary.Canary`.
    :param serve: servers and capture, named as in a model file; see :class:`~genai_operators.spec.serve.Serve`.
    :param runtime: server of this release; ``serve.runtime`` when ``None``. Templated.
    :param output_kind: what a valid answer is, ``json`` or ``text``.
    :param on_failure: what a rollback does to the task: ``fail`` (at once, without a retry), ``warn`` or ``skip``.
    :param store: URI of the object store; the connection ``genai_store`` when ``None``. Templated.
    :param poll_interval: seconds between two looks at the traffic.
    :param deferrable: wait in the triggerer; ``False`` waits on the worker, by the same state machine.
    :raises GateFailed: the candidate was rolled back; the report says why.
    :raises ReleaseAborted: somebody stopped the release.
    :raises LedgerConflict: another release of the model is under way; a retry waits for its end.
    """

    template_fields: Sequence[str] = ("version", "digest", "runtime", "store")
    operator_extra_links: Sequence[BaseOperatorLink] = (ReportLink(),)

    def __init__(
        self,
        *,
        model: str,
        version: int | str,
        digest: str = "",
        canary: Canary | Mapping[str, Any] | None = None,
        serve: Serve | Mapping[str, Any] | None = None,
        runtime: str | None = None,
        output_kind: str = OutputKind.TEXT.value,
        on_failure: OnRollback = "fail",
        store: str | None = None,
        poll_interval: float = 2.0,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", FailureRetryPolicy())
        # `task.output["name"]` in a DAG file then means that part of what is returned.
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        if on_failure not in get_args(OnRollback):
            raise ValueError(f"on_failure is {on_failure!r}; it is one of {', '.join(get_args(OnRollback))}")
        self.model = model
        self.version = version
        self.digest = digest
        self.canary = Canary.model_validate(canary or {}).model_dump(mode="json")
        self.serve = Serve.model_validate(serve or {}).model_dump(mode="json")
        self.runtime = runtime
        self.output_kind = OutputKind(output_kind).value
        self.on_failure: OnRollback = on_failure
        self.store = store
        self.poll_interval = poll_interval
        self.deferrable = deferrable
        self.report_url = ""
        self._lineage: tuple[list[Artifact], list[Artifact]] = ([], [])

    def execute(self, context: Context) -> Any:
        """Verify, freeze the plan or find it, then drive the release until it ends."""
        from genai_operators.hooks.release_parts import describe_parts
        from genai_operators.release.narrate import describe_plan

        parts = describe_parts(store=self.store or None)
        plan = self._plan(context, parts["settings"])
        if plan is None:
            return self._unchanged(parts["settings"])
        for line in describe_plan(plan):
            self.log.info("%s", line)
        store = parts["settings"]["store"]
        return self._wait_for(context, {"store": store, "model": self.model, "release": plan.release, "parts": parts})

    # --- the plan ----------------------------------------------------------------------------------------------

    def _plan(self, context: Context, settings: Mapping[str, Any]) -> ReleasePlan | None:
        """The frozen plan; ``None`` if the candidate is the champion already.

        :raises LedgerConflict: another release is under way.
        """
        from genai_operators.hooks.release_parts import open_serving
        from genai_operators.release.journal import Turns
        from genai_operators.release.plan import ReleasePlan, release_id
        from genai_operators.release.starting import freeze_plan
        from genai_operators.store import Store

        store = Store.open(settings["store"])
        intent = self._intent(context, store, settings)
        release = release_id(intent.owner, intent.candidate)
        if (found := ReleasePlan.find(store, self.model, release)) is not None:
            self.log.info("release %s was started by an earlier try; going on with it and with its plan", release)
            return found
        if intent.champion is not None and intent.champion.id == intent.candidate.id:
            return None
        if (live := Turns(store, self.model).live()) is not None:
            raise LedgerConflict(
                f"release {live} of {self.model} is under way; one release at a time. A retry of this task looks "
                "again; to stop the other one, mark its task failed"
            )
        return freeze_plan(intent, store=store, serving=open_serving(settings, self.model, intent.serve))

    def _intent(self, context: Context, store: Store, settings: Mapping[str, Any]) -> Intent:
        from genai_operators.hooks.release_parts import fetch_deployment, open_registry
        from genai_operators.release.ledger import Ledger
        from genai_operators.release.starting import Intent, champion_of

        serve = Serve.model_validate(self.serve)
        runtime = self.runtime or serve.runtime
        if runtime not in serve.runtime_names:
            raise ValueError(f"runtime {runtime!r} is not one of {', '.join(serve.runtime_names)}")
        epoch, champion = champion_of(Ledger(store, self.model))
        version = int(str(self.version))
        tags = open_registry(settings).get(self.model, version).tags
        return Intent(
            model=self.model,
            owner=owner_of(context),
            candidate=fetch_deployment(
                settings, model=self.model, version=version, runtime=runtime, digest=self.digest
            ),
            champion=None
            if champion is None
            else fetch_deployment(
                settings,
                model=self.model,
                version=champion.version,
                runtime=champion.evidence.get("runtime", STANDARD_RUNTIME),
                digest=champion.digest,
            ),
            ledger_epoch=epoch,
            canary=Canary.model_validate(self.canary),
            serve=serve_options(serve, output=self.output_kind),
            evidence={
                key.removeprefix(EVIDENCE_TAG): value for key, value in tags.items() if key.startswith(EVIDENCE_TAG)
            },
        )

    def _unchanged(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        self.log.info("v%s is the champion already; there is nothing to release", self.version)
        version = int(str(self.version))
        return {
            "outcome": "unchanged",
            "version": version,
            "champion_version": version,
            "previous": version,
            "exposed_requests": 0,
            "exposed_users": 0,
            "exposed_tokens": 0,
            "canary_cost": 0.0,
            "release": None,
            "report": None,
        }

    # --- waiting -----------------------------------------------------------------------------------------------

    def _wait_for(self, context: Context, arguments: dict[str, Any]) -> Any:
        """:param arguments: of the release's subject; the event, or a person's answer, brings them back."""
        if self.deferrable:
            defer(self, SUBJECT, arguments, owner=owner_of(context), poll_interval=self.poll_interval)
        from genai_operators.release.subject import ReleaseSubject

        settled = wait(
            ReleaseSubject(**arguments),
            deadline=None,
            poll_interval=self.poll_interval,
            log=self.log,
            patience_s=RELEASE_PATIENCE_S,
        )
        return self.resume(context, {**settled, "subject": arguments})

    def resume(self, context: Context, event: Mapping[str, Any]) -> Any:
        """The release ended, asks for a person, or could not go on.

        :param event: of :class:`~genai_operators.triggers.SettleTrigger`.
        :raises GenaiError: the class says what happened and whether a retry helps.
        """
        from genai_operators.release.subject import STATUS_ASKING, STATUS_SETTLED, ReleaseSubject

        if event["status"] not in (STATUS_ASKING, STATUS_SETTLED):
            raise (error_class(event.get("error")) or GenaiError)(event.get("message") or str(dict(event)))
        subject = ReleaseSubject(**event["subject"])
        subject.controller.refresh()
        if event["status"] == STATUS_ASKING:
            self._ask(context, event, subject=subject)
        return self._conclude(context, event, subject=subject)

    def _ask(self, context: Context, event: Mapping[str, Any], *, subject: ReleaseSubject) -> NoReturn:
        from airflow.sdk.exceptions import TaskAwaitingInput
        from airflow.sdk.execution_time.hitl import upsert_hitl_detail

        from genai_operators.decisions.verdict import Outcome
        from genai_operators.release.decision import release_verdict

        standing = subject.controller.progress.evidence.standing()
        verdict = release_verdict(standing, outcome=Outcome.INCONCLUSIVE, summary=str(event["reason"]))
        upsert_hitl_detail(
            ti_id=context["ti"].id,
            options=[PROMOTE, ROLL_BACK],
            subject=f"Promote v{subject.plan.candidate.version} of {self.model} without a proof?",
            body=f"{verdict.render_markdown()}\n\nThe champion has all traffic meanwhile.",
        )
        raise TaskAwaitingInput(method_name="answered", kwargs={"subject": event["subject"]})

    def answered(self, context: Context, event: Mapping[str, Any], *, subject: dict[str, Any]) -> Any:
        """A person decided; the release carries it out. :param subject: arguments of the release's subject."""
        from genai_operators.release import decision
        from genai_operators.release.subject import ReleaseSubject

        who = (event.get("responded_by_user") or {}).get("name", "nobody")
        promoted = event.get("chosen_options") == [PROMOTE]
        controller = ReleaseSubject(**subject).controller
        controller.answer(decision.PROMOTE if promoted else decision.ROLL_BACK, by=who)
        return self._wait_for(context, subject)

    def on_kill(self) -> None:
        """Cancels nothing: a restarted scheduler also kills task processes whose tasks live on."""
        self.log.info("this process is being stopped; the release goes on, and the next try adopts it")

    # --- the end -----------------------------------------------------------------------------------------------

    def _conclude(self, context: Context, event: Mapping[str, Any], *, subject: ReleaseSubject) -> Any:
        from genai_operators.release.report import write_report

        progress = subject.controller.progress
        report = write_report(progress, subject.store)
        self.report_url = report_url(f"{progress.plan.directory}/report.html")
        ending = {key: value for key, value in event.items() if key not in NOT_IN_REFERENCE}
        reference = {**ending, "report": report}
        self._remember(context, reference, progress.plan)
        told = f"{event['reason']}. Exposed requests: {event['exposed_requests']}. Report: {report}"
        if event["outcome"] == "promoted":
            self.log.info("v%s is champion of %s: %s", event["version"], self.model, told)
            return reference
        if event["outcome"] == "aborted" or event.get("cause") == "conflict":
            raise ReleaseAborted(
                f"release {event['release']} of {self.model} was stopped: {told} "
                "The champion has all traffic; trigger a new run for a new release."
            )
        return self._rolled_back(reference, told)

    def _rolled_back(self, reference: dict[str, Any], told: str) -> dict[str, Any]:
        message = f"v{reference['version']} of {self.model} was rolled back ({reference['cause']}): {told}"
        if self.on_failure == "warn":
            self.log.warning("%s; going on, as on_failure is 'warn'", message)
            return reference
        if self.on_failure == "skip":
            raise AirflowSkipException(message)
        raise GateFailed(f"{message} The champion has all traffic; trigger a new run for a new release.")

    def _remember(self, context: Context, reference: Mapping[str, Any], plan: ReleasePlan) -> None:
        """For asset events and the lineage event: the endpoint is what changed."""
        model = Artifact(f"x-mlflow://models/{self.model}", plan.candidate.digest)
        if reference["outcome"] == "promoted":
            self._lineage = ([model], [Artifact(f"x-genai://endpoints/{self.model}", plan.candidate.digest)])
            known = {key: reference[key] for key in ("release", "champion_version", "previous", "epoch")}
            for outlet in self.outlets:
                if isinstance(outlet, AssetAlias):
                    context["outlet_events"][outlet].add(endpoint_asset(self.model), extra=known)
                else:
                    context["outlet_events"][outlet].extra = known
        else:
            self._lineage = ([model], [])

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> Any:
        """From the version to the endpoint; ``None`` where OpenLineage's provider is not installed."""
        inputs, outputs = self._lineage
        return lineage.operator_lineage(inputs=inputs, outputs=outputs)


def serve_options(serve: Serve, *, output: str) -> ServeOptions:
    """What a serving target needs to know of a model file."""
    return ServeOptions(
        runtimes={name: runtime.command for name, runtime in serve.runtimes.items()},
        output=OutputKind(output),
        retention_s=serve.capture.retention.total_seconds(),
        capture_bytes=serve.capture.max_bytes,
        timeout_s=serve.timeout.total_seconds(),
    )
