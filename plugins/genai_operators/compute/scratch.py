"""Where attempts work on this host. Everything there may vanish at any time."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from genai_operators.compute.contract import Attempt
from genai_operators.exceptions import ConfigurationError
from genai_operators.store import sha256_bytes

SCRATCH_ROOT_VARIABLE = "GENAI_SCRATCH_ROOT"


def scratch_root() -> Path:
    """The folder of all attempts of this user; ``GENAI_SCRATCH_ROOT`` moves it to a larger disk."""
    configured = os.environ.get(SCRATCH_ROOT_VARIABLE)
    return Path(configured) if configured else Path(tempfile.gettempdir()) / f"genai-{os.getuid()}"


def make_scratch_root() -> Path:
    """The same, made if needed.

    :raises ConfigurationError: when somebody else made it first; a name in the shared temporary folder can be guessed.
    """
    root = scratch_root()
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    if SCRATCH_ROOT_VARIABLE not in os.environ and root.lstat().st_uid != os.getuid():
        raise ConfigurationError(f"{root} belongs to another user; remove it, or set {SCRATCH_ROOT_VARIABLE}")
    return root


def scratch_folder(attempt: Attempt, *, start: int = 0) -> Path:
    """The attempt's own folder. Two stores may hold the same workload; they never share a folder.

    :param start: which process of the attempt it is for, where the platform starts several.
    """
    again = f"-{start}" if start else ""
    return scratch_root() / f"{attempt.name}-{sha256_bytes(attempt.store.uri.encode())[:8]}{again}"


def errors_file(attempt: Attempt) -> Path:
    """What the attempt's supervisor itself has to say, mostly nothing: why it could not begin, or reach the store."""
    return scratch_folder(attempt).with_suffix(".supervisor.log")


def remove_scratch(attempt: Attempt, *, start: int = 0) -> None:
    """Remove the attempt's folder; and what its supervisor said, unless there is something to read."""
    shutil.rmtree(scratch_folder(attempt, start=start), ignore_errors=True)
    errors = errors_file(attempt)
    if errors.exists() and errors.stat().st_size == 0:
        errors.unlink(missing_ok=True)
