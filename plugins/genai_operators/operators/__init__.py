"""What a DAG author imports. Glue only: one stage of the lifecycle a file, imported when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genai_operators.operators.approve import ApproveReleaseOperator
    from genai_operators.operators.canary import CanaryReleaseOperator
    from genai_operators.operators.drift import CheckDriftOperator
    from genai_operators.operators.evaluate import EvaluateModelOperator
    from genai_operators.operators.fine_tune import FineTuneOperator
    from genai_operators.operators.kubernetes_check import KubernetesCheckOperator
    from genai_operators.operators.maintenance import RemoveOrphansOperator
    from genai_operators.operators.plan import PlanRetrainingOperator
    from genai_operators.operators.reconcile import ReconcileOperator
    from genai_operators.operators.register import RegisterModelOperator
    from genai_operators.operators.rollback import RollbackOperator
    from genai_operators.operators.validate import ValidateDatasetOperator
    from genai_operators.operators.workload import WorkloadOperator

_MODULES = {
    "ApproveReleaseOperator": "approve",
    "CanaryReleaseOperator": "canary",
    "CheckDriftOperator": "drift",
    "EvaluateModelOperator": "evaluate",
    "FineTuneOperator": "fine_tune",
    "KubernetesCheckOperator": "kubernetes_check",
    "PlanRetrainingOperator": "plan",
    "ReconcileOperator": "reconcile",
    "RegisterModelOperator": "register",
    "RemoveOrphansOperator": "maintenance",
    "RollbackOperator": "rollback",
    "ValidateDatasetOperator": "validate",
    "WorkloadOperator": "workload",
}

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
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
