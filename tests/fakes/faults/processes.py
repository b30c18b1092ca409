"""Workers and triggerers of one task as processes of their own, which a row may kill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

from tests.fakes.kubernetes_run import ClusterRun
from tests.fakes.workload_run import PATIENCE_S, owner


class Processes:
    """Starts them, and adds to the run's log what they say. All end with the ``with`` block."""

    def __init__(self, run: ClusterRun, *, who: str = "one") -> None:
        self._run = run
        self._who = owner(who)
        self._started: list[subprocess.Popen[str]] = []

    def start(self, role: str, arguments: dict[str, Any], *point: str) -> subprocess.Popen[str]:
        """``worker`` or ``triggerer``, see :mod:`tests.fakes.crashing`."""
        command = [sys.executable, "-m", "tests.fakes.crashing", role, json.dumps(arguments), *point]
        self._started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return self._started[-1]

    def start_worker(self, *point: str) -> subprocess.Popen[str]:
        """One try of a task that waits on its worker, up to its first look."""
        run = self._run
        arguments = {
            "store": run.store.uri,
            "kind": run.workload.kind,
            "params": run.workload.params,
            "nonce": run.workload.nonce,
            "backend": run.backend,
            "owner": self._who.to_json(),
        }
        return self.start("worker", arguments, *point)

    def worker(self, *point: str) -> dict[str, Any] | None:
        """Run one to its end; the arguments of its subject, ``None`` if it was killed."""
        return self.finish(self.start_worker(*point))

    def started(self) -> dict[str, Any]:
        """A try of the task that nobody disturbs."""
        arguments = self.worker()
        assert arguments is not None
        return arguments

    def settled(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """A triggerer that nobody disturbs waits for the end."""
        self._run.open_gate()
        answer = self.finish(self.start("triggerer", arguments))
        assert answer is not None
        return answer

    def kill(self, process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
        """And take what it had said."""
        process.send_signal(number)
        self._run.lines.extend(process.communicate(timeout=PATIENCE_S)[0].splitlines())

    def finish(self, process: subprocess.Popen[str]) -> dict[str, Any] | None:
        """Wait for its end; what it answered, or ``None`` if it was killed."""
        said = process.communicate(timeout=PATIENCE_S)[0].splitlines()
        answer = json.loads(said.pop()) if process.returncode == 0 else None
        self._run.lines.extend(said)
        assert process.returncode in (0, -signal.SIGKILL)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.communicate()
