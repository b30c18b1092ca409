"""A checkpointing workload in a store of its own: join it, drive it, see its processes, end them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genai_operators.compute import attempts
from genai_operators.compute.contract import Attempt, Result, Workload
from genai_operators.compute.owners import Owner
from genai_operators.compute.process import ProcessIdentity
from genai_operators.compute.watch import WorkloadSubject
from genai_operators.store import Store
from tests.fakes import checkpointing

PATIENCE_S = 60.0
LOCAL = {"target": "local", "grace_s": 5.0}


def owner(name: str = "one") -> Owner:
    return Owner(dag_id="dag", run_id=f"manual__{name}", task_id="train")


def environment(tmp_path: Path, project_root: Path) -> dict[str, str]:
    """What processes need to find the checkpointing workload and to work below ``tmp_path``."""
    return {
        "GENAI_EXTRA_WORKLOADS": checkpointing.EXTRA_WORKLOADS,
        "GENAI_SCRATCH_ROOT": str(tmp_path / "scratch"),
        "PYTHONPATH": os.pathsep.join((str(project_root / "plugins"), str(project_root))),
    }


def wait_for(
    condition: Callable[[], Any], *, what: str = "", patience_s: float = PATIENCE_S, every_s: float = 0.02
) -> Any:
    """The first true value of a condition. Fails the test after a minute."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {what or condition}"
        time.sleep(every_s)
    return value


class WorkloadRun:
    """:param params: of the checkpointing workload."""

    patience_s = PATIENCE_S

    def __init__(self, tmp_path: Path, **params: Any) -> None:
        self.store = Store.open(tmp_path / "store")
        self.witness = tmp_path / "witness"
        self.params = {"steps": 20, "step_s": 0.02, "witness": str(self.witness), **params}
        self.workload = Workload(kind=checkpointing.KIND, params=self.params)
        self.directory = self.workload.directory
        self.lines: list[str] = []

    # --- driving -----------------------------------------------------------------------------------------------

    def arguments(self, who: Owner | None = None, **limits: Any) -> dict[str, Any]:
        """Join, and return the arguments of a subject."""
        who = who or owner()
        joined = attempts.join(self.store, self.workload, who)
        return {
            "store": self.store.uri,
            "directory": joined.directory,
            "backend": LOCAL,
            "owner": who.to_json(),
            "after": joined.after,
            "limits": limits,
        }

    def subject(self, who: Owner | None = None, **limits: Any) -> WorkloadSubject:
        return WorkloadSubject(**self.arguments(who, **limits))

    def drive(self, subject: WorkloadSubject, *, until: Callable[[], Any] | None = None) -> dict[str, Any]:
        """Poll until it settled, or until the condition holds (then ``{}``)."""
        deadline = time.monotonic() + self.patience_s
        while time.monotonic() < deadline:
            poll = subject.poll()
            self.lines.extend(poll.lines)
            if poll.settled is not None:
                return poll.settled
            if until is not None and until():
                return {}
            if not poll.more:
                time.sleep(0.02)
        raise AssertionError(f"not settled after {self.patience_s:.0f} s:\n" + "\n".join(self.lines))

    # --- looking -----------------------------------------------------------------------------------------------

    def attempt(self, number: int = 1) -> Attempt:
        return Attempt(store=self.store, directory=self.directory, number=number)

    def newest(self) -> int:
        attempt = attempts.newest_attempt(self.store, self.directory)
        return 0 if attempt is None else attempt.number

    def result(self) -> Result:
        result = attempts.find_result(self.store, self.directory)
        assert result is not None
        return result

    def state(self) -> str:
        """The output of the attempt that won."""
        output = self.store.path_of(self.result().outputs["state"].uri)
        return self.store.get(f"{output}/state.txt").decode()

    def witnessed(self, start: str = "") -> list[str]:
        return [line for line in checkpointing.witnessed(self.witness) if line.startswith(start)]

    def began(self, number: int = 1) -> bool:
        return any(f"attempt={number} " in line for line in self.witnessed("begin"))

    def log_numbers(self, number: int = 1) -> list[int]:
        """Line numbers that were shown of an attempt, in the order in which they were."""
        shown = [line.removeprefix(f"{number}:") for line in self.lines if line.startswith(f"{number}:0")]
        return [int(line.split(" ", 1)[0]) for line in shown]

    # --- processes ---------------------------------------------------------------------------------------------

    def supervisor(self, number: int = 1) -> ProcessIdentity:
        path = self.attempt(number).path("started.json")
        record = wait_for(lambda: self.store.find_json(path), what="a supervisor")
        return ProcessIdentity.from_json(record["process"])

    def child(self, number: int = 1) -> ProcessIdentity:
        path = self.attempt(number).path("heartbeat.json")
        record = wait_for(lambda: (self.store.find_json(path) or {}).get("child"), what="a child")
        return ProcessIdentity.from_json(record)

    def kill_supervisor(self, number: int = 1) -> None:
        os.kill(self.supervisor(number).pid, signal.SIGKILL)

    def kill_child(self, number: int = 1) -> None:
        os.kill(self.child(number).pid, signal.SIGKILL)

    def let_finish(self) -> None:
        """The workload waits at its last step for this, if its parameter ``until`` is :attr:`gate`."""
        Path(self.params["until"]).touch()

    def end_everything(self) -> None:
        """After a test: nothing of it may go on, and nobody may want it to."""
        for info in self.store.list(f"{self.directory}/owners"):
            self.store.delete(info.path)
        for number in range(1, self.newest() + 1):
            attempts.abandon(self.attempt(number), reason="the test is over")
            started = self.store.get_json(self.attempt(number).path("started.json"))
            if started["process"] is not None:
                process = ProcessIdentity.from_json(started["process"])
                if process.is_alive():
                    os.kill(process.pid, signal.SIGKILL)
