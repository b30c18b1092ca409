"""How a recipe's batch is shared out among devices and taken in parts: the same rows in a step on any machine."""

from __future__ import annotations

import os
from dataclasses import dataclass

from genai_operators.exceptions import BadWorkload

#: Most rows of one device at a time; the supervisor sets it where the claim says so.
MICRO_BATCH_VARIABLE = "GENAI_MICRO_BATCH"


def asked_micro_batch() -> int | None:
    """Most rows of one device at a time; ``None`` where any number fits."""
    asked = os.environ.get(MICRO_BATCH_VARIABLE)
    return int(asked) if asked else None


@dataclass(frozen=True)
class BatchSplit:
    """How a batch is worked off. ``per_device`` rows are the share of one device, ``micro`` of them at a time."""

    devices: int
    per_device: int
    micro: int

    @property
    def accumulation(self) -> int:
        """How many micro-batches make a step."""
        return self.per_device // self.micro


def split_batch(batch: int, *, devices: int, micro_batch: int | None) -> BatchSplit:
    """The largest equal parts of the batch that fit.

    :param devices: that share a step. :param micro_batch: most rows of one device at a time; ``None``: any number.
    :raises BadWorkload: the batch cannot be shared out equally.
    """
    if batch % devices:
        raise BadWorkload(
            f"batch_size {batch} cannot be shared by {devices} devices: choose a multiple of {devices} in the recipe, "
            "or other resources"
        )
    per_device = batch // devices
    most = min(per_device, micro_batch or per_device)
    micro = next(rows for rows in range(most, 0, -1) if per_device % rows == 0)
    return BatchSplit(devices=devices, per_device=per_device, micro=micro)
