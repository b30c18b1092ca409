"""Judge a candidate on held-out rows, against the champion where there is one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genai_operators.compute.contract import Result, Workload, code_digest
from genai_operators.operators.references import ArtifactLike, artifact_of, champion_model
from genai_operators.operators.retraining_attempts import Attempts
from genai_operators.operators.workload import WorkloadOperator, owner_of
from genai_operators.spec.data import OutputKind
from genai_operators.spec.evaluate import Evaluate, NewDataRule

if TYPE_CHECKING:
    from airflow.sdk import Context


class EvaluateModelOperator(WorkloadOperator):
    """Let the candidate answer held-out rows, and judge it with intervals; in pairs with the champion if there is one.

    On old rows it must not be worse than the champion by more than the margin. On new rows (what users taught since)
    it must be better, or not worse, as ``rule_on_new`` says. JSON answers must parse. ::

        EvaluateModelOperator(
            task_id="evaluate",
            model="support_bot",
            dataset=validate.output,
            candidate=fine_tune.output,
            evaluate={"margin": 0.05, "minimum_exact_match": 0.6},
            output_kind="json",
        )

    Output ``items``: ids and marks of every item.

    :param model: the model's public name.
    :param dataset: what :class:`ValidateDatasetOperator` returned, or the URI of its data set. Templated.
    :param candidate: what :class:`FineTuneOperator` returned, or the URI of a Hugging Face directory. Templated.
    :param evaluate: rules, named as in a model file; see :class:`~genai_operators.spec.evaluate.Evaluate`.
    :param rule_on_new: instead of the rules' own; ``auto`` is superior in a run that drift began. Templated.
    :param output_kind: what an answer is, ``text`` or ``json``.
    :param champion: compare with the champion of the ledger. Off: the candidate is judged by itself.
    :raises GateFailed: the candidate is not good enough, or too few items say so.
    """

    workload_kind = "evaluate"
    template_fields: Sequence[str] = ("dataset", "candidate", "rule_on_new", *WorkloadOperator.template_fields)

    def __init__(
        self,
        *,
        model: str,
        dataset: ArtifactLike,
        candidate: ArtifactLike,
        evaluate: Evaluate | Mapping[str, Any] | None = None,
        rule_on_new: str | None = None,
        output_kind: str = OutputKind.TEXT.value,
        champion: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.dataset = dataset
        self.candidate = candidate
        self.evaluate = Evaluate.model_validate(evaluate or {}).model_dump(mode="json")
        self.rule_on_new = rule_on_new
        self.output_kind = OutputKind(output_kind).value
        self.champion = champion

    def build_workload(self, context: Context) -> Workload:
        """Find the models and decide what the candidate owes on new rows."""
        inputs = {
            "dataset": artifact_of(self.dataset, name="dataset", output="dataset"),
            "candidate": artifact_of(self.candidate, name="candidate", output="model"),
        }
        if self.champion:
            from genai_operators.release.ledger import Ledger

            champion = champion_model(Ledger(self._open_store(), self.model).champion())
            if champion is not None:
                inputs["champion"] = champion
        rules = {name: value for name, value in self.evaluate.items() if name not in ("rule_on_new", "on_failure")}
        return Workload(
            kind=self.workload_kind,
            params={
                "model": self.model,
                "output": self.output_kind,
                **rules,
                "rule_on_new": self._rule(context).value,
            },
            inputs=inputs,
            code_digest=code_digest(),
        )

    def finish(self, context: Context, result: Result) -> dict[str, Any]:
        """Note a rejection: the retraining policy then knows that this attempt did not help."""
        against = result.verdict is not None and result.verdict.outcome in self.blocking_outcomes
        if against and self.on_failure in ("fail", "skip"):
            Attempts(self._open_store(), self.model).reject(owner_of(context), at=time.time())
        return {}

    def _rule(self, context: Context) -> NewDataRule:
        from genai_operators.operators.plan import Cause, cause_of

        rule = NewDataRule(self.rule_on_new or self.evaluate["rule_on_new"])
        if rule is not NewDataRule.AUTO:
            return rule
        return NewDataRule.SUPERIOR if cause_of(context) is Cause.DRIFT else NewDataRule.NON_INFERIOR
