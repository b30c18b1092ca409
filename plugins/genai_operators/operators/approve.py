"""A person's yes before a release, with the scorecard in front of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator

from genai_operators.decisions.verdict import Verdict
from genai_operators.store import locate


class ApproveReleaseOperator(ApprovalOperator):  # type: ignore[misc]  # the provider is untyped here
    """Ask, among Airflow's required actions, whether a registered candidate may go into traffic.

    Without ``required`` the task succeeds at once, so that task ids do not depend on the model file. A rejection skips
    everything downstream; nothing has been deployed by then. While it waits, the task holds neither a worker nor a
    triggerer slot. ::

        ApproveReleaseOperator(
            task_id="approve",
            model="support_bot",
            required=True,
            candidate="{{ ti.xcom_pull(task_ids='register') }}",
            results={"evaluation": "{{ ti.xcom_pull(task_ids='evaluate')['result'] }}"},
        )

    :param model: the model's public name.
    :param required: whether a person is asked; ``true``, ``yes``, ``1`` (any case) or ``True`` mean yes. Templated.
    :param results: title -> URI of a workload's ``result.json``; their verdicts are the scorecard. Templated.
    :param candidate: what is to be released, as the reader should see it. Templated.
    :param approvers: Airflow user names that may decide; everyone with access to the DAG when empty.
    :param timeout: unanswered for this long counts as rejected.
    """

    template_fields: Sequence[str] = ("required", "results", "candidate", "subject", "body")

    def __init__(
        self,
        *,
        model: str,
        required: bool | str = True,
        results: Mapping[str, str] | None = None,
        candidate: str = "",
        approvers: Sequence[str] = (),
        timeout: timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            subject=f"Release a new version of {model}?",
            body="",
            defaults=self.REJECT if timeout else None,
            response_timeout=timeout,
            assigned_users=[{"id": name, "name": name} for name in approvers] or None,
            ignore_downstream_trigger_rules=True,
            **kwargs,
        )
        self.model = model
        self.required = required
        self.results = dict(results or {})
        self.candidate = candidate

    def execute(self, context: Any) -> Any:
        """Park the task until somebody answers, or return at once when nobody has to."""
        if str(self.required).strip().lower() not in ("true", "yes", "1"):
            self.log.info("%s: no approval is required", self.model)
            return None
        self.body = self._scorecard()
        return super().execute(context)

    def _scorecard(self) -> str:
        """Markdown: the candidate, then each gate's verdict."""
        parts = [f"**Candidate**: `{self.candidate}`"] if self.candidate else []
        for title, uri in self.results.items():
            store, path = locate(uri)
            record = store.get_json(path).get("verdict")
            text = Verdict.from_json(record).render_markdown() if record else "no verdict"
            parts.append(f"### {title}\n\n{text}")
        return "\n\n".join(parts)
