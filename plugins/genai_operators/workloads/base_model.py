"""Where a training starts: random weights, a Hugging Face directory or hub name, or the champion. Never a pickle."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from genai_operators.exceptions import DataError, UnsafeWeights
from genai_operators.spec.recipe import Recipe
from genai_operators.workloads.quiet import silence_libraries
from genai_operators.workloads.tokenizer import PLAIN_TEMPLATE, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

#: Formats that run code when they are loaded.
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"})


def refuse_pickles(directory: Path, *, where: str = "") -> None:
    """:raises UnsafeWeights: when the weights in ``directory`` are not safetensors.

    :param where: how the message names the directory.
    """
    if any(directory.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLE_SUFFIXES)
    found = f"{pickles[0]} is a pickle, which can run any code when it is loaded" if pickles else "it holds no weights"
    raise UnsafeWeights(
        f"{where or directory.name}: no .safetensors file; {found}. Convert the weights with "
        "AutoModelForCausalLM.from_pretrained(...).save_pretrained(..., safe_serialization=True) on a machine "
        "where you trust them, and name the new directory."
    )


def scratch_model(
    recipe: Recipe, *, texts: Iterable[str], seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A Llama with random weights from ``seed`` and a tokenizer trained on ``texts``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    silence_libraries()

    shape = recipe.architecture
    tokenizer = train_tokenizer(texts, vocab_size=recipe.tokenizer.vocab_size, context_length=shape.max_positions)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size or 4 * shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=True,
        # The usual 0.02 suits wide models; at width 128 it took three times the steps (exact match 0.13 instead of
        # 1.0 at 190).
        initializer_range=shape.hidden_size**-0.5,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config), tokenizer


def pretrained_model(source: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model from a directory or hub name, in float32, with a chat template.

    Code that a model brings along is not run. A tokenizer without a chat template (of a base model) gets a plain one.

    :raises UnsafeWeights: when there are no safetensors.
    :raises DataError: when it is not a model at all.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    silence_libraries()

    if Path(source).is_dir():
        refuse_pickles(Path(source))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(
            source, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise DataError(f"{source} cannot be loaded as a Hugging Face language model: {reason}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        tokenizer.chat_template = PLAIN_TEMPLATE
    return model, tokenizer


def add_lora(model: PreTrainedModel, recipe: Recipe, *, seed: int) -> PreTrainedModel:
    """Wrap ``model`` with low-rank adapters on all linear layers but the output's; only they are trained."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    wrapped: PreTrainedModel = get_peft_model(model, config)
    return wrapped


def save_model(
    model: PreTrainedModel, directory: Path, *, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int
) -> None:
    """Write weights (safetensors), configuration and greedy generation settings; answers are the same on every call."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(directory, safe_serialization=True)
