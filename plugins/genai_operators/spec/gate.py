"""What a run does when one of its gates does not pass."""

from __future__ import annotations

from enum import StrEnum


class OnFailure(StrEnum):
    """Stop, go on, skip the rest, or ask a person."""

    FAIL = "fail"
    WARN = "warn"
    SKIP = "skip"
    ASK = "ask"
