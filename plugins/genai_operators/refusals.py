"""By which phrases an answer declines: a rate to compare, for drift and for a canary; it judges no single answer."""

from __future__ import annotations

from typing import Final

_SPOKEN: Final = (
    "i can't help",
    "i cannot help",
    "i can't assist",
    "i cannot assist",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "as an ai",
    "as a language model",
    "i'm sorry, but i",
    "i am sorry, but i",
    "i can't provide",
    "i cannot provide",
    "i must decline",
    "against my guidelines",
)

REFUSALS: Final = (*_SPOKEN, *(phrase.replace("'", "’") for phrase in _SPOKEN if "'" in phrase))
"""Phrases by which an assistant declines, in lower case and English, with either apostrophe."""


def declines(answer: str) -> bool:
    """Whether an answer holds one of them."""
    lower = answer.lower()
    return any(phrase in lower for phrase in REFUSALS)
