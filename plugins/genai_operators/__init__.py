"""Keeps fine-tuned language models good in production, as Apache Airflow DAGs.

Public names are imported when they are used: a DAG file pays only for what it takes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genai_operators.operators import (
        ApproveReleaseOperator,
        CanaryReleaseOperator,
        CheckDriftOperator,
        EvaluateModelOperator,
        FineTuneOperator,
        KubernetesCheckOperator,
        PlanRetrainingOperator,
        ReconcileOperator,
        RegisterModelOperator,
        RemoveOrphansOperator,
        RollbackOperator,
        ValidateDatasetOperator,
        WorkloadOperator,
    )

__version__ = "0.1.0"

__all__ = [
    "ApproveReleaseOperator",
    "CanaryReleaseOperator",
    "CheckDriftOperator",
    "EvaluateModelOperator",
    "FineTuneOperator",
    "KubernetesCheckOperator",
    "PlanRetrainingOperator",
    "ReconcileOperator",
    "RegisterModelOperator",
    "RemoveOrphansOperator",
    "RollbackOperator",
    "ValidateDatasetOperator",
    "WorkloadOperator",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("genai_operators.operators"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
