"""Memory of answering: weights, the key-value cache of every running request, and the activations of one prefill."""

from __future__ import annotations

import math
from dataclasses import dataclass

from genai_operators.decisions.gpu_memory import FRAGMENTATION, RUNTIME_BYTES, MemoryEstimate
from genai_operators.decisions.gpu_setup import Precision, choice
from genai_operators.decisions.gpu_shape import ModelShape
from genai_operators.exceptions import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class InferenceSetup:
    """How a model answers.

    :param requests: running at once. :param context: tokens of each, prompt and answer.
    :param prefill_tokens: prompt tokens computed at once (an engine's chunk); by default one whole context.
    :param weight_bytes: per matrix weight: 2 half, 1 int8, 0.516 NF4. Embeddings stay in ``precision``.
    :param cache_bytes: per number of the key-value cache: 2 half, 1 fp8 or int8.
    :param gpus: over which weights and cache are split (tensor parallelism).
    """

    requests: int = 1
    context: int = 2048
    prefill_tokens: int | None = None
    precision: Precision = Precision.BF16
    weight_bytes: float = 2.0
    cache_bytes: float = 2.0
    gpus: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "precision", choice(Precision, self.precision, "inference setup: precision"))
        for name in ("requests", "context", "gpus"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"inference setup: {name} is {getattr(self, name)}; at least 1")
        for name in ("weight_bytes", "cache_bytes"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"inference setup: {name} is {value}; above 0")


def cache_bytes_per_token(shape: ModelShape, *, number_bytes: float = 2.0) -> float:
    """Keys and values of one token in all layers: ``2 x layers x key-value width`` numbers. Sliding windows ignored."""
    return 2 * shape.layers * shape.kv_width * number_bytes


def inference_memory(shape: ModelShape, setup: InferenceSetup) -> MemoryEstimate:
    """Expected peak of one GPU while ``requests`` contexts are full. Bytes."""
    if shape.kv_heads % setup.gpus and setup.gpus > 1 and setup.gpus % shape.kv_heads:
        raise ConfigurationError(f"inference setup: {shape.kv_heads} key-value heads cannot be split over {setup.gpus}")
    weights = float(shape.parameters - shape.linear_weights) * setup.precision.bytes
    weights += shape.linear_weights * setup.weight_bytes
    # A key-value head is the smallest share; with fewer heads than GPUs each GPU keeps a whole one.
    cache = cache_bytes_per_token(shape, number_bytes=setup.cache_bytes) * setup.requests * setup.context
    cache /= min(setup.gpus, shape.kv_heads)
    prefill = setup.prefill_tokens or setup.context
    widest = 2 * shape.hidden + 3 * shape.active_intermediate / setup.gpus
    temporary = prefill * widest * setup.precision.bytes + setup.requests * shape.vocabulary * 4
    parts = {"weights": weights / setup.gpus, "cache": cache, "prefill": temporary}
    peak = parts["weights"] + parts["cache"] + parts["prefill"] * (1 + FRAGMENTATION)
    return MemoryEstimate(parts=parts, moments={"prefill": peak}, runtime=RUNTIME_BYTES)


def concurrent_requests(shape: ModelShape, setup: InferenceSetup, *, capacity: float, utilisation: float = 0.9) -> int:
    """How many requests of full context fit into ``utilisation`` of ``capacity`` bytes; 0 where not even one does."""
    if not 0 < utilisation <= 1:
        raise ConfigurationError(f"inference: utilisation is {utilisation}; in (0, 1]")
    one = inference_memory(shape, setup)
    each = one.parts["cache"] / setup.requests
    free = capacity * utilisation - (one.peak - one.parts["cache"])
    return max(0, int(free // each))
