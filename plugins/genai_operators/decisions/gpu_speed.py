"""From FLOPs to hours: how long one micro-batch, one step, one run takes.

A micro-batch costs what its arithmetic costs at a reachable share of the GPU's peak, and at least what launching its
kernels costs; moving weights (dequantising, gathering from other GPUs) comes on top. The shares here are starting
values, read off Qwen's published times on an A100; own runs correct them through
:class:`~genai_operators.decisions.gpu_margin.Residuals`.
"""

from __future__ import annotations

from dataclasses import dataclass

from genai_operators.decisions.gpu_catalogue import Gpu
from genai_operators.decisions.gpu_memory import adapter_weights, trained
from genai_operators.decisions.gpu_setup import Method, Precision, Sharding, TrainingSetup
from genai_operators.decisions.gpu_shape import ModelShape

UTILISATION = 0.74
"""Share of peak that matrix products reach in very wide models."""

HALF_WIDTH_PER_BALANCE = 13.0
"""Hidden size at which half of that share is reached, per FLOP that the GPU computes while it moves one byte: what lies
between the products is bound by memory, and its share falls with the width. 2,000 on an A100."""

LAUNCH_S = 5e-3
"""Of one layer of one micro-batch, all passes, where Python launches every kernel; a compiled layer needs a quarter."""

LINK_SHARE = 0.5
"""Of a link's data-sheet rate that collectives reach."""

OVERLAP = 0.5
"""Share of the shorter of arithmetic and communication that hides behind the longer."""

STEP_TRAFFIC_BYTES = 28
"""Read and written per trained parameter in an optimizer step: weights, gradient, two states, master weights."""


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of one micro-batch by cause, and of the optimizer's step."""

    arithmetic: float
    launch: float
    dequantise: float
    communication: float
    step: float

    @property
    def micro_batch(self) -> float:
        """Seconds of forward and backward of one micro-batch."""
        busy = max(self.arithmetic + self.dequantise, self.launch)
        longer, shorter = max(busy, self.communication), min(busy, self.communication)
        return longer + (1 - OVERLAP) * shorter


def training_flops(shape: ModelShape, setup: TrainingSetup, *, length: float | None = None) -> float:
    """FLOPs of one micro-batch, forward and backward.

    A forward pass is ``2 x weights`` per token and ``2 x length x width`` per layer for causal attention. The backward
    pass is twice that; without gradients of frozen weights, once for their part; checkpointing adds one forward pass.

    :param length: mean tokens of a sequence; by default the longest.
    """
    length = float(setup.sequence_length) if length is None else length
    tokens = setup.micro_batch * length
    weights = 2.0 * shape.active_weights
    attention = 2.0 * length * shape.attention_width * shape.layers
    again = 1 if setup.checkpointing else 0
    passes = 3 if setup.method is Method.FULL else 2
    adapters = 0.0 if setup.method is Method.FULL else 6.0 * adapter_weights(shape, setup)
    embeddings = 2.0 * shape.vocabulary * shape.hidden if setup.train_embeddings else 0.0
    return tokens * (weights * (passes + again) + attention * (3 + again) + adapters + embeddings)


def utilisation(shape: ModelShape, gpu: Gpu) -> float:
    """Reachable share of peak: narrow models, and GPUs with slow memory, spend more time between the products."""
    balance = gpu.teraflops * 1e12 / gpu.bandwidth
    return UTILISATION * shape.hidden / (shape.hidden + HALF_WIDTH_PER_BALANCE * balance)


def step_time(shape: ModelShape, setup: TrainingSetup, gpu: Gpu, *, length: float | None = None) -> StepTime:
    """Seconds of one micro-batch on each GPU, by cause."""
    passes = 3 if setup.checkpointing else 2
    count = sum(number for number, _, _ in trained(shape, setup))
    moved = shape.linear_weights * setup.dequantise_bytes * passes if setup.method is Method.QLORA else 0.0
    split = setup.gpus if setup.sharding.splits_optimizer else 1
    rate = gpu.fp32_teraflops if setup.precision is Precision.FP32 else gpu.teraflops
    return StepTime(
        arithmetic=training_flops(shape, setup, length=length) / (rate * 1e12 * utilisation(shape, gpu)),
        launch=shape.layers * LAUNCH_S * passes / 3 / (4 if setup.compiled else 1),
        dequantise=moved / gpu.bandwidth,
        communication=_communicated(shape, setup) / (gpu.link * LINK_SHARE),
        step=count * STEP_TRAFFIC_BYTES / split / gpu.bandwidth,
    )


def _communicated(shape: ModelShape, setup: TrainingSetup) -> float:
    """Bytes through each GPU's link in one micro-batch. Gradients travel once a step where they are not split."""
    if setup.sharding is Sharding.NONE or setup.gpus == 1:
        return 0.0
    others = (setup.gpus - 1) / setup.gpus
    gradients = sum(number * precision.bytes for number, precision, _ in trained(shape, setup)) * others
    if not setup.sharding.splits_weights:
        return gradients if setup.sharding.splits_gradients else 2 * gradients / setup.accumulation
    each = setup.quantized_bytes if setup.method is Method.QLORA else setup.precision.bytes
    return gradients + 2 * shape.parameters * each * others
