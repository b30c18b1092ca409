"""Hugging Face's own chatter, off: progress bars and notes for developers have no place in a task's log."""

from __future__ import annotations

import warnings


def silence_libraries() -> None:
    """Call once, before a model is loaded. Errors stay."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|peft|torch")
