"""Programs of the docker folder, which are no package: loaded by path."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

DOCKER = Path(__file__).resolve().parents[3] / "docker"


def load(name: str) -> ModuleType:
    """``docker/<name>`` as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, DOCKER / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
