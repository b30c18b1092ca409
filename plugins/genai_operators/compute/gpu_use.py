"""How much of its GPUs a workload uses, as ``nvidia-smi`` tells. Nothing where there is none."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Mapping

COMMAND = ("--query-gpu=memory.used,utilization.gpu", "--format=csv,noheader,nounits")
INTERVAL_S = 10.0
ANSWER_TIMEOUT_S = 20.0  # a driver that starts up takes some seconds
MIB = 2**20


def read_gpus(answer: str) -> dict[str, float]:
    """Figures of one answer, over all GPUs: the largest memory in use, in bytes, and the mean utilisation, 0 to 1.

    Lines that hold no numbers (``[N/A]``: a GPU that is shared says so) are left out.
    """
    memory, busy = [], []
    for line in answer.splitlines():
        used, _, share = (part.strip() for part in line.partition(","))
        if used.isdigit():
            memory.append(int(used) * MIB)
        if share.isdigit():
            busy.append(int(share) / 100)
    figures: dict[str, float] = {}
    if memory:
        figures["gpu_memory_bytes"] = float(max(memory))
    if busy:
        figures["gpu_use"] = round(sum(busy) / len(busy), 2)
    return figures


class GpuMeter:
    """Looks every :data:`INTERVAL_S` seconds, in a thread of its own, from :meth:`start` to :meth:`stop`."""

    def __init__(self) -> None:
        self._program = shutil.which("nvidia-smi")
        self._ended = threading.Event()
        self._latest: dict[str, float] = {}
        self.peak_bytes = 0.0

    @property
    def latest(self) -> Mapping[str, float]:
        """The newest figures; empty where nothing is known."""
        return self._latest

    def start(self) -> None:
        """Begin to look; does nothing where there is no ``nvidia-smi``."""
        if self._program is not None:
            threading.Thread(target=self._look, args=(self._program,), daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def _look(self, program: str) -> None:
        while not self._ended.is_set():
            try:
                answer = subprocess.run(
                    [program, *COMMAND], capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S, check=True
                ).stdout
            except (OSError, subprocess.SubprocessError):
                return  # the program is there, a GPU is not
            self._latest = read_gpus(answer)
            self.peak_bytes = max(self.peak_bytes, self._latest.get("gpu_memory_bytes", 0.0))
            self._ended.wait(INTERVAL_S)
