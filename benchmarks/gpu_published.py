"""Published measurements of fine-tuning, read from ``benchmarks/data``, as setups that an estimate can be made for."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from genai_operators.decisions.gpu_setup import (
    Attention,
    CrossEntropy,
    Method,
    Optimizer,
    Precision,
    Sharding,
    TrainingSetup,
)
from genai_operators.decisions.gpu_shape import ModelShape, shape_of_config

DATA = Path(__file__).parent / "data"

QWEN: dict[str, Any] = {
    "accumulation": 8,
    "lora_rank": 64,  # finetune.py of that repository
    "lora_dropout": 0.05,
    "attention": Attention.FLASH,
    "optimizer": Optimizer.ADAMW,
    "step_copies": 2,  # PyTorch 2.0
    "dequantise_bytes": 26.0,  # GPTQ
}
"""What the README and the scripts beside it state for every cell."""

QWEN_METHODS: dict[str, dict[str, Any]] = {
    # Without DeepSpeed the Trainer runs bf16 autocast, so the loss is fp32; DeepSpeed runs all in half precision, and
    # that model's code does not cast its logits. The README says that Q-LoRA on one GPU needs DeepSpeed and fp16.
    # It does not name the sharding of "multinode"; "the rest of configurations are the same" is read as no DeepSpeed.
    "lora": {"method": Method.LORA},
    "lora_embeddings": {"method": Method.LORA, "train_embeddings": True},
    "lora_multinode": {"method": Method.LORA, "sharding": Sharding.DDP},
    "lora_zero3": {"method": Method.LORA, "sharding": Sharding.ZERO3, "loss_precision": Precision.BF16},
    "qlora": {
        "method": Method.QLORA,
        "sharding": Sharding.ZERO2,
        "precision": Precision.FP16,
        "loss_precision": Precision.FP16,
    },
    "full": {"method": Method.FULL, "loss_precision": Precision.BF16},
}

TRAINERS: dict[str, dict[str, Any]] = {
    "torchtune": {
        "micro_batch": 2,
        "lora_rank": 8,
        "lora_targets": ("q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        "adapter_precision": Precision.BF16,
        "upcast_embeddings": False,
    },
    "peft": {
        "micro_batch": 4,
        "sequence_length": 768,
        "checkpointing": False,
        "optimizer": Optimizer.ADAMW,
    },
    "litgpt": {
        "lora_rank": 8,
        "lora_targets": ("q_proj", "v_proj"),
        "lora_dropout": 0.05,
        "adapter_precision": Precision.BF16,
        "loss_precision": Precision.BF16,
        "upcast_embeddings": False,
        "checkpointing": False,
        "optimizer": Optimizer.ADAMW,
    },
    "swift": {
        "lora_rank": 8,
        "lora_targets": ("q_proj", "k_proj", "v_proj"),
        "lora_dropout": 0.05,
        "accumulation": 16,
        "attention": Attention.FLASH,
        "optimizer": Optimizer.ADAMW,
    },
}
"""What each trainer's published configuration says."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One published run. ``memory`` in bytes on one GPU; ``seconds`` of one optimizer step, where published.

    :param context_counted: ``memory`` is ``nvidia-smi``'s figure; else PyTorch's own.
    """

    series: str
    shape: ModelShape
    setup: TrainingSetup
    memory: float
    context_counted: bool
    seconds: float | None = None


def shapes() -> dict[str, ModelShape]:
    """Every model of the tables."""
    configs = json.loads((DATA / "model_configs.json").read_text())
    return {name: shape_of_config(config) for name, config in configs.items()}


def qwen_cells() -> list[Measured]:
    """The 81 cells of Qwen's tables."""
    known, cells = shapes(), []
    for row in _rows("qwen_profiling.csv"):
        gpus = int(row["nodes"]) * int(row["gpus_per_node"])
        chosen = {**QWEN, **QWEN_METHODS[row["method"]]}
        if row["method"] == "full":
            chosen["sharding"] = Sharding.ZERO3 if gpus > 1 else Sharding.ZERO2
        cells.append(
            Measured(
                series=f"{row['model']} {row['method']}",
                shape=known[row["model"]],
                setup=TrainingSetup(**chosen, sequence_length=int(row["sequence_length"]), gpus=gpus),
                memory=float(row["memory_gb"]) * 1e9 / gpus,
                context_counted=True,
                seconds=float(row["seconds"]),
            )
        )
    return cells


def other_cells() -> list[Measured]:
    """Other families, other trainers; every batch of the length that the table states."""
    return _cells("other_profiling.csv", context_counted=False)


def varying_length_cells() -> list[Measured]:
    """Runs on examples of varying length, where the allocator's cache grew beyond what was needed."""
    return _cells("varying_lengths_profiling.csv", context_counted=True)


def _cells(name: str, *, context_counted: bool) -> list[Measured]:
    known = shapes()
    return [
        Measured(
            series=f"{row['trainer']} {row['model']}",
            shape=known[row["model"]],
            setup=TrainingSetup(**{**TRAINERS[row["trainer"]], **_options(row["setup"])}),
            memory=float(row["memory_gb"]) * 1e9,
            context_counted=context_counted,
        )
        for row in _rows(name)
    ]


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (DATA / name).open() as lines:
        yield from csv.DictReader(line for line in lines if not line.startswith("#"))


_KINDS = {
    "method": Method,
    "optimizer": Optimizer,
    "sharding": Sharding,
    "cross_entropy": CrossEntropy,
    "quantized_bytes": float,
    "lora_targets": lambda text: tuple(text.split("+")),
}


def _options(text: str) -> dict[str, Any]:
    """``a=1;b=true`` as keyword arguments of :class:`TrainingSetup`."""
    given = dict(part.split("=") for part in text.split(";"))
    unknown = set(given) - {field.name for field in fields(TrainingSetup)}
    if unknown:
        raise ValueError(f"other_profiling.csv: {sorted(unknown)} are no fields of TrainingSetup")
    truth = {"true": True, "false": False}
    return {name: truth[v] if v in truth else _KINDS.get(name, int)(v) for name, v in given.items()}
