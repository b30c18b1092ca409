"""Answers of a model to many prompts: batched, left-padded, greedy, so the same model gives the same answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from genai_operators.workloads.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_SIZE = 32


def generate_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int,
    on_batch: Callable[[int], None],
    batch_size: int = BATCH_SIZE,
) -> list[str]:
    """One answer for each prompt, in order.

    Prompts of similar length share a batch, which saves padding; the order of the result is that of ``prompts``.

    :param max_new_tokens: longest answer.
    :param batch_size: prompts at a time; fewer need less memory.
    :param on_batch: called after each batch with the number of prompts answered so far; may raise to stop.
    """
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).eval()
    texts = [_prompt_text(tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(texts)), key=lambda index: (len(texts[index]), index))
    answers = [""] * len(texts)
    tokenizer.padding_side = "left"
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        encoded: Any = tokenizer(
            [texts[index] for index in batch], return_tensors="pt", padding=True, add_special_tokens=False
        )
        with torch.inference_mode():
            generated: Any = model.generate(
                input_ids=encoded["input_ids"].to(device),
                attention_mask=encoded["attention_mask"].to(device),
                do_sample=False,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
        new = generated[:, encoded["input_ids"].shape[1] :]
        for index, text in zip(batch, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
            answers[index] = text
        on_batch(min(start + batch_size, len(order)))
    return answers


def _prompt_text(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message]) -> str:
    text: Any = tokenizer.apply_chat_template(
        [message.as_dict() for message in prompt], tokenize=False, add_generation_prompt=True
    )
    return str(text)
