"""Back to an earlier version of a model, by hand or from another DAG."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BaseOperatorLink

from genai_operators.compute.contract import Artifact
from genai_operators.compute.ending import error_class
from genai_operators.exceptions import ConfigurationError, GenaiError
from genai_operators.operators import lineage
from genai_operators.operators.canary import NOT_IN_REFERENCE, serve_options
from genai_operators.operators.links import ReportLink
from genai_operators.operators.retry import FailureRetryPolicy
from genai_operators.operators.waiting import RELEASE_PATIENCE_S, defer, wait
from genai_operators.operators.workload import owner_of
from genai_operators.reports_app import report_url
from genai_operators.serving.contract import STANDARD_RUNTIME, OutputKind
from genai_operators.spec.serve import Serve

if TYPE_CHECKING:
    from airflow.sdk import Context

    from genai_operators.release.ledger import Ledger, LedgerEntry

SUBJECT = "genai_operators.release.rollback.RollbackSubject"
#: What an empty field of a form is rendered to.
NOTHING = ("", "None")


class RollbackOperator(BaseOperator):
    """Make an earlier version champion again; no request is lost on the way.

    The version is verified, started beside the champion, written into the ledger as a rollback, and given all traffic.
    A release under way is stopped first. A repetition finds what the first try did. ::

        RollbackOperator(task_id="rollback", model="support_bot", reason="{{ params.reason }}")

    Returns ``{"outcome", "champion_version", "previous", "epoch", "report", ...}``.

    :param model: the model's public name.
    :param version: version that takes over; empty: the champion before the present one, per ledger. Templated.
    :param reason: stands in the ledger for good. Templated.
    :param serve: servers and capture, named as in a model file; see :class:`~genai_operators.spec.serve.Serve`.
    :param output_kind: what a valid answer is, ``json`` or ``text``.
    :param ready_timeout: longest wait for the version's server.
    :param store: URI of the object store; the connection ``genai_store`` when ``None``. Templated.
    :param deferrable: wait in the triggerer; ``False`` waits on the worker.
    :raises ConfigurationError: there is no such version to go back to.
    :raises SignatureInvalid: the version is not what was signed; nothing was changed.
    :raises LedgerConflict: somebody promoted meanwhile; a retry looks at the new champion.
    """

    template_fields: Sequence[str] = ("version", "reason", "store")
    operator_extra_links: Sequence[BaseOperatorLink] = (ReportLink(),)

    def __init__(
        self,
        *,
        model: str,
        version: int | str | None = None,
        reason: str = "asked for",
        serve: Serve | Mapping[str, Any] | None = None,
        output_kind: str = OutputKind.TEXT.value,
        ready_timeout: timedelta = timedelta(minutes=5),
        store: str | None = None,
        poll_interval: float = 1.0,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", FailureRetryPolicy())
        # `task.output["name"]` in a DAG file then means that part of what is returned.
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.model = model
        self.version = version
        self.reason = reason
        self.serve = Serve.model_validate(serve or {}).model_dump(mode="json")
        self.output_kind = OutputKind(output_kind).value
        self.ready_timeout = ready_timeout
        self.store = store
        self.poll_interval = poll_interval
        self.deferrable = deferrable
        self.report_url = ""
        self._lineage: tuple[list[Artifact], list[Artifact]] = ([], [])

    def execute(self, context: Context) -> Any:
        """Choose the version, verify it, then wait until it is champion."""
        from genai_operators.hooks.release_parts import describe_parts, fetch_deployment
        from genai_operators.release.ledger import Ledger
        from genai_operators.release.plan import serve_options_to_json
        from genai_operators.release.rollback import RollbackSubject
        from genai_operators.store import Store

        parts = describe_parts(store=self.store or None)
        store = Store.open(parts["settings"]["store"])
        owner = owner_of(context)
        ledger = Ledger(store, self.model)
        epoch, target = self._target(ledger, request=owner.key)
        runtime = target.evidence.get("runtime", STANDARD_RUNTIME)
        deployment = fetch_deployment(
            parts["settings"], model=self.model, version=target.version, runtime=runtime, digest=target.digest
        )
        serve = serve_options_to_json(serve_options(Serve.model_validate(self.serve), output=self.output_kind))
        arguments: dict[str, Any] = {
            "store": store.uri,
            "target": deployment.to_json(),
            "expected_epoch": epoch,
            "owner": owner.to_json(),
            "reason": self.reason,
            "serve": serve,
            "ready_timeout_s": self.ready_timeout.total_seconds(),
            "began_at": time.time(),
            "parts": parts,
        }
        self.log.info("rolling %s back to v%s", self.model, target.version)
        if self.deferrable:
            defer(self, SUBJECT, arguments, owner=owner, poll_interval=self.poll_interval)
        settled = wait(
            RollbackSubject(**arguments),
            deadline=None,
            poll_interval=self.poll_interval,
            log=self.log,
            patience_s=RELEASE_PATIENCE_S,
        )
        return self.resume(context, {**settled, "subject": arguments})

    def _target(self, ledger: Ledger, *, request: str) -> tuple[int, LedgerEntry]:
        """Epoch to expect and the entry that made the target champion, read at one moment.

        :raises ConfigurationError: the ledger knows no such version.
        """
        from genai_operators.release.ledger import champions
        from genai_operators.release.rollback import REQUEST

        entries = ledger.verify()
        for number, entry in enumerate(entries):
            if entry.evidence.get(REQUEST) == request:
                return number, entry
        reigns = champions(entries)
        if self.version is None or str(self.version) in NOTHING:
            if len(reigns) < 2:
                raise ConfigurationError(f"{self.model} has no champion before the present one; name a version")
            return entries[-1].epoch, reigns[-2]
        known = [entry for entry in entries if entry.version == int(str(self.version)) and entry.action != "retire"]
        if not known:
            served = ", ".join(f"v{version}" for version in sorted({entry.version for entry in entries})) or "none yet"
            raise ConfigurationError(
                f"{self.model} v{self.version} was never champion (the ledger knows {served}); release it by a canary"
            )
        return entries[-1].epoch, known[-1]

    def resume(self, context: Context, event: Mapping[str, Any]) -> Any:
        """The version is champion, or could not be.

        :raises GenaiError: the class says what happened and whether a retry helps.
        """
        if event["status"] != "settled":
            raise (error_class(event.get("error")) or GenaiError)(event.get("message") or str(dict(event)))
        from genai_operators.release.rollback_report import write_rollback_report
        from genai_operators.store import Store

        store = Store.open(event["subject"]["store"])
        report = write_rollback_report(store, self.model, epoch=event["epoch"])
        self.report_url = report_url(report)
        digest = str(event["digest"])
        endpoint = Artifact(f"x-genai://endpoints/{self.model}", digest)
        self._lineage = ([Artifact(f"x-mlflow://models/{self.model}", digest)], [endpoint])
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {key: event[key] for key in ("champion_version", "epoch")}
        ending = {key: value for key, value in event.items() if key not in NOT_IN_REFERENCE}
        return {**ending, "report": store.uri_of(report)}

    def on_kill(self) -> None:
        """Cancels nothing: a restarted scheduler also kills task processes whose tasks live on."""
        self.log.info("this process is being stopped; the rollback goes on, and the next try adopts it")

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> Any:
        """From the version to the endpoint; ``None`` where OpenLineage's provider is not installed."""
        inputs, outputs = self._lineage
        return lineage.operator_lineage(inputs=inputs, outputs=outputs)
