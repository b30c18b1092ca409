"""Peak memory of training on one GPU, from first principles: what is held all the time, and the largest moment on top.

Three moments compete: the loss (all checkpoints, and the logits), the backward pass of one layer, and the optimizer's
step. Constants are physics or cited; the two measured ones are :data:`RUNTIME_BYTES` and :data:`FRAGMENTATION`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from genai_operators.decisions.gpu_activations import (
    adapted,
    backward_bytes,
    checkpoint_bytes,
    layer_bytes,
    logits_bytes,
)
from genai_operators.decisions.gpu_setup import Method, Precision, Sharding, TrainingSetup
from genai_operators.decisions.gpu_shape import ModelShape

RUNTIME_BYTES = 1.0e9
"""CUDA context with loaded kernels and library workspaces: what ``nvidia-smi`` shows above PyTorch's own figure.
Measured: of 0.5 to 1.5e9 the one that fits Qwen's 81 published cells best, by less than a point of their mean error."""

FRAGMENTATION = 0.04
"""Share of a moment's temporary tensors that the caching allocator holds in blocks it cannot use. Measured likewise."""

REDUCE_BUCKET = 2e8
"""Numbers in one of DeepSpeed's gradient buckets, of which overlapping keeps two (``reduce_bucket_size`` in use)."""

STAGE3_LIVE = 1e9
"""Weights that ZeRO-3 keeps gathered (``stage3_max_live_parameters``), and steps at a time (``sub_group_size``)."""


@dataclass(frozen=True, kw_only=True)
class Constants:
    """The two measured constants, so that a study can leave data out and refit them."""

    runtime: float = RUNTIME_BYTES
    fragmentation: float = FRAGMENTATION


MEASURED = Constants()


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes on one GPU.

    :param parts: what is held, and the size of each temporary thing, by name; they do not sum to the peak.
    :param moments: the peak that each moment would reach, without the CUDA context.
    :param runtime: the CUDA context, outside of PyTorch's own figures.
    :param cache: what the allocator may hold of earlier batches where lengths vary from batch to batch: the temporary
        tensors once more, in blocks that are too short for a longer batch. It is given back under pressure, so a run
        does not need it; ``nvidia-smi`` shows it. ``expandable_segments:True`` prevents it.
    """

    parts: Mapping[str, float]
    moments: Mapping[str, float]
    runtime: float
    cache: float = 0.0

    @property
    def moment(self) -> str:
        """Which moment is the largest."""
        return max(self.moments, key=lambda name: self.moments[name])

    @property
    def allocated(self) -> float:
        """As ``torch.cuda.max_memory_reserved()`` would report."""
        return self.moments[self.moment]

    @property
    def peak(self) -> float:
        """What the GPU must have, and what ``nvidia-smi`` reports where all batches are of one length."""
        return self.allocated + self.runtime

    @property
    def reserved(self) -> float:
        """As ``nvidia-smi`` reports where lengths vary."""
        return self.peak + self.cache


def training_memory(shape: ModelShape, setup: TrainingSetup, *, constants: Constants = MEASURED) -> MemoryEstimate:
    """Expected peak of one GPU. Bytes.

    Assumes dropless dense routing of experts (every weight is resident, a token activates its own), activations not
    split over GPUs (no tensor or sequence parallelism), no offloading.
    Source: Rajbhandari et al. 2020 (ZeRO, arXiv 1910.02054) for the states; Korthikanti et al. 2022 for activations.
    """
    states = _states(shape, setup)
    static = sum(states.values())
    gradients = states["gradients"]
    held = static - gradients
    temporary = _temporaries(shape, setup)
    kept = temporary["checkpoints"] if setup.checkpointing else temporary["layer"] * shape.layers
    # Without accumulation the gradients appear while the activations go.
    early, late = (gradients, gradients) if setup.accumulation > 1 else (0.0, gradients)
    kept += temporary["cast"]
    inside = (temporary["layer"] if setup.checkpointing else 0.0) + temporary["backward"] + temporary["dequantised"]
    moments = {
        "loss": (held + early, kept + temporary["logits"] + temporary["gathered"]),
        "backward": (held, max(early + kept, late) + inside + temporary["gathered"]),
        "step": (held, late + temporary["step"]),
    }
    return MemoryEstimate(
        parts={**states, **temporary},
        moments={name: base + extra * (1 + constants.fragmentation) for name, (base, extra) in moments.items()},
        runtime=constants.runtime,
        cache=_cache(moments),
    )


def _cache(moments: Mapping[str, tuple[float, float]]) -> float:
    """The temporary tensors of the pass once more, as far as they exceed the step, whose sizes never vary."""
    largest = max(base + extra for base, extra in moments.values())
    passes = max(base + 2 * extra for name, (base, extra) in moments.items() if name != "step")
    return max(0.0, passes - largest)


def adapter_weights(shape: ModelShape, setup: TrainingSetup) -> int:
    """Weights of all adapters: ``rank x (inputs + outputs)`` for each adapted matrix."""
    return shape.layers * sum(setup.lora_rank * (m.inputs + m.outputs) * m.count for m in adapted(shape, setup))


def _states(shape: ModelShape, setup: TrainingSetup) -> dict[str, float]:
    """What is held from step to step, split over the GPUs as the sharding says."""
    full = [0.0, 0.0, 0.0]  # weights, gradients, optimizer
    full[0] += _frozen_bytes(shape, setup)
    for count, precision, master in trained(shape, setup):
        full[0] += count * precision.bytes
        full[1] += count * precision.bytes
        full[2] += count * (_per_parameter_states(setup, precision, master=master) + (4 if master else 0))
    weights, gradients, optimizer = full
    if setup.optimizer_in_backward:
        gradients = min(gradients, _largest(shape) * setup.precision.bytes)
    sharding, gpus = setup.sharding, setup.gpus
    return {
        "weights": weights / (gpus if sharding.splits_weights else 1),
        "gradients": gradients / (gpus if sharding.splits_gradients else 1),
        "optimizer": optimizer / (gpus if sharding.splits_optimizer else 1),
        "buckets": _buckets(shape, setup),
    }


def trained(shape: ModelShape, setup: TrainingSetup) -> list[tuple[float, Precision, bool]]:
    """What is trained: (how many, in which format, with fp32 master weights beside). Master weights exist only
    where the trained ones are half: in DeepSpeed always, elsewhere in full training by ``master_weights``.
    """
    deepspeed = setup.sharding.deepspeed
    half = setup.precision is not Precision.FP32
    if setup.method is Method.FULL and setup.autocast and not deepspeed:
        return [(float(shape.parameters), Precision.FP32, False)]
    if setup.method is Method.FULL:
        return [(float(shape.parameters), setup.precision, half and (setup.master_weights or deepspeed))]
    adapter = setup.precision if deepspeed else setup.adapter_precision
    parts = [(float(adapter_weights(shape, setup)), adapter, deepspeed and half)]
    if setup.train_embeddings:
        parts.append((float(shape.embedding_weights), setup.precision, deepspeed and half))
    return parts


def _per_parameter_states(setup: TrainingSetup, precision: Precision, *, master: bool) -> float:
    return setup.optimizer.states * (4 if master else precision.bytes) + setup.optimizer.state_bytes


def _frozen_bytes(shape: ModelShape, setup: TrainingSetup) -> float:
    """The base model under adapters; trained embeddings are copies, the frozen originals stay."""
    if setup.method is Method.FULL:
        return 0.0
    rest = shape.parameters - shape.linear_weights
    if setup.method is Method.LORA:
        return float(shape.parameters * (4 if setup.autocast else setup.precision.bytes))
    kept = 4 if setup.upcast_embeddings else setup.precision.bytes
    return shape.linear_weights * setup.quantized_bytes + rest * kept


def _buckets(shape: ModelShape, setup: TrainingSetup) -> float:
    """Gradients on their way between GPUs: DDP copies them once; DeepSpeed fills two buckets."""
    count = sum(number for number, _, _ in trained(shape, setup))
    size = sum(number * precision.bytes for number, precision, _ in trained(shape, setup))
    if setup.sharding is Sharding.DDP:
        return size
    if setup.sharding.deepspeed:
        return 2 * min(count, REDUCE_BUCKET) * setup.precision.bytes
    return 0.0


def _temporaries(shape: ModelShape, setup: TrainingSetup) -> dict[str, float]:
    dequantised = max(m.weights // m.count for m in shape.matrices()) * setup.precision.bytes
    return {
        "checkpoints": checkpoint_bytes(shape, setup),
        "layer": layer_bytes(shape, setup),
        "backward": backward_bytes(shape, setup),
        "logits": logits_bytes(shape, setup),
        "cast": _cast(shape, setup),
        "gathered": _gathered(shape, setup),
        "dequantised": float(dequantised) if setup.method is Method.QLORA else 0.0,
        "step": _step(shape, setup),
    }


def _cast(shape: ModelShape, setup: TrainingSetup) -> float:
    """Half copies of fp32 weights under autocast. The backward pass needs each until it has come back to its layer.

    Checkpointing makes those of frozen weights anew, layer by layer; those of trained ones are cached (torch.autocast).
    """
    if not setup.autocast:
        return 0.0
    again = setup.checkpointing and setup.method is not Method.FULL
    layers = shape.layer_weights if again else shape.linear_weights
    return float((layers + shape.vocabulary * shape.hidden) * setup.precision.bytes)


def _gathered(shape: ModelShape, setup: TrainingSetup) -> float:
    """Weights put together from all GPUs for the moment of their use, in the format of the products.

    FSDP keeps its root unit (embeddings, last norm) gathered and prefetches one layer beside the current one.
    ZeRO-3 gathers one embedding at a time, and keeps up to :data:`STAGE3_LIVE` weights that are soon used again.
    """
    if not setup.sharding.splits_weights:
        return 0.0
    each = setup.quantized_bytes if setup.method is Method.QLORA else setup.precision.bytes
    if setup.sharding is Sharding.FSDP:
        return 2 * shape.layer_weights * each + shape.embedding_weights * setup.precision.bytes
    live = min(STAGE3_LIVE, shape.linear_weights)
    return live * each + shape.vocabulary * shape.hidden * setup.precision.bytes


def _step(shape: ModelShape, setup: TrainingSetup) -> float:
    """Temporary copies of the optimizer's step.

    DeepSpeed flattens its gradients and casts them to fp32 (ZeRO-3 a sub-group at a time) instead of ``foreach``.
    """
    if setup.optimizer_in_backward:
        return 0.0
    parts = trained(shape, setup)
    if setup.sharding.deepspeed:
        own = sum(count for count, _, _ in parts) / setup.gpus
        if setup.sharding is Sharding.ZERO3:
            return min(own, STAGE3_LIVE) * 4
        return own * (4 + setup.precision.bytes)
    split = setup.gpus if setup.sharding.splits_optimizer else 1
    copies = setup.temporary_step_copies
    return sum(count * copies * (4 if master else precision.bytes) for count, precision, master in parts) / split


def _largest(shape: ModelShape) -> int:
    return max(*(m.weights for m in shape.matrices()), shape.vocabulary * shape.hidden)
