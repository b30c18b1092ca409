"""What a retraining asks a cluster for: the GPU plan's ladder, or what the model file names instead."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from genai_operators.operators.gpu_choice import GpuChoice, project_prices
from genai_operators.operators.gpu_outlook import Training, binding_choice
from genai_operators.operators.ladders import Ladders, ladders_of, of_type, without_gpus
from genai_operators.spec.compute import Compute, GpuType
from genai_operators.store import Store


def cluster_plan(
    training: Training, *, compute: Compute, store: Store, root: Path, today: date
) -> tuple[Ladders, GpuChoice | None]:
    """The ladders, and the GPU plan that they come from where there is one.

    GPUs that the model file names are taken even where the plan cannot be made or doubts that they fit; a note says so.

    :raises ConfigurationError: see :func:`~genai_operators.operators.gpu_outlook.binding_choice`; or a cost limit that
        no known price could be held to.
    """
    if compute.gpu.type is GpuType.NONE:
        return ladders_of(without_gpus(compute), compute=compute), None
    choice, note = binding_choice(training, compute=compute, store=store, root=root, today=today)
    if choice is None:
        return ladders_of(of_type(compute, project_prices(root)), compute=compute, notes=[note]), None
    return ladders_of(choice.ladder, compute=compute), choice
