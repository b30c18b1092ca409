"""The demo as a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def demo_command(directory: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "embedded", "demo", "--directory", str(directory), *options]


def environment(project_root: Path) -> dict[str, str]:
    """As `make demo` sets it; nothing of this test session's Airflow."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return {**kept, "PYTHONPATH": f"{project_root / 'plugins'}{os.pathsep}{project_root}"}
