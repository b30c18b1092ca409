"""How a model is to be trained: everything about a run that changes its bytes and its time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from genai_operators.exceptions import ConfigurationError


class Method(StrEnum):
    """What is trained."""

    FULL = "full"
    LORA = "lora"
    QLORA = "qlora"


class Precision(StrEnum):
    """A floating-point format."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"

    @property
    def bytes(self) -> int:
        """Of one number."""
        return 4 if self is Precision.FP32 else 2


class Optimizer(StrEnum):
    """Names as Hugging Face's ``optim`` has them, without ``_torch``."""

    ADAMW = "adamw"
    ADAMW_FUSED = "adamw_fused"
    ADAMW_8BIT = "adamw_8bit"
    PAGED_ADAMW_8BIT = "paged_adamw_8bit"
    LION = "lion"
    ADAFACTOR = "adafactor"
    SGD = "sgd"

    @property
    def states(self) -> float:
        """Numbers kept per trained parameter, in the format of the trained weights."""
        return {Optimizer.ADAMW: 2.0, Optimizer.ADAMW_FUSED: 2.0, Optimizer.LION: 1.0}.get(self, 0.0)

    @property
    def state_bytes(self) -> float:
        """Bytes per trained parameter of states with a format of their own.

        8-bit Adam: two bytes and two fp32 scales per 256 numbers. The paged one keeps them where they can leave the
        GPU, and the allocator does not count them. Source: Dettmers et al. 2022, arXiv 2110.02861, and bitsandbytes.
        """
        return 2 + 2 * 4 / 256 if self is Optimizer.ADAMW_8BIT else 0.0

    @property
    def step_copies(self) -> int:
        """Temporary numbers per trained parameter during the step.

        ``foreach`` Adam holds the square roots of all second moments at once ("~ sizeof(params) more peak memory",
        documentation of ``torch.optim``); the fused and 8-bit kernels hold nothing.
        """
        return 1 if self is Optimizer.ADAMW else 0


class Sharding(StrEnum):
    """What each of several GPUs keeps a part of only."""

    NONE = "none"
    DDP = "ddp"
    ZERO1 = "zero1"
    ZERO2 = "zero2"
    ZERO3 = "zero3"
    FSDP = "fsdp"

    @property
    def splits_optimizer(self) -> bool:
        """Optimizer states and master weights are split."""
        return self not in (Sharding.NONE, Sharding.DDP)

    @property
    def splits_gradients(self) -> bool:
        """Gradients are split."""
        return self.splits_optimizer and self is not Sharding.ZERO1

    @property
    def splits_weights(self) -> bool:
        """Weights are split, and gathered where they are used."""
        return self in (Sharding.ZERO3, Sharding.FSDP)

    @property
    def deepspeed(self) -> bool:
        """Run by DeepSpeed: its buckets, its flat copies, half-precision gradients, no autocast."""
        return self in (Sharding.ZERO1, Sharding.ZERO2, Sharding.ZERO3)


class Attention(StrEnum):
    """``eager`` writes a score for each pair of tokens; ``sdpa`` and ``flash`` do not."""

    EAGER = "eager"
    SDPA = "sdpa"
    FLASH = "flash"


class CrossEntropy(StrEnum):
    """``chunked`` makes the logits of an eighth of the tokens at a time; ``fused`` never stores them (Liger, CCE)."""

    PLAIN = "plain"
    CHUNKED = "chunked"
    FUSED = "fused"


ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION_ONLY = ("q_proj", "k_proj", "v_proj")

_CHOICES: dict[str, type[StrEnum]] = {
    "method": Method,
    "precision": Precision,
    "loss_precision": Precision,
    "adapter_precision": Precision,
    "optimizer": Optimizer,
    "attention": Attention,
    "cross_entropy": CrossEntropy,
    "sharding": Sharding,
}


def choice(kind: type[StrEnum], value: str, where: str) -> StrEnum:
    """A member from itself or its name.

    :raises ConfigurationError: the message has what is allowed.
    """
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(kind)
        raise ConfigurationError(f"{where} is {value!r}; one of {allowed}") from None


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """One way to train. The defaults are those of a present Hugging Face trainer on one GPU.

    :param micro_batch: sequences at once on one GPU. :param accumulation: micro-batches before a step.
    :param sequence_length: tokens of the longest sequence, padding included; what memory must hold.
    :param packed: sequences are filled up with several examples, so no token is padding.
    :param precision: of weights in the matrix products. :param loss_precision: of logits in the loss: fp32 under
        autocast and wherever the model calls ``logits.float()``; that of the weights where neither happens.
    :param master_weights: full training keeps fp32 weights beside the half ones (mixed precision); False is pure half.
    :param autocast: weights are held in fp32 and cast to ``precision`` where they are used (``bf16=True`` of a Hugging
        Face trainer on a model that was loaded in fp32); ``master_weights`` then says nothing.
    :param optimizer_in_backward: each gradient is used and freed at once; needs ``accumulation = 1``.
    :param step_copies: instead of the optimizer's; 2 for ``adamw`` before PyTorch 2.1.
    :param lora_targets: matrices with an adapter. :param lora_dropout: above zero, inputs are copied once more.
    :param adapter_precision: PEFT casts adapters of half models to fp32 (``autocast_adapter_dtype``).
    :param train_embeddings: both embeddings are trained too (PEFT's ``modules_to_save``).
    :param upcast_embeddings: QLoRA with fp32 embeddings and output (PEFT's ``prepare_model_for_kbit_training``).
    :param quantized_bytes: per quantised weight; NF4 with double quantisation 0.516 (arXiv 2305.14314).
    :param compiled: layers run through ``torch.compile``.
    :param dequantise_bytes: moved per quantised weight and pass; 5 for NF4 kernels, 26 where GPTQ unpacks to int32.
    :param gpus: all of them, of one machine.
    """

    method: Method = Method.LORA
    micro_batch: int = 1
    accumulation: int = 1
    sequence_length: int = 2048
    packed: bool = False
    precision: Precision = Precision.BF16
    loss_precision: Precision = Precision.FP32
    master_weights: bool = True
    autocast: bool = False
    optimizer: Optimizer = Optimizer.ADAMW_FUSED
    optimizer_in_backward: bool = False
    step_copies: int | None = None
    lora_rank: int = 16
    lora_targets: tuple[str, ...] = ALL_LINEAR
    lora_dropout: float = 0.0
    adapter_precision: Precision = Precision.FP32
    train_embeddings: bool = False
    upcast_embeddings: bool = True
    quantized_bytes: float = 0.516
    dequantise_bytes: float = 5.0
    checkpointing: bool = True
    compiled: bool = False
    attention: Attention = Attention.SDPA
    cross_entropy: CrossEntropy = CrossEntropy.PLAIN
    sharding: Sharding = Sharding.NONE
    gpus: int = 1

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            object.__setattr__(self, name, choice(kind, getattr(self, name), f"training setup: {name}"))
        for name in ("micro_batch", "accumulation", "sequence_length", "gpus"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"training setup: {name} is {getattr(self, name)}; at least 1")
        for name in ("quantized_bytes", "dequantise_bytes"):
            if not math.isfinite(getattr(self, name)) or getattr(self, name) <= 0:
                raise ConfigurationError(f"training setup: {name} is {getattr(self, name)}; above 0")
        if self.step_copies is not None and self.step_copies < 0:
            raise ConfigurationError(f"training setup: step_copies is {self.step_copies}; 0 or more")
        if not 0 <= self.lora_dropout < 1:
            raise ConfigurationError(f"training setup: lora_dropout is {self.lora_dropout}; in [0, 1)")
        self._require_possible()

    def _require_possible(self) -> None:
        if self.method is not Method.FULL and (self.lora_rank < 1 or not self.lora_targets):
            raise ConfigurationError(f"training setup: {self.method} needs a lora_rank of at least 1 and lora_targets")
        unknown = sorted(set(self.lora_targets) - set(ALL_LINEAR))
        if unknown:
            raise ConfigurationError(f"training setup: lora_targets {unknown} unknown; known: {', '.join(ALL_LINEAR)}")
        if self.gpus > 1 and self.sharding is Sharding.NONE:
            raise ConfigurationError(f"training setup: {self.gpus} GPUs need a sharding: ddp, zero1, ..., or fsdp")
        if self.autocast and (self.method is Method.QLORA or self.precision is Precision.FP32):
            raise ConfigurationError("training setup: autocast is for full or lora training in bf16 or fp16")
        if self.optimizer_in_backward and self.accumulation > 1:
            raise ConfigurationError("training setup: optimizer_in_backward cannot accumulate gradients")

    @property
    def tokens(self) -> int:
        """Of one micro-batch, padding included."""
        return self.micro_batch * self.sequence_length

    @property
    def residual_bytes(self) -> int:
        """Of one number between two layers; autocast leaves sums of fp32 and half in fp32."""
        return 4 if self.autocast else self.precision.bytes

    @property
    def temporary_step_copies(self) -> int:
        """Temporary numbers per trained parameter during the step."""
        return self.optimizer.step_copies if self.step_copies is None else self.step_copies
