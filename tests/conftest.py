"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def workload_python(project_root: Path) -> str:
    """The Python of the workload environment. ``make test`` creates it; without it the test skips, visibly."""
    python = project_root / ".venv-workload" / "bin" / "python"
    if not python.exists():
        pytest.skip(".venv-workload is missing; run `make install`")
    return str(python)
