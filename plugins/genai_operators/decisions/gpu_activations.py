"""What the forward pass leaves for the backward pass: activations, checkpoints, and the logits that everybody forgets.

Counted tensor by tensor, per token, after Korthikanti et al. 2022 (arXiv 2205.05198), for a layer as the trainers run
it now: RMS norm with an fp32 copy, gated feed-forward, no dropout in the base model.
"""

from __future__ import annotations

from genai_operators.decisions.gpu_setup import Attention, CrossEntropy, Method, TrainingSetup
from genai_operators.decisions.gpu_shape import Matrix, ModelShape

CHUNKS = 8
"""Parts of a chunked cross-entropy (torchtune's and TRL's default)."""


def layer_bytes(shape: ModelShape, setup: TrainingSetup) -> float:
    """Bytes that one layer keeps for its backward pass, for one micro-batch, without checkpointing.

    The input of a matrix is kept only where that matrix, or an adapter beside it, is trained, or where the matrix is
    quantised (the kernels of bitsandbytes keep it). A compiled layer computes casts and activation functions anew
    instead of keeping them. Models without a gate (GPT-2, NeoX, Phi, ...) are those with the plain layer norm.
    """
    half, full = setup.precision.bytes, setup.method is Method.FULL
    names = {matrix.name for matrix in shape.matrices()} if full or setup.method is Method.QLORA else set()
    names |= {matrix.name for matrix in adapted(shape, setup)}
    norm = half  # the input; RMS norm in eager mode keeps it in fp32 instead, and the normalised one where trained
    if shape.gated and not setup.compiled:
        norm = 4 + (setup.residual_bytes if full else 0)
    attention = 2 * shape.attention_width + 2 * shape.kv_width  # q, k, v and output
    width = shape.active_intermediate
    feed_forward = width * ((2 if setup.compiled else 3) if shape.gated else 1)  # gate, up, activation
    if names & {"q_proj", "k_proj", "v_proj", "qkv_proj"}:
        attention += shape.hidden
    if names & {"gate_proj", "up_proj"}:
        feed_forward += shape.hidden
    if "down_proj" in names:
        feed_forward += width
    per_token = 2 * shape.hidden * norm + half * (attention + feed_forward) + _adapter_inputs(shape, setup)
    return setup.tokens * (per_token + _scores(shape, setup))


def backward_bytes(shape: ModelShape, setup: TrainingSetup) -> float:
    """Gradients of activations alive at once inside one layer: of the widest intermediate twice, of the residual."""
    return setup.tokens * setup.precision.bytes * (2.0 * shape.active_intermediate + shape.hidden)


def checkpoint_bytes(shape: ModelShape, setup: TrainingSetup) -> float:
    """The inputs of all layers; with checkpointing nothing else is kept."""
    return float(shape.layers * setup.tokens * shape.hidden * setup.residual_bytes)


def logits_bytes(shape: ModelShape, setup: TrainingSetup) -> float:
    """The largest sum of logits and what the loss makes of them.

    Alive at once in the backward pass of the loss: the model's logits (the trainer still holds them), the saved
    log-probabilities, the gradient of those, the gradient of the logits: one in the weights' format and three in the
    loss's: 14 bytes per token and vocabulary entry under autocast, 8 in pure half precision.
    """
    if setup.cross_entropy is CrossEntropy.FUSED:
        return 0.0
    held = setup.precision.bytes
    whole = float(setup.tokens * shape.vocabulary)
    if setup.cross_entropy is CrossEntropy.CHUNKED:
        return whole * held + whole / CHUNKS * 3 * setup.loss_precision.bytes
    return whole * (held + 3 * setup.loss_precision.bytes)


def adapted(shape: ModelShape, setup: TrainingSetup) -> tuple[Matrix, ...]:
    """The matrices of a layer that have an adapter. Where q, k and v are one matrix, it has one adapter."""
    if setup.method is Method.FULL:
        return ()
    fused = {"q_proj", "k_proj", "v_proj"} & set(setup.lora_targets)
    return tuple(m for m in shape.matrices() if m.name in setup.lora_targets or (m.name == "qkv_proj" and fused))


def _scores(shape: ModelShape, setup: TrainingSetup) -> float:
    """Per token: eager attention keeps fp32 probabilities and their half copy for every pair (5as in Korthikanti)."""
    if setup.attention is not Attention.EAGER:
        return 0.0
    return shape.heads * setup.sequence_length * (4.0 + setup.precision.bytes)


def _adapter_inputs(shape: ModelShape, setup: TrainingSetup) -> float:
    """Per token: each adapter keeps its input again where that is cast or dropped out (mask: one byte)."""
    dropped = setup.lora_dropout > 0
    if not dropped and setup.adapter_precision is setup.precision:
        return 0.0
    each = setup.precision.bytes + (setup.adapter_precision.bytes + 1 if dropped else 0)
    return float(sum(each * matrix.inputs for matrix in adapted(shape, setup)))
