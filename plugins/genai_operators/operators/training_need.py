"""What a fine-tuning will hold and compute, before it runs: the model's shape, how it is trained, and how much.

From the recipe, a ``config.json`` that is already here, and the rows seen so far. Nothing is downloaded; what is not
known is assumed, and said in :attr:`TrainingNeed.notes`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genai_operators.decisions.gpu_options import TrainingRun
from genai_operators.decisions.gpu_setup import Method, Optimizer, Precision, Sharding, TrainingSetup
from genai_operators.decisions.gpu_shape import ModelShape, shape_of_config
from genai_operators.exceptions import ConfigurationError, ObjectNotFound
from genai_operators.spec import recipe as recipes
from genai_operators.spec.recipe import Recipe
from genai_operators.store import locate

if TYPE_CHECKING:
    from genai_operators.release.ledger import LedgerEntry

#: Where ``config.json`` of a hub model can be laid down, as ``<organisation>--<name>.json``.
CONFIGS = "include/configs"
DEFAULT_EPOCHS = 3.0
#: When nothing is known of the rows.
ASSUMED_ROWS = 10_000
CHARACTERS_PER_TOKEN = 3.5  # English text with the tokenizers of present models
#: Of a raw file, read to count its rows; a larger one is judged by its beginning.
READ_BYTES = 32 * 2**20
_WORKLOAD = re.compile(r".*/workloads/fine_tune/[^/]+")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """:param count: rows to learn from. :param mean_tokens: of one; ``None``: taken as long as the recipe allows.

    :param known_from: for people.
    """

    count: int
    mean_tokens: float | None
    known_from: str


@dataclass(frozen=True, kw_only=True)
class TrainingNeed:
    """What the GPU plan is asked. :param notes: what was assumed, for people."""

    shape: ModelShape
    setup: TrainingSetup
    run: TrainingRun
    notes: tuple[str, ...] = ()


def training_need(recipe: Recipe, *, shape: ModelShape, rows: Rows) -> TrainingNeed:
    """The question for the GPU plan. Says what ``workloads/training.py`` does: Hugging Face's trainer on one process a
    GPU, weights loaded in fp32 and whole on each (DDP), no activation checkpointing, fused AdamW.
    """
    half = recipe.dtype == "bfloat16"
    setup = TrainingSetup(
        method=Method(recipe.method.value),
        sequence_length=recipe.max_length,
        precision=Precision.BF16 if half else Precision.FP32,
        autocast=half,
        master_weights=False,
        optimizer=Optimizer.ADAMW_FUSED,
        lora_rank=recipe.lora.r,
        lora_dropout=recipe.lora.dropout,
        checkpointing=False,
        sharding=Sharding.DDP,
    )
    sequences, epochs = rows.count, recipe.epochs or DEFAULT_EPOCHS
    notes = [f"rows: {rows.known_from}"]
    if recipe.max_steps is not None:
        sequences, epochs = recipe.max_steps * recipe.batch_size, 1.0
        notes = [f"{recipe.max_steps} steps, as the recipe says"]
    if rows.mean_tokens is None:
        notes.append(f"length of a row not known: taken as {recipe.max_length} tokens, the longest allowed")
    mean = None if rows.mean_tokens is None else min(rows.mean_tokens, float(recipe.max_length))
    run = TrainingRun(sequences=sequences, global_batch=recipe.batch_size, epochs=epochs, mean_length=mean)
    return TrainingNeed(shape=shape, setup=setup, run=run, notes=tuple(notes))


# --- the model's shape -------------------------------------------------------------------------------------------


def base_shape(recipe: Recipe, *, champion: LedgerEntry | None, root: Path) -> ModelShape:
    """Shape of what the training starts from.

    :param champion: given when it is refreshed: then its package holds the configuration.
    :raises ConfigurationError: the configuration is nowhere here, or is not understood.
    """
    if champion is not None:
        from genai_operators.operators.references import champion_model

        model = champion_model(champion)
        if model is None:
            raise ConfigurationError(f"the ledger does not say where the champion v{champion.version} lies")
        return stored_shape(model.uri)
    if recipe.base_model == recipes.FROM_SCRATCH:
        return _scratch_shape(recipe)
    if "://" in recipe.base_model:
        return stored_shape(recipe.base_model)
    return shape_of_config(_config_of(recipe.base_model, root))


def _scratch_shape(recipe: Recipe) -> ModelShape:
    made = recipe.architecture
    return ModelShape(
        hidden=made.hidden_size,
        layers=made.layers,
        heads=made.heads,
        kv_heads=made.key_value_heads,
        head_size=max(1, made.hidden_size // made.heads),
        intermediate=made.intermediate_size or 4 * made.hidden_size,
        vocabulary=recipe.tokenizer.vocab_size,
        tied=True,
    )


def _config_of(base_model: str, root: Path) -> Mapping[str, Any]:
    folder = root / Path(base_model).expanduser()
    laid_down = root / CONFIGS / f"{base_model.replace('/', '--')}.json"
    for path in (folder / "config.json", laid_down):
        if path.is_file():
            return _parsed(path.read_bytes(), str(path))
    raise ConfigurationError(
        f"the GPU plan needs the config.json of {base_model!r}, and nothing is downloaded for a plan. Save it as "
        f"{CONFIGS}/{laid_down.name}, make base_model a directory, or name the GPU: gpu: {{type: ..., count: ...}}"
    )


def stored_shape(uri: str) -> ModelShape:
    """Shape of a Hugging Face directory.

    :raises ConfigurationError: it has no ``config.json``, or one that is not understood.
    """
    store, prefix = locate(uri)
    path = f"{prefix.rstrip('/')}/config.json"
    try:
        return shape_of_config(_parsed(store.get(path), store.uri_of(path)))
    except ObjectNotFound as error:
        raise ConfigurationError(f"{uri} holds no config.json, so it is no model to start from") from error


def _parsed(data: bytes, where: str) -> Mapping[str, Any]:
    try:
        record = json.loads(data)
    except ValueError as error:
        raise ConfigurationError(f"{where} is no JSON: {error}") from error
    if not isinstance(record, Mapping):
        raise ConfigurationError(f"{where} is no model configuration: a mapping is needed")
    return record


# --- the rows ----------------------------------------------------------------------------------------------------


def expected_rows(files: Sequence[str], *, champion: LedgerEntry | None, root: Path) -> Rows:
    """How many rows there will be to learn from: those of the raw files, or about as many as the champion learnt.

    :param champion: given when it is refreshed.
    """
    if champion is not None and (learnt := _learnt(champion)) is not None:
        return learnt
    counted = [_count(root / Path(name).expanduser()) for name in files if "://" not in name]
    known = [found for found in counted if found is not None]
    if not known or len(known) < len(files):
        return Rows(count=ASSUMED_ROWS, mean_tokens=None, known_from=f"not known yet; {ASSUMED_ROWS:,} assumed")
    rows, characters = (sum(part) for part in zip(*known, strict=True))
    mean = characters / max(1, rows) / CHARACTERS_PER_TOKEN
    return Rows(count=max(1, rows), mean_tokens=mean, known_from=f"about {rows:,} in the files")


def _learnt(champion: LedgerEntry) -> Rows | None:
    """What the champion's own training counted."""
    from genai_operators.operators.references import champion_model

    model = champion_model(champion)
    if model is None:
        return None
    made = _WORKLOAD.match(model.uri)
    if made is None:
        return None  # imported, not trained here
    store, path = locate(f"{made[0]}/result.json")
    metrics = (store.find_json(path) or {}).get("metrics", {})
    rows, tokens = metrics.get("train_rows"), metrics.get("train_tokens")
    if not rows:
        return None
    mean = tokens / rows if tokens else None
    return Rows(count=int(rows), mean_tokens=mean, known_from=f"{int(rows):,}, as many as the champion learnt")


def _count(path: Path) -> tuple[int, int] | None:
    """(rows, bytes) of a local file of lines; ``None`` where it is not one."""
    if path.suffix not in (".jsonl", ".csv") or not path.is_file():
        return None
    size = path.stat().st_size
    with path.open("rb") as file:
        begin = file.read(READ_BYTES)
    lines = begin.count(b"\n") - (path.suffix == ".csv")
    if len(begin) < size:
        lines = math.ceil(lines * size / len(begin))
    return max(0, lines), size
