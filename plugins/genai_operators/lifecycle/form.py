"""The forms behind "Trigger" in the Airflow UI. Every field has a default: without a look it is a normal run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from airflow.sdk import DAG, Param
from airflow.sdk.definitions.param import ParamsDict

from genai_operators.operators.plan import AS_THE_FILE_SAYS
from genai_operators.spec.evaluate import NewDataRule
from genai_operators.spec.governance import Approval
from genai_operators.spec.model import ModelSpec


def attach_form(dag: DAG, fields: Mapping[str, Param]) -> None:
    """Give a finished DAG its form. Airflow merges it into ``params`` of every task when a run starts.

    Given to the constructor, each field would be copied into each task and its JSON Schema validated at every parse:
    7 ms a DAG, more than all the rest of it (measured, Airflow 3.3.2). The defaults are validated by a test instead.
    """
    object.__setattr__(dag, "params", ParamsDict(dict(fields)))


def retrain_form(spec: ModelSpec, *, recipes: Sequence[str]) -> dict[str, Param]:
    """Fields of ``<model>__retrain``, in three sections."""
    train, asks = spec.train, spec.governance.approval is Approval.BEFORE_RELEASE
    first_then = train.recipe + (f", then {train.refresh} once there is a champion" if train.refresh else "")
    return {
        "extra_data": Param(
            None,
            type=["null", "string"],
            section="Data",
            title="More training data",
            description_md="Path from the project's root, or URI, of more rows in the same format, for this run only.",
        ),
        "recipe": Param(
            AS_THE_FILE_SAYS,
            type="string",
            enum=[AS_THE_FILE_SAYS, *recipes],
            values_display={AS_THE_FILE_SAYS: f"As the model file says: {first_then}"},
            section="Training",
            title="Recipe",
            description_md="What is trained and how; the files of `include/recipes`.",
        ),
        "seed": Param(
            train.seed,
            type="integer",
            minimum=0,
            section="Training",
            title="Seed",
            description_md="The same data, recipe and seed give the same weights.",
        ),
        "force_retrain": Param(
            False,
            type="boolean",
            section="Training",
            title="Train even if nothing changed",
            description_md="Off: work whose inputs are unchanged is skipped and its result used again.",
        ),
        "dry_run": Param(
            False,
            type="boolean",
            section="Release",
            title="Dry run",
            description_md="Print the plan (workloads, time, canary steps) in the log of `plan`, and start nothing.",
        ),
        "rule_on_new": Param(
            spec.evaluate.rule_on_new.value,
            type="string",
            enum=[rule.value for rule in NewDataRule],
            values_display={
                "auto": "Automatic: better after a drift alarm, else not worse",
                "superior": "Better than the champion",
                "non_inferior": "Not worse than the champion",
            },
            section="Release",
            title="On new rows the candidate must be",
            description_md="Rows that came after the champion's training. On older rows it must never be worse.",
        ),
        "runtime": Param(
            spec.serve.runtime,
            type="string",
            enum=list(spec.serve.runtime_names),
            section="Release",
            title="Server",
            description_md="The program that serves this release; `serve.runtimes` of the model file.",
        ),
        "ask_before_release": Param(
            asks,
            type="boolean",
            enum=[True] if asks else [True, False],
            section="Release",
            title="Ask before the release",
            description_md="Wait for a person among *Required actions*."
            + (" The model file demands it." if asks else ""),
        ),
    }


def rollback_form() -> dict[str, Param]:
    """Fields of ``<model>__rollback``."""
    return {
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            section="Release",
            title="Version",
            description_md="Version that takes all traffic; empty: the champion before the present one.",
        ),
        "reason": Param(
            "asked for in the Airflow UI",
            type="string",
            minLength=1,
            maxLength=500,
            section="Release",
            title="Reason",
            description_md="Stands in the ledger for good.",
        ),
    }
