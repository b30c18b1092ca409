"""Find and end every process of a platform.

Each carries ``GENAI_PLATFORM=<directory>`` in its environment, which children inherit: also the idle workers that
Airflow's LocalExecutor leaves behind when its scheduler is killed, and detached training processes. So nothing is
missed, and nothing of anybody else's is touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil

MARKER = "GENAI_PLATFORM"
#: A training process writes a checkpoint on SIGTERM; measured under a second, so this is ample.
TERMINATE_TIMEOUT_S = 12.0
KILL_TIMEOUT_S = 5.0


def of_platform(directory: Path) -> list[psutil.Process]:
    """Every process with the platform's marker, this one and its ancestors left out."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in mine and process.environ().get(MARKER) == str(directory):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def end_all(directory: Path, *, matching: Callable[[psutil.Process], bool] = lambda _: True) -> int:
    """Ask each to stop, then end what is left, until none is. Returns how many there were."""
    ended: set[int] = set()
    while processes := [p for p in of_platform(directory) if matching(p)]:
        ended.update(process.pid for process in processes)
        _signal(processes, psutil.Process.terminate)
        _, alive = psutil.wait_procs(processes, timeout=TERMINATE_TIMEOUT_S)
        _signal(alive, psutil.Process.kill)
        psutil.wait_procs(alive, timeout=KILL_TIMEOUT_S)
    return len(ended)


def _signal(processes: list[psutil.Process], send: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        try:
            send(process)
        except psutil.NoSuchProcess:
            continue
