"""Is an answer right? Exact match and validity, for free text and for JSON objects."""

from __future__ import annotations

import json
from typing import Any

from genai_operators.spec.data import OutputKind


def parsed_object(text: str) -> dict[str, Any] | None:
    """The JSON object that ``text`` is; ``None`` if it is anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # thousands of brackets: of a stranger's correction, or of a broken model
        return None
    return value if isinstance(value, dict) else None


def is_valid(answer: str, *, output: OutputKind) -> bool:
    """A JSON answer is valid if it parses to an object, a text answer if it is not blank."""
    return parsed_object(answer) is not None if output is OutputKind.JSON else bool(answer.strip())


def is_exact_match(answer: str, truth: str, *, output: OutputKind) -> bool:
    """Equal as parsed objects (key order and spaces do not count), or as text without the white space around it."""
    if output is OutputKind.JSON:
        parsed = parsed_object(answer)
        return parsed is not None and parsed == parsed_object(truth)
    return answer.strip() == truth.strip()
