"""Ids and assets of a model's DAGs. Ids depend on the model file's name only, so history survives every edit."""

from __future__ import annotations

from enum import StrEnum
from functools import cache

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.definitions.asset import Dataset, Model


class Lifecycle(StrEnum):
    """The DAGs of one model; the value is the suffix of the DAG id."""

    RETRAIN = "retrain"
    DRIFT = "drift"
    ROLLBACK = "rollback"


RETRAIN_TASKS = ("plan", "validate", "fine_tune", "evaluate", "register", "approve", "release")
DRIFT_TASKS = ("check",)
ROLLBACK_TASKS = ("rollback",)


def dag_id(model: str, lifecycle: Lifecycle) -> str:
    """``support_bot__retrain``."""
    return f"{model}__{lifecycle}"


def model_of(dag_id: str | None) -> str | None:
    """The model whose DAG has this id; ``None`` for any other id."""
    name, separator, suffix = (dag_id or "").rpartition("__")
    return name if separator and suffix in tuple(Lifecycle) else None


# The `x-` keeps Airflow from taking a scheme for one of its own and normalising the rest away.
@cache
def rows_asset(model: str) -> Asset:
    """The rows that a model learns from, as its files hold them; for the outlets of whichever DAG writes those."""
    return Asset(name=f"{model}_rows", uri=f"x-genai://rows/{model}", group="rows")


@cache
def dataset_asset(model: str) -> Dataset:
    """The validated training data of a model."""
    return Dataset(name=f"{model}_dataset", uri=f"x-genai://datasets/{model}")


@cache
def weights_asset(model: str) -> Model:
    """What the fine-tuning wrote: a candidate that nobody has judged yet."""
    return Model(name=f"{model}_weights", uri=f"x-genai://weights/{model}")


@cache
def evaluation_asset(model: str) -> Asset:
    """The verdict on a candidate that a release may rest on."""
    return Asset(name=f"{model}_evaluation", uri=f"x-genai://evaluations/{model}", group="evaluation")


@cache
def version_asset(model: str) -> Model:
    """The versions of a model in the registry."""
    return Model(name=f"{model}_versions", uri=f"x-mlflow://models/{model}")


@cache
def champion_alias(model: str) -> AssetAlias:
    """Through which a release tells of the endpoint's new champion; without a promotion it tells nothing."""
    return AssetAlias(name=f"{model}_champion", group="endpoint")


@cache
def drift_alias(model: str) -> AssetAlias:
    """What the drift check emits on an alarm, and the retraining is scheduled on."""
    return AssetAlias(name=f"{model}_drift", group="drift")
