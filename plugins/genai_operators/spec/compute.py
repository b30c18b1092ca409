"""``compute``: where workloads run. A name, or a mapping with ``target`` and that target's settings."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from genai_operators.spec.section import Section


class ComputeTarget(StrEnum):
    """``local``: processes on the worker's own machine."""

    LOCAL = "local"


class Compute(Section):
    """Where validation, training, evaluation and drift checks run."""

    target: ComputeTarget = Field(default=ComputeTarget.LOCAL, description="Where workloads run.")
    pool: str | None = Field(default=None, description="Airflow pool of the workloads' tasks; it must exist.")


def _by_name(value: Any) -> Any:
    return {"target": value} if isinstance(value, str) else value


ComputeChoice = Annotated[
    Compute,
    BeforeValidator(_by_name),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": [target.value for target in ComputeTarget]},
                {
                    "type": "object",
                    "properties": {
                        "target": {"enum": [target.value for target in ComputeTarget]},
                        "pool": {"type": ["string", "null"]},
                    },
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
