"""A stage around the checkpointing workload, as a DAG author would write one."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Context

from genai_operators.compute.contract import Artifact, Result, Workload
from genai_operators.operators.workload import WorkloadOperator
from tests.fakes.checkpointing import KIND


class CheckpointingOperator(WorkloadOperator):
    """:param settings: of the workload. Templated. :param answer: what ``finish`` adds to the reference."""

    workload_kind = KIND
    environment = "airflow"
    template_fields = ("settings", *WorkloadOperator.template_fields)

    def __init__(self, *, settings: dict[str, Any] | str, answer: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.answer = answer or {}

    def build_workload(self, context: Context) -> Workload:
        assert isinstance(self.settings, dict)
        data = Artifact(uri="file:///somewhere/data", digest="d1")
        return Workload(kind=self.workload_kind, params=self.settings, inputs={"data": data}, code_digest="c")

    def finish(self, context: Context, result: Result) -> dict[str, Any]:
        return self.answer
