"""Airflow's scheduler, started so that a killed one leaves nothing behind.

LocalExecutor's workers outlive a scheduler that was killed: those that run a task finish it, but the idle ones wait for
work for ever, because nobody writes to their queue any more. Each start ends the idle orphans of the one before.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil

from embedded.processes import MARKER, end_all


def is_idle_orphan(process: psutil.Process) -> bool:
    """A LocalExecutor worker that waits for work and whose scheduler is gone."""
    title = " ".join(process.cmdline())
    return "LocalExecutor" in title and "<idle>" in title and process.ppid() == 1


def main() -> None:
    """End the orphans, then become the scheduler."""
    end_all(Path(os.environ[MARKER]), matching=is_idle_orphan)
    airflow = str(Path(sys.executable).parent / "airflow")
    # --skip-serve-logs: the log server would listen on every interface; the UI reads the files of this host instead.
    os.execv(airflow, [airflow, "scheduler", "--skip-serve-logs"])  # noqa: S606  no shell is wanted


if __name__ == "__main__":
    main()
