"""Sign a trained model and make it a version of the registry."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BaseOperatorLink

from genai_operators.compute.budget import TOTAL_NAME, Spent
from genai_operators.compute.contract import Artifact, Result
from genai_operators.exceptions import BadWorkload
from genai_operators.operators import lineage
from genai_operators.operators.canary import EVIDENCE_TAG
from genai_operators.operators.links import ReportLink
from genai_operators.operators.retry import FailureRetryPolicy
from genai_operators.reports_app import report_url
from genai_operators.store import Store, locate

if TYPE_CHECKING:
    from airflow.sdk import Context

    from genai_operators.release.card import CardFacts

MODEL_OUTPUT = "model"


class RegisterModelOperator(BaseOperator):
    """Make a version of a fine-tuned model: manifest, signature, model card, tags; in MLflow as plain files.

    The same weights are the same version, however often this runs. A version counts only once everything was uploaded
    and read back; a crash leaves nothing that could be released. Weights other than safetensors are refused.

    Alone among the stages it is not deferrable: there is nothing to wait for. It copies files, signs them and uploads
    them, which belongs on a worker and not in the triggerer that all tasks share; a pod could do it only with the
    private key. Each step of it may be repeated, so a retry goes on where a killed try stopped. ::

        RegisterModelOperator(
            task_id="register",
            model="support_bot",
            training="{{ ti.xcom_pull(task_ids='fine_tune')['result'] }}",
            evaluation="{{ ti.xcom_pull(task_ids='evaluate')['result'] }}",
        )

    Returns ``{"model", "version", "digest", "uri", "verdict", "report"}``; ``uri`` is the model's directory in the
    store, ``report`` the model card as a page.

    :param model: the model's public name.
    :param training: URI of the ``result.json`` of the fine-tuning. Templated.
    :param evaluation: URI of the ``result.json`` of the evaluation; without one the version says so. Templated.
    :param evidence: name -> URI or text that the ledger shall keep with a promotion of this version. Templated.
    :param store: URI of the object store, for the report; the connection ``genai_store`` when ``None``. Templated.
    :raises RegistryUnavailable: MLflow does not answer; a retry goes on where this try stopped.
    :raises UnsafeWeights: a file could run code when loaded.
    :raises ManifestMismatch: the stored model is not what the training wrote.
    """

    template_fields: Sequence[str] = ("training", "evaluation", "evidence", "store")
    operator_extra_links: Sequence[BaseOperatorLink] = (ReportLink(),)

    def __init__(
        self,
        *,
        model: str,
        training: str,
        evaluation: str | None = None,
        evidence: Mapping[str, str] | None = None,
        store: str | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", FailureRetryPolicy())
        # `task.output["name"]` in a DAG file then means that part of what is returned.
        kwargs.setdefault("multiple_outputs", True)
        super().__init__(**kwargs)
        self.model = model
        self.training = training
        self.evaluation = evaluation
        self.evidence = dict(evidence or {})
        self.store = store
        self.report_url = ""
        self._lineage: tuple[list[Artifact], list[Artifact]] = ([], [])

    def execute(self, context: Context) -> dict[str, Any]:
        """Download and verify the model, sign it, write its card, upload all of it, mark it complete."""
        from genai_operators.hooks import settings
        from genai_operators.hooks.registry import ModelRegistry

        registry = ModelRegistry(settings.mlflow_uri())
        keys = settings.signing()
        training, spec = _read_result(self.training)
        evaluation = None if not self.evaluation else _read_result(self.evaluation)[0]
        costs = self._costs()
        artifact = training.outputs.get(MODEL_OUTPUT)
        if artifact is None:
            raise BadWorkload(f"{self.training} has no output {MODEL_OUTPUT!r}; is it the result of a fine-tuning?")
        tags = {**self._tags(context, artifact, spec, evaluation), **_cost_tags(costs)}
        with tempfile.TemporaryDirectory() as folder:
            package = Path(folder) / "package"
            facts = _build_package(
                package, self.model, artifact=artifact, training=training, spec=spec, evaluation=evaluation, keys=keys
            )
            self.log.info("signed %s, digest %s", artifact.uri, artifact.digest[:12])
            figures = {**(evaluation.metrics if evaluation else {}), **_cost_metrics(costs)}
            version = registry.register(self.model, package, tags=tags, metrics={**training.metrics, **figures})
        self.log.info("%s v%s is complete in MLflow at %s", self.model, version.version, registry.rest.uri)
        self._remember(context, artifact, version.version)
        store = Store.open(self.store or settings.store_uri())
        report = self._report(store, facts, version=version.version)
        return {
            "model": self.model,
            "version": version.version,
            "digest": artifact.digest,
            "uri": artifact.uri,
            "verdict": tags.get("genai.evaluation"),
            "report": report,
        }

    def _report(self, store: Store, facts: CardFacts, *, version: int) -> str:
        """Put the model card where the link finds it; its URI."""
        from genai_operators.release.card import card_page
        from genai_operators.report import report_path

        path = report_path(self.model, f"version-{version}")
        store.put(path, card_page(facts, version=version).html().encode())
        self.report_url = report_url(path)
        return store.uri_of(path)

    def _costs(self) -> dict[str, Spent]:
        """Of training and evaluation, as far as they are known."""
        stages = {"training": self.training, "evaluation": self.evaluation}
        found = {stage: _read_spent(uri) for stage, uri in stages.items() if uri}
        return {stage: spent for stage, spent in found.items() if spent is not None}

    def _tags(
        self, context: Context, artifact: Artifact, spec: Mapping[str, Any], evaluation: Result | None
    ) -> dict[str, str]:
        evidence = {"model": artifact.uri, "training": self.training, **self.evidence}
        dataset = spec.get("inputs", {}).get("dataset")
        if dataset:
            evidence |= {"dataset": dataset["uri"], "dataset_digest": dataset["digest"]}
        verdict = evaluation.verdict if evaluation else None
        if self.evaluation:
            evidence["evaluation"] = self.evaluation
        return {
            "genai.fingerprint": str(spec.get("fingerprint", "")),
            "genai.dataset": evidence.get("dataset_digest", ""),
            "genai.evaluation": str(verdict.outcome) if verdict else "none",
            "genai.run": f"{context['ti'].dag_id}/{context['run_id']}",
            **{f"{EVIDENCE_TAG}{name}": value for name, value in evidence.items()},
        }

    def _remember(self, context: Context, artifact: Artifact, version: int) -> None:
        self._lineage = ([artifact], [Artifact(f"x-mlflow://models/{self.model}", artifact.digest)])
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {"version": version, "digest": artifact.digest}

    def get_openlineage_facets_on_complete(self, _task_instance: Any) -> Any:
        """From the weights to the version; ``None`` where OpenLineage's provider is not installed."""
        inputs, outputs = self._lineage
        return lineage.operator_lineage(inputs=inputs, outputs=outputs)


def _read_result(uri: str) -> tuple[Result, dict[str, Any]]:
    """A workload's result and its spec."""
    store, name = locate(uri)
    return Result.from_json(store.get_json(name)), store.get_json("spec.json")


def _read_spent(uri: str) -> Spent | None:
    """What the workload of a result has cost; ``None`` where that is not known."""
    record = locate(uri)[0].find_json(TOTAL_NAME)
    return None if record is None else Spent.from_json(record)


def _cost_tags(costs: Mapping[str, Spent]) -> dict[str, str]:
    """What the version has cost, training and evaluation together."""
    if not costs:
        return {}
    currency = next((spent.currency for spent in costs.values() if spent.currency), "")
    cost = f"{sum(spent.cost for spent in costs.values()):.2f} {currency}".rstrip()
    return {"genai.cost": cost, "genai.gpu_hours": f"{sum(spent.gpu_hours for spent in costs.values()):.2f}"}


def _cost_metrics(costs: Mapping[str, Spent]) -> dict[str, float]:
    """The same for each."""
    return {
        f"{stage}_{figure}": value
        for stage, spent in costs.items()
        for figure, value in (("cost", spent.cost), ("gpu_hours", spent.gpu_hours))
    }


def _build_package(
    package: Path,
    model: str,
    *,
    artifact: Artifact,
    training: Result,
    spec: Mapping[str, Any],
    evaluation: Result | None,
    keys: Any,
) -> CardFacts:
    """Write model, manifest, card and signature; what the card says."""
    from genai_operators.exceptions import ManifestMismatch
    from genai_operators.release import signing
    from genai_operators.release.card import CardFacts, build_card
    from genai_operators.release.verification import (
        CARD_NAME,
        MODEL_FOLDER,
        SIGNATURE_NAME,
        refuse_unsafe,
        verify_package,
        write_manifest,
    )

    store, name = locate(artifact.uri)
    manifest = Store.open(store.uri).download_directory(name, package / MODEL_FOLDER)
    if manifest.digest != artifact.digest:
        raise ManifestMismatch(
            f"{artifact.uri} is not what the training wrote (digest {manifest.digest[:12]}, expected "
            f"{artifact.digest[:12]}); train again or restore it"
        )
    refuse_unsafe(package / MODEL_FOLDER, where=artifact.uri)
    write_manifest(package / MODEL_FOLDER, manifest)
    params = spec.get("params", {})
    facts = CardFacts(
        model=model,
        digest=manifest.digest,
        files=len(manifest.files),
        size_bytes=sum(file.size for file in manifest.files.values()),
        recipe=params.get("recipe", {}),
        seed=params.get("seed"),
        training=training.metrics,
        evaluation=evaluation.metrics if evaluation else {},
        verdict=evaluation.verdict if evaluation else None,
        references={
            "workload": str(spec.get("fingerprint", "")),
            **{name: str(entry["digest"]) for name, entry in spec.get("inputs", {}).items()},
        },
    )
    (package / CARD_NAME).write_text(build_card(facts))
    signing.sign(
        package / MODEL_FOLDER,
        package / SIGNATURE_NAME,
        private_key=keys.private_key,
        trusted_keys=keys.trusted_keys,
    )
    verify_package(package, trusted_keys=keys.trusted_keys, digest=manifest.digest)
    return facts
