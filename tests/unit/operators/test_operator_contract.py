"""What every operator of a stage owes a DAG author, whichever it is."""

from __future__ import annotations

import inspect
import itertools
import textwrap
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, AssetAlias, BaseOperator

import genai_operators
from genai_operators.operators.links import HasReport, ReportLink

ARGUMENTS: dict[str, dict[str, Any]] = {
    "ValidateDatasetOperator": {"train": "rows.csv"},
    "FineTuneOperator": {"dataset": "file:///data", "recipe": "small"},
    "EvaluateModelOperator": {"dataset": "file:///data", "candidate": "file:///model"},
    "RegisterModelOperator": {"training": "file:///result.json"},
    "CanaryReleaseOperator": {"version": 1},
    "CheckDriftOperator": {},
    "RollbackOperator": {},
}
#: Copies files and signs them: there is nothing to wait for.
NOT_DEFERRABLE = {"RegisterModelOperator"}


@pytest.fixture(params=ARGUMENTS)
def operator(request: pytest.FixtureRequest) -> BaseOperator:
    name: str = request.param
    kind = getattr(genai_operators, name)
    made: BaseOperator = kind(task_id="task", model="bot", **ARGUMENTS[name])
    return made


def test_says_which_fields_are_templated(operator: BaseOperator) -> None:
    assert "template_fields" in vars(type(operator))
    assert all(hasattr(operator, field) for field in operator.template_fields)


def test_links_to_its_report(operator: BaseOperator) -> None:
    (link,) = [link for link in operator.operator_extra_links if isinstance(link, ReportLink)]
    assert isinstance(operator, HasReport)
    operator.report_url = "/genai/reports/somewhere.html"
    assert link.get_link(operator, ti_key=None) == "/genai/reports/somewhere.html"  # type: ignore[arg-type]


def test_tells_openlineage_what_it_read_and_wrote(operator: BaseOperator) -> None:
    facets = operator.get_openlineage_facets_on_complete(None)  # type: ignore[attr-defined]
    assert (facets.inputs, facets.outputs) == ([], []), "it has not run"


def test_is_deferrable_unless_there_is_nothing_to_wait_for(operator: BaseOperator) -> None:
    name = type(operator).__name__
    assert getattr(operator, "deferrable", False) is (name not in NOT_DEFERRABLE)
    assert ("not deferrable" in (type(operator).__doc__ or "")) is (name in NOT_DEFERRABLE)


def test_its_docstring_shows_a_use_that_runs(operator: BaseOperator) -> None:
    _, colons, after = inspect.cleandoc(type(operator).__doc__ or "").partition("::\n")
    assert colons, "no example"
    lines = itertools.takewhile(lambda line: not line or line.startswith("    "), after.splitlines())
    names = {name: getattr(genai_operators, name) for name in ARGUMENTS}
    upstream = SimpleNamespace(output="file:///somewhere")
    with DAG("example", schedule=None) as dag:
        known = {**names, "AssetAlias": AssetAlias, "validate": upstream, "fine_tune": upstream}
        exec(textwrap.dedent("\n".join(lines)), known)
    assert type(operator).__name__ in {type(task).__name__ for task in dag.tasks}


def test_every_operator_of_a_stage_is_here() -> None:
    """A new one is public, so this list grows with it."""
    others = {"ApproveReleaseOperator", "KubernetesCheckOperator", "PlanRetrainingOperator", "ReconcileOperator"}
    others |= {"RemoveOrphansOperator", "WorkloadOperator"}
    assert set(genai_operators.__all__) - others == set(ARGUMENTS)
