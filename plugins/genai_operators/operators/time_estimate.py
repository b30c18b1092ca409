"""How long a first training may take, before any run of it has been measured: rows and recipe against a rate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from genai_operators.exceptions import ConfigurationError

if TYPE_CHECKING:
    from genai_operators.operators.gpu_choice import GpuChoice
    from genai_operators.operators.gpu_outlook import Training

#: FLOPs a second of one core, by the count of tokens that is made here. Two trainings on one core reached 60e9 (recipe
#: `tiny_llama`, 600 rows, 15 s) and 22e9 (recipe `small`, 10,003 rows, 500 s): this is within a factor of 2 of both.
CORE_FLOPS = 36e9


def training_estimate(training: Training, *, root: Path, gpus: GpuChoice | None) -> str | None:
    """For a plan's table; ``None`` where the model's shape is not known here.

    :param gpus: what the training gets; ``None`` for a core of this machine.
    """
    if gpus is not None:
        return f"{describe_seconds(3600 * gpus.plan.chosen.hours.expected)} (estimate of the GPU plan; no earlier run)"
    try:
        seconds = core_seconds(training, root=root)
    except ConfigurationError:  # the GPU plan's note says what is missing
        return None
    return f"{describe_seconds(seconds)} (estimate within a factor of 2, from rows and recipe; no earlier run)"


def core_seconds(training: Training, *, root: Path) -> float:
    """Seconds of the training on one core.

    :raises ConfigurationError: the model's configuration is not here.
    """
    from genai_operators.decisions.gpu_speed import training_flops

    need = training.need(root)
    flops = training_flops(need.shape, need.setup, length=need.run.mean_length) / need.setup.micro_batch
    return flops * need.run.sequences * need.run.epochs / CORE_FLOPS


def describe_seconds(seconds: float) -> str:
    """Two digits are more than an estimate knows."""
    if seconds < 90:
        return f"about {max(1.0, float(f'{seconds:.1g}')):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
