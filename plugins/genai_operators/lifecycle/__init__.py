"""From model files to DAGs. A wrong file costs its own DAGs only, and only their ability to run."""

from __future__ import annotations

from pathlib import Path

from airflow.sdk import DAG, get_parsing_context

from genai_operators.exceptions import GenaiError, SpecError
from genai_operators.lifecycle.drift import drift_dag
from genai_operators.lifecycle.names import model_of
from genai_operators.lifecycle.retrain import retrain_dag
from genai_operators.lifecycle.rollback import rollback_dag
from genai_operators.lifecycle.unusable import unusable_dags
from genai_operators.spec.loader import ModelFile, model_files, read_model, recipe_names

__all__ = ["lifecycle_dags", "model_dags", "raise_model_file_errors"]


def lifecycle_dags(root: Path) -> dict[str, DAG]:
    """The DAGs of every model file of a project, by id; in a task's process those of its own model alone.

    :param root: the folder that holds ``include/``.
    """
    recipes = recipe_names(root)
    wanted = model_of(get_parsing_context().dag_id)
    dags: dict[str, DAG] = {}
    for path in model_files(root):
        if wanted is None or path.stem == wanted:
            model = read_model(path, root=root, recipes=recipes)
            if model.has_valid_name and path.suffix == ".yaml":
                dags |= {dag.dag_id: dag for dag in model_dags(model, recipes=recipes)}
    return dags


def model_dags(model: ModelFile, *, recipes: tuple[str, ...]) -> list[DAG]:
    """The DAGs of one model file, usable or not."""
    if model.spec is None:
        return unusable_dags(model.name, model.message)
    try:
        return [
            retrain_dag(model.name, model.spec, recipes=recipes),
            drift_dag(model.name, model.spec),
            rollback_dag(model.name, model.spec),
        ]
    except (GenaiError, ValueError) as error:
        # What only an operator can know of its parameters; it must not take the other models' DAGs along.
        return unusable_dags(model.name, f"{model.path.name}:1:1: {error}")


def raise_model_file_errors(root: Path) -> None:
    """Make one import error of all wrong model files, so that the UI shows them.

    :raises SpecError: with every problem of every file; nothing when all are valid, or in a task's process.
    """
    if get_parsing_context().dag_id is not None:
        return
    recipes = recipe_names(root)
    wrong = [model for path in model_files(root) if (model := read_model(path, root=root, recipes=recipes)).problems]
    if wrong:
        raise SpecError("\n".join(model.message for model in wrong))
