"""What all DAGs of a model share: owner, tags, retries, documentation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from genai_operators.lifecycle.names import Lifecycle, dag_id
from genai_operators.spec.compute import ComputeTarget, PhaseLimits, Spot
from genai_operators.spec.model import ModelSpec

#: A retry meets the work that the first try began; the failure's class decides whether there is one at all.
RETRIES = 2
RETRY_DELAY = timedelta(seconds=30)


def dag_arguments(model: str, spec: ModelSpec, lifecycle: Lifecycle, *, doc: str) -> dict[str, Any]:
    """Arguments of a DAG of this model, its schedule and form left out."""
    text = spec.description or f"Model {model}"
    return {
        "dag_id": dag_id(model, lifecycle),
        "description": f"{text}: {lifecycle}",
        "doc_md": f"### {model}\n\n{text}\n\n{doc}\n\nModel file: `include/models/{model}.yaml`, owner: {spec.owner}\n",
        "catchup": False,
        "max_active_runs": 1,
        "max_active_tasks": 1,
        "max_consecutive_failed_dag_runs": 0,
        "tags": ["genai", model, str(lifecycle)],
        "default_args": {"owner": spec.owner, "retries": RETRIES, "retry_delay": RETRY_DELAY},
        "is_paused_upon_creation": False,
        "auto_register": False,
    }


def training_arguments(spec: ModelSpec, *, hardware: Any) -> dict[str, Any]:
    """The same for the training, which may last as long as the model file says; a cluster's queue does not count."""
    arguments = workload_arguments(spec, hardware=hardware)
    if spec.compute.target is ComputeTarget.LOCAL:
        return {**arguments, "timeout": spec.train.timeout}
    return {**arguments, "phase_timeouts": {"running": spec.train.timeout, **arguments["phase_timeouts"]}}


def evaluation_arguments(spec: ModelSpec, *, hardware: Any) -> dict[str, Any]:
    """The same for the evaluation; it may cost what the training left of the limit."""
    arguments = workload_arguments(spec, hardware=hardware)
    if arguments.get("max_cost") is None:
        return arguments
    spent = "(ti.xcom_pull(task_ids='fine_tune') or {}).get('cost', 0)"
    return {**arguments, "max_cost": f"{{{{ {spec.compute.max_cost} - {spent} }}}}"}


def workload_arguments(spec: ModelSpec, *, hardware: Any = None) -> dict[str, Any]:
    """Where the workloads of this model run, and what they may ask for.

    :param hardware: what the plan decided, for those that need more than a small machine.
    """
    compute = spec.compute
    pool = {"pool": compute.pool} if compute.pool else {}
    if compute.target is ComputeTarget.LOCAL:
        return {"compute": compute.target.value, **pool}
    where: dict[str, Any] = {"target": compute.target.value, "connection": compute.connection, **compute.options}
    if compute.queue is not None:
        where["queue"] = compute.queue
    if compute.spot is Spot.ONLY:
        where["spot_only"] = True
    limits = {name: limit for name in PhaseLimits.model_fields if (limit := getattr(compute.limits, name)) is not None}
    arguments: dict[str, Any] = {
        "compute": where,
        "phase_timeouts": limits,
        "resumes_without_progress": compute.resumes_without_progress,
        **pool,
    }
    if hardware is not None:
        arguments |= {"hardware": hardware, "max_cost": compute.max_cost}
    return arguments
