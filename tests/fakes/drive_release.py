"""Drives a release in a process of its own, so that tests can kill it."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from genai_operators.release.plan import ReleasePlan
from tests.fakes.releases import MODEL, POLL_S, Bench


def drive(folder: str, release: str, pause_s: float) -> None:
    """Tick until the release has ended. Simulated time passes between two ticks, and ``pause_s`` of real time."""
    bench = Bench(Path(folder))
    controller = bench.controller(ReleasePlan.load(bench.store, MODEL, release))
    while not controller.tick().phase.ended:
        bench.serving.sleep(POLL_S)
        time.sleep(pause_s)


def start(bench: Bench, release: str, *, pause_s: float = 0.005) -> BaseProcess:
    """A new process that drives. The server that starts it has everything imported, so it starts in no time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fakes.drive_release", "genai_operators.decisions.sequential", "obstore"])
    process = context.Process(target=drive, args=(str(bench.folder), release, pause_s), daemon=True)
    process.start()
    return process
