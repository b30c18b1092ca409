"""Records to token ids and labels for training, with the loss where the recipe wants it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genai_operators.exceptions import DataError
from genai_operators.workloads.records import Record

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

IGNORED_LABEL = -100  # what torch's cross entropy leaves out
MAX_LEFT_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Example:
    """Token ids of one record; ``labels`` has the same length, ``IGNORED_LABEL`` where nothing is learnt."""

    input_ids: list[int]
    labels: list[int]


def encode(
    records: Sequence[Record], tokenizer: PreTrainedTokenizerBase, *, max_length: int, answers_only: bool
) -> list[Example]:
    """Encode records in order; a record of more than ``max_length`` tokens is left out.

    :raises DataError: when more than a tenth of the records are too long, or none is left.
    """
    marked = "{% generation" in (text := str(tokenizer.chat_template)) or "{%- generation" in text
    examples = [_example(record, tokenizer, marked=marked, answers_only=answers_only) for record in records]
    kept = [example for example in examples if len(example.input_ids) <= max_length]
    left_out = len(examples) - len(kept)
    if not kept or left_out > MAX_LEFT_OUT_SHARE * len(examples):
        longest = max((len(example.input_ids) for example in examples), default=0)
        raise DataError(
            f"{left_out} of {len(examples)} training rows have more than max_length = {max_length} tokens (the longest "
            f"{longest}). Raise max_length in the recipe, or shorten the rows."
        )
    return kept


def _example(record: Record, tokenizer: PreTrainedTokenizerBase, *, marked: bool, answers_only: bool) -> Example:
    messages = [message.as_dict() for message in record.messages]
    encoded: Any = tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=marked
    )
    ids = list(encoded["input_ids"])
    if not answers_only:
        return Example(ids, list(ids))
    if marked:
        mask = list(encoded["assistant_masks"])
    else:  # a template without markers: the answer is what follows the prompt that generation would start from
        prompt: Any = tokenizer.apply_chat_template(
            messages[:-1], tokenize=True, return_dict=True, add_generation_prompt=True
        )
        mask = [int(position >= len(prompt["input_ids"])) for position in range(len(ids))]
    return Example(ids, [token if learnt else IGNORED_LABEL for token, learnt in zip(ids, mask, strict=True)])


def collate(examples: Sequence[dict[str, list[int]]], *, pad_token_id: int) -> dict[str, torch.Tensor]:
    """Right-pad a batch to its longest example; shapes (batch, longest)."""
    import torch

    longest = max(len(example["input_ids"]) for example in examples)

    def padded(key: str, filler: int) -> torch.Tensor:
        rows = [example[key] + [filler] * (longest - len(example[key])) for example in examples]
        return torch.tensor(rows, dtype=torch.long)

    mask = [[1] * len(e["input_ids"]) + [0] * (longest - len(e["input_ids"])) for e in examples]
    return {
        "input_ids": padded("input_ids", pad_token_id),
        "labels": padded("labels", IGNORED_LABEL),
        "attention_mask": torch.tensor(mask, dtype=torch.long),
    }
