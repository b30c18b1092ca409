"""``local`` compute: this host. An attempt is a detached supervisor with its workload as a child.

Use it where tasks run on the host that runs the workloads (LocalExecutor). From another host an attempt is unreachable,
and only its lease tells whether it lives.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from genai_operators.compute.contract import ABSENT, UNREACHABLE, Attempt, Phase, Probe
from genai_operators.compute.process import ProcessIdentity, kill_group
from genai_operators.compute.resources import Usage
from genai_operators.compute.scratch import errors_file, make_scratch_root
from genai_operators.compute.supervisor import GRACE_S
from genai_operators.exceptions import ConfigurationError, WorkloadFailed

ENTRY = ("-m", "genai_operators.workloads.main")
DETACH_TIMEOUT_S = 60.0  # measured 0.1 s; the rest is for a machine that swaps
STOP_TIMEOUT_S = 10.0
TAIL_BYTES = 2000


@dataclass(frozen=True, kw_only=True)
class LocalCompute:
    """Runs attempts on this host.

    :param python: the interpreter of the environment that has what the workload imports.
    :param entry: arguments that make it run the workload.
    :param grace_s: seconds that a stopped workload has for its last checkpoint.
    """

    python: str = sys.executable
    entry: Sequence[str] = ENTRY
    grace_s: float = GRACE_S

    target: ClassVar[str] = "local"
    restarts: ClassVar[bool] = False

    def describe(self) -> dict[str, Any]:
        """All its settings."""
        return {"target": self.target, "python": self.python, "entry": list(self.entry), "grace_s": self.grace_s}

    def launch(self, attempt: Attempt) -> None:
        """Start a detached supervisor. A second one finds ``started.json`` and leaves.

        :raises ConfigurationError: when the interpreter does not exist.
        :raises WorkloadFailed: when no process can be started.
        """
        if not Path(self.python).exists():
            raise ConfigurationError(
                f"{attempt.name}: there is no Python at {self.python}. Create the workload environment "
                "(`make install`) or correct the connection genai_compute_local."
            )
        root = make_scratch_root()
        command = [
            *(sys.executable, "-m", "genai_operators.compute.supervisor", "--detach"),
            *("--store", attempt.store.uri, "--directory", attempt.directory, "--attempt", str(attempt.number)),
            *("--grace", str(self.grace_s), "--", self.python, *self.entry),
        ]
        with errors_file(attempt).open("ab") as errors:
            try:
                subprocess.run(
                    command,
                    env={**os.environ, "PYTHONPATH": _python_path()},
                    cwd=root,
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    start_new_session=True,
                    timeout=DETACH_TIMEOUT_S,
                    check=True,
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise WorkloadFailed(
                    f"{attempt.name}: its supervisor did not start: {error}. {_tail(attempt)}"
                ) from error

    def probe(self, attempt: Attempt) -> Probe:
        """Look for the processes that ``started.json`` and the heartbeat name."""
        started = attempt.store.find_json(attempt.path("started.json"))
        if started is None:
            return Probe(phase=Phase.STARTING, reason=ABSENT, detail=_tail(attempt))
        processes = _processes(attempt, started)
        if not processes:
            return Probe(phase=Phase.FAILED, reason="abandoned", detail="it was given up before it began")
        if not processes[0].is_local():
            return Probe(phase=Phase.RUNNING, reason=UNREACHABLE, detail=f"it runs on {processes[0].host}")
        if any(process.is_alive() for process in processes):
            return Probe(phase=Phase.RUNNING, detail=f"process {processes[0].pid} on {processes[0].host}")
        return Probe(phase=Phase.FAILED, reason="gone", detail=f"process {processes[0].pid} is gone")

    def stop(self, attempt: Attempt) -> None:
        """Kill the workload's group and its supervisor, if they still are who they were, and see them gone."""
        started = attempt.store.find_json(attempt.path("started.json"))
        processes = [process for process in _processes(attempt, started or {}) if process.is_local()]
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while (alive := [process for process in processes if process.is_alive()]) and time.monotonic() < deadline:
            for process in reversed(alive):  # the child first, so that nothing of it is left to nobody
                kill_group(process.pid)
                _kill(process.pid)
            time.sleep(0.05)

    def usage(self, attempt: Attempt) -> Sequence[Usage]:
        """Nothing: the host is there anyway."""
        return ()


def _processes(attempt: Attempt, started: dict[str, Any]) -> list[ProcessIdentity]:
    """The supervisor, then its child as far as a heartbeat told."""
    heartbeat = attempt.store.find_json(attempt.path("heartbeat.json")) or {}
    records = [started.get("process"), heartbeat.get("child")]
    return [ProcessIdentity.from_json(record) for record in records if record]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _python_path() -> str:
    package_parent = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH"))))


def _tail(attempt: Attempt) -> str:
    try:
        return errors_file(attempt).read_bytes()[-TAIL_BYTES:].decode("utf-8", errors="replace").strip()
    except OSError:
        return ""
