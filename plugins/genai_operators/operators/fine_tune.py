"""Train a model on a validated data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genai_operators.compute.contract import Result, Workload, code_digest
from genai_operators.exceptions import ConfigurationError
from genai_operators.operators.references import ArtifactLike, artifact_of, champion_model, directory_artifact
from genai_operators.operators.workload import WorkloadOperator
from genai_operators.spec.recipe import FROM_SCRATCH, Recipe

if TYPE_CHECKING:
    from airflow.sdk import Context


class FineTuneOperator(WorkloadOperator):
    """Fine-tune a language model; its weights end, verified, in the object store.

    A retry, on any worker, meets the training that the first try started: nothing trains twice. A killed training
    goes on from its newest valid checkpoint, and its weights are the same bytes as if nothing had happened. ::

        FineTuneOperator(
            task_id="fine_tune",
            model="support_bot",
            dataset=validate.output,
            recipe="lora_refresh",
            refresh=True,
        )

    Output ``model``: a plain Hugging Face directory (safetensors, LoRA merged, tokenizer, chat template).

    :param model: the model's public name.
    :param dataset: what :class:`ValidateDatasetOperator` returned, or the URI of its data set. Templated.
    :param recipe: a file of include/recipes without its ending, or the recipe itself. Templated.
    :param refresh: go on from the champion's weights, with the new rows and as many old ones. Templated.
    :param rehearsal: old rows for each new one in a refresh; without them the old task is forgotten.
    :param seed: of weights, order and dropout; the same seed gives the same weights. Templated.
    :raises NonFiniteLoss: the training diverged; a retry does the same.
    :raises UnsafeWeights: the base model is a pickle.
    """

    workload_kind = "fine_tune"
    template_fields: Sequence[str] = ("dataset", "recipe", "refresh", "seed", *WorkloadOperator.template_fields)

    def __init__(
        self,
        *,
        model: str,
        dataset: ArtifactLike,
        recipe: str | Mapping[str, Any] = "small",
        refresh: bool | str = False,
        rehearsal: float = 1.0,
        seed: int | str = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.dataset = dataset
        self.recipe = recipe
        self.refresh = refresh
        self.rehearsal = rehearsal
        self.seed = seed

    def build_workload(self, context: Context) -> Workload:
        """Read the recipe and find the weights to start from.

        :raises SpecError: the recipe does not exist or is wrong.
        :raises ConfigurationError: a refresh without a champion, or a base model that is not there.
        """
        from genai_operators.hooks import settings

        root = settings.project_root()
        recipe = self._recipe(root)
        inputs = {"dataset": artifact_of(self.dataset, name="dataset", output="dataset")}
        refresh = str(self.refresh).strip().lower() in ("true", "1", "yes")  # a rendered template is a string
        if refresh:
            from genai_operators.release.ledger import Ledger

            base = champion_model(Ledger(self._open_store(), self.model).champion())
            if base is None:
                raise ConfigurationError(
                    f"{self.model} has no champion to refresh. Train it with refresh=False (train.recipe) first."
                )
            inputs["base"] = base
        elif _is_directory(recipe.base_model, root):
            inputs["base"] = directory_artifact(recipe.base_model, name="base_model of the recipe", root=root)
        return Workload(
            kind=self.workload_kind,
            params={
                "model": self.model,
                "recipe": recipe.to_json(),
                "seed": int(self.seed),
                "rehearsal": self.rehearsal if refresh else None,
            },
            inputs=inputs,
            code_digest=code_digest(),
        )

    def finish(self, context: Context, result: Result) -> dict[str, Any]:
        """What its GPUs took corrects the next plan. A model that the plan does not understand teaches nothing."""
        from genai_operators.operators.gpu_learning import observe_training

        try:
            if observe_training(self._open_store(), result):
                self.log.info("peak memory and time of its GPUs are kept for the next GPU plan")
        except ConfigurationError as error:
            self.log.warning("its GPUs taught the plan nothing: %s", error)
        return {}

    def _recipe(self, root: Path) -> Recipe:
        from genai_operators.spec.loader import read_recipe

        return (
            read_recipe(self.recipe, root=root) if isinstance(self.recipe, str) else Recipe.model_validate(self.recipe)
        )


def _is_directory(base_model: str, root: Path) -> bool:
    """Whether it is a path or URI. Anything else is a name of the Hugging Face hub, which the workload resolves."""
    return base_model != FROM_SCRATCH and ("://" in base_model or (root / Path(base_model).expanduser()).is_dir())
