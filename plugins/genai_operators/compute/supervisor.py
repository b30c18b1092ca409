"""The parent of one attempt, on a laptop and in a pod: ``python -m genai_operators.compute.supervisor``.

It wins the right to begin (:mod:`~genai_operators.compute.beginning`: an attempt begins at most once, however often it
is launched; where the platform replaces what it took away, once at a time), starts the workload as its child, and
writes down what happens: a heartbeat, numbered chunks of log and progress, and how it ended. ``cancel.json`` or SIGTERM
reach the child as SIGTERM: checkpoint, then exit 75. The child never outlives it.

Imports only the standard library and small modules of ours: it must be up well within a second.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from genai_operators.compute.beginning import Refused, Start, begin
from genai_operators.compute.checkpoint_time import too_short
from genai_operators.compute.contract import RECORD_VERSION, Attempt
from genai_operators.compute.ending import Disposition, Ending
from genai_operators.compute.environment import workload_environment
from genai_operators.compute.gpu_use import GpuMeter
from genai_operators.compute.process import (
    Guard,
    ProcessIdentity,
    children_memory_bytes,
    kill_group,
    live_memory_bytes,
    oom_kills,
    spawn_bound,
)
from genai_operators.compute.scratch import remove_scratch, scratch_folder
from genai_operators.compute.tenure import Tenure
from genai_operators.compute.transcript import Transcript
from genai_operators.exceptions import StorageFull, StoreUnavailable
from genai_operators.store import Store

HEARTBEAT_S = 2.0
#: Without a written heartbeat for this long the supervisor ends its child: others may by then believe it dead.
LEASE_S = 60.0
#: After a gap this long between heartbeats it first looks whether somebody has claimed the next attempt.
SUSPECT_S = 6.0
#: Every so many heartbeats it looks whether its claim is still there.
ORPHAN_BEATS = 5
#: From SIGTERM to SIGKILL: time for the last checkpoint.
GRACE_S = 60.0
#: How long the final records are tried when the store does not answer.
FAREWELL_S = 60.0
TICK_S = 0.2
PIPE_CLOSE_S = 5.0
LONGEST_LINE = 8 * 1024
QUEUED_LINES = 10_000


class Supervisor:
    """Runs one attempt to its end. Call :meth:`run` once, from the main thread."""

    def __init__(
        self,
        attempt: Attempt,
        *,
        command: Sequence[str],
        grace_s: float = GRACE_S,
        incarnation: str | None = None,
    ) -> None:
        """:param incarnation: see :func:`~genai_operators.compute.beginning.begin`."""
        self._attempt = attempt
        self._store = attempt.store
        self._command = list(command)
        self._grace_s = grace_s
        self._incarnation = incarnation
        self._tenure = Tenure(attempt)
        self._scratch = scratch_folder(attempt)
        self._transcript = Transcript(attempt, write=self._try)
        self._gpus = GpuMeter()
        self._output: queue.Queue[str] = queue.Queue(maxsize=QUEUED_LINES)
        self._beats = self._first_beat = 0
        self._began = self._last_beat = time.monotonic()
        self._asked_to_stop: str | None = None
        self._stop_sent: float | None = None
        self._superseded = self._warned = False
        self._child_identity: ProcessIdentity | None = None

    def run(self) -> int:
        """Begin if nobody has, wait, and record the end. Returns the child's exit code; 0 when it was begun already."""
        start = begin(self._attempt, incarnation=self._incarnation)
        if isinstance(start, Refused):
            if self._incarnation is not None:  # the log of a pod; on this host it happens whenever one launches again
                print(f"{self._attempt.name}: nothing to begin: {start.why}", flush=True)
            return start.code
        self._prepare(start)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        kills_before = oom_kills()
        try:
            environment = workload_environment(self._attempt, scratch=self._scratch, start=start.number)
            child = spawn_bound(self._command, env=environment, cwd=self._scratch)
        except OSError as error:
            self._farewell(Ending(code=127, error="ConfigurationError", message=f"cannot start the workload: {error}"))
            remove_scratch(self._attempt, start=start.number)
            return 127
        guard = Guard(child.pid)
        self._child_identity = ProcessIdentity.of(child.pid)
        reader = threading.Thread(target=self._read, args=(child.stdout,), daemon=True)
        reader.start()
        self._gpus.start()
        self._watch(child)
        kill_group(child.pid)  # what it left behind; also lets go of the pipe
        guard.dismiss()
        self._gpus.stop()
        self._take_the_rest(reader)
        self._farewell(self._ending(child.returncode, out_of_memory=oom_kills() > kills_before))
        remove_scratch(self._attempt, start=start.number)
        return child.returncode

    # --- the beginning -----------------------------------------------------------------------------------------

    def _prepare(self, start: Start) -> None:
        """Go on where an earlier process of the attempt stopped; make an empty folder to work in."""
        self._tenure.start = start
        self._scratch = scratch_folder(self._attempt, start=start.number)
        if start.incarnation is None:
            for earlier in range(1, self._attempt.number):  # a killed supervisor could not tidy up
                remove_scratch(Attempt(store=self._store, directory=self._attempt.directory, number=earlier))
        elif start.number:
            heartbeat = self._store.find_json(self._attempt.path("heartbeat.json")) or {"beat": 0}
            self._transcript.go_on(heartbeat.get("progress") or {})
            self._beats = self._first_beat = int(heartbeat["beat"]) + 1
        self._scratch.mkdir(parents=True, mode=0o700)

    # --- while it runs -----------------------------------------------------------------------------------------

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        self._try(self._beat)
        while child.poll() is None:
            self._take(timeout=TICK_S)
            self._flush()
            if time.monotonic() - self._last_beat >= HEARTBEAT_S:
                self._yield_if_lost(child)
                self._try(self._look_for_cancel)
            self._pass_on_stop(child)

    def _read(self, pipe: IO[bytes] | None) -> None:
        """In a thread of its own. A full queue makes the child wait instead of filling our memory."""
        if pipe is None:
            return
        for raw in iter(lambda: pipe.readline(LONGEST_LINE), b""):
            self._output.put(raw.decode("utf-8", errors="replace").rstrip("\r\n"))

    def _take(self, *, timeout: float) -> None:
        """Take what the child has said, waiting at most ``timeout`` seconds for the first line."""
        try:
            self._note(self._output.get(timeout=timeout))
            for _ in range(QUEUED_LINES):  # not for ever: heartbeats are due as well
                self._note(self._output.get_nowait())
        except queue.Empty:
            return

    def _take_the_rest(self, reader: threading.Thread) -> None:
        """Until the pipe is closed; a process that left its group may hold it open, and is not waited for long."""
        deadline = time.monotonic() + PIPE_CLOSE_S
        while reader.is_alive() and time.monotonic() < deadline:
            self._take(timeout=TICK_S)
        self._take(timeout=TICK_S)

    def _note(self, line: str) -> None:
        self._transcript.take(line, besides=self._gpus.latest)
        if not self._warned and (warning := too_short(self._grace_s, self._transcript.latest)) is not None:
            self._warned = True
            self._transcript.take(warning, besides={})

    def _flush(self, *, everything: bool = False) -> None:
        self._transcript.flush(everything=everything)

    def _beat(self) -> None:
        self._store.put_json(self._attempt.path("heartbeat.json"), self._heartbeat())
        self._beats += 1
        self._last_beat = time.monotonic()

    def _heartbeat(self) -> dict[str, Any]:
        child = self._child_identity
        return {
            "version": RECORD_VERSION,
            "beat": self._beats,
            "at": time.time(),
            "seconds": round(time.monotonic() - self._began, 1),
            "start": self._tenure.start.number,
            "progress": self._transcript.latest,
            "gpu": dict(self._gpus.latest),
            "peak_gpu_memory_bytes": self._gpus.peak_bytes,
            "peak_memory_bytes": max(live_memory_bytes(child.pid) if child else 0, children_memory_bytes()),
            "child": child.to_json() if child else None,
            "ended": False,
        }

    def _yield_if_lost(self, child: subprocess.Popen[bytes]) -> None:
        """A supervisor that could not say that it lives must reckon that others took it for dead."""
        silent_s = time.monotonic() - self._last_beat
        if self._tenure.is_superseded():
            lost, self._superseded = "another process was started in its place", True
        elif silent_s > SUSPECT_S and self._tenure.has_successor():
            lost = "the next attempt has been claimed"
        elif (self._beats - self._first_beat) % ORPHAN_BEATS == 0 and self._tenure.is_orphan():
            lost = "its records were removed from the store"
        elif not self._try(self._beat) and silent_s > LEASE_S:
            lost = f"no heartbeat could be written for {silent_s:.0f} s"
        else:
            return
        print(f"{lost}: ending the workload", file=sys.stderr, flush=True)
        self._asked_to_stop = lost
        kill_group(child.pid)

    # --- stopping ----------------------------------------------------------------------------------------------

    def _on_signal(self, number: int, _frame: object) -> None:
        self._asked_to_stop = self._asked_to_stop or signal.Signals(number).name

    def _look_for_cancel(self) -> None:
        if self._asked_to_stop is None and self._store.exists(self._attempt.path("cancel.json")):
            self._asked_to_stop = "cancel.json"

    def _pass_on_stop(self, child: subprocess.Popen[bytes]) -> None:
        if self._asked_to_stop is None:
            return
        if self._stop_sent is None:
            self._stop_sent = time.monotonic()
            self._note(
                f"asked to stop ({self._asked_to_stop}): sending SIGTERM, then {self._grace_s:.0f} s to checkpoint"
            )
            child.terminate()
        elif time.monotonic() - self._stop_sent > self._grace_s:
            kill_group(child.pid)

    # --- the end -----------------------------------------------------------------------------------------------

    def _ending(self, code: int, *, out_of_memory: bool) -> Ending:
        reported = self._reported_error()
        last_lines = "" if code in (0, 75) else "; ".join(self._transcript.tail)
        return Ending(
            code=code,
            error=reported.get("class"),
            message=str(reported.get("message") or last_lines)[-2000:],
            out_of_memory=out_of_memory and code in (-signal.SIGKILL, 128 + signal.SIGKILL),
            memory=reported.get("memory"),
        )

    def _reported_error(self) -> Mapping[str, Any]:
        try:
            reported = json.loads((self._scratch / "error.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # it ended before it could say why; the exit code and its last lines remain
        return reported if isinstance(reported, dict) else {}

    def _farewell(self, ending: Ending) -> None:
        """Write the last chunks, then the end: ``exit.json`` if it is final, and a heartbeat marked as the last."""
        record = {
            **self._heartbeat(),
            "ended": True,
            "code": ending.code,
            "error": ending.error,
            "message": ending.message,
            "out_of_memory": ending.out_of_memory,
            "memory": ending.memory,
        }
        if self._tenure.is_orphan():
            return  # writing would bring a removed store back to life
        if self._superseded or self._tenure.is_superseded():
            self._flush(everything=True)  # what it said stays; how it ended is the other's to tell
            return
        final = ending.disposition is not Disposition.RESUME

        def write_end() -> None:
            if final:
                self._store.create_json(self._attempt.path("exit.json"), record)
            self._store.put_json(self._attempt.path("heartbeat.json"), record)

        deadline = time.monotonic() + FAREWELL_S
        while time.monotonic() < deadline:
            self._flush(everything=True)
            if self._try(write_end):
                return
            time.sleep(HEARTBEAT_S)

    def _try(self, write: Callable[[], None]) -> bool:
        """The store may be away for a moment; the workload goes on, and the lease bounds for how long."""
        try:
            write()
        except (StoreUnavailable, StorageFull) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            return False
        return True


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Command line: which attempt of which workload, and the command that computes it."""
    parser = argparse.ArgumentParser(description="Run one attempt of a workload.")
    parser.add_argument("--store", required=True, help="URI of the store")
    parser.add_argument("--directory", required=True, help="workloads/<kind>/<fingerprint>")
    parser.add_argument("--attempt", required=True, type=int)
    parser.add_argument("--grace", type=float, default=GRACE_S, help="seconds from SIGTERM to SIGKILL")
    parser.add_argument("--incarnation", help="names this process among those that the platform starts for the attempt")
    parser.add_argument("--detach", action="store_true", help="leave the caller's process tree first")
    parser.add_argument("command", nargs="+", help="what computes it, after --")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run the attempt that the command line names."""
    options = parse(arguments)
    if options.detach:
        _detach()
    attempt = Attempt(store=Store.open(options.store), directory=options.directory, number=options.attempt)
    supervisor = Supervisor(
        attempt, command=options.command, grace_s=options.grace, incarnation=options.incarnation or None
    )
    return supervisor.run()


def _detach() -> None:
    """Belong to nobody, so that no one who ends the caller and its children ends us. Before any thread exists."""
    if os.fork():
        os._exit(0)
    os.setsid()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
