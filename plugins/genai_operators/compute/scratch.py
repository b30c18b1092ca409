"""Where attempts work on this host. Everything there may vanish at any time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from genai_operators.compute.contract import Attempt
from genai_operators.store import sha256_bytes

SCRATCH_ROOT_VARIABLE = "GENAI_SCRATCH_ROOT"


def scratch_root() -> Path:
    """The folder of all attempts of this user; ``GENAI_SCRATCH_ROOT`` moves it to a larger disk."""
    configured = os.environ.get(SCRATCH_ROOT_VARIABLE)
    return Path(configured) if configured else Path(tempfile.gettempdir()) / f"genai-{os.getuid()}"


def scratch_folder(attempt: Attempt) -> Path:
    """The attempt's own folder. Two stores may hold the same workload; they never share a folder."""
    return scratch_root() / f"{attempt.name}-{sha256_bytes(attempt.store.uri.encode())[:8]}"
