"""One container as a process group of its own, with its output in a log file."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
#: In the environment of every process of a pod: how processes that left the group are found.
POD_MARKER = "GENAI_FAKE_POD"
#: In the environment of every process of a cluster: how the fixture finds what is left.
CLUSTER_MARKER = "GENAI_FAKE_CLUSTER"


def _die_with_the_server() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def marked_processes(name: str, value: str) -> list[int]:
    """Processes with a variable in their environment (Linux; elsewhere none)."""
    wanted = f"{name}={value}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # gone, or another user's
        if wanted in variables:
            found.append(int(folder.name))
    return found


def kill_quietly(pid: int, *, group: bool = False) -> None:
    """SIGKILL a process, or a group, that may be gone already."""
    try:
        (os.killpg if group else os.kill)(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


class Log:
    """Lines with their times, as container runtimes keep them."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._rest = b""

    def add(self, raw: bytes) -> None:
        """Take output; only whole lines are written."""
        *lines, self._rest = (self._rest + raw).split(b"\n")
        self._write(lines)

    def close(self) -> None:
        """Write what is left without a line end."""
        if self._rest:
            self._write([self._rest])
            self._rest = b""
        self._file.close()

    def _write(self, lines: list[bytes]) -> None:
        if lines:
            moment = time.time()
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1e9):09d}Z "
            self._file.write(b"".join(stamp.encode() + line + b"\n" for line in lines))


class Container:
    """A running command. ``on_end`` gets the exit code as container runtimes count it (128 + signal)."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        on_end: Callable[[int], None],
    ) -> None:
        self._marker = environment[POD_MARKER]
        self._on_end = on_end
        self._log = Log(log)
        self._kill_timer: asyncio.TimerHandle | None = None
        try:
            self._process = subprocess.Popen(
                list(command), env=dict(environment), cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_die_with_the_server,
            )  # fmt: skip
        except OSError:
            self._log.close()
            raise
        self.pid = self._process.pid
        self.ended = False
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        asyncio.get_running_loop().add_reader(self._output, self._read)

    def _read(self) -> None:
        try:
            raw = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return
        if raw:
            self._log.add(raw)
        else:
            asyncio.get_running_loop().remove_reader(self._output)

    def look(self) -> None:
        """Notice the end of the main process: everything else in the container ends with it."""
        if self.ended or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return
        self.ended = True
        kill_quietly(self.pid, group=True)  # before it is reaped: nobody else can have its number
        code = self._process.wait()
        for pid in marked_processes(POD_MARKER, self._marker):
            kill_quietly(pid)
        self._take_the_rest()
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._on_end(128 - code if code < 0 else code)

    def _take_the_rest(self) -> None:
        asyncio.get_running_loop().remove_reader(self._output)
        while raw := self._read_now():
            self._log.add(raw)
        self._log.close()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read_now(self) -> bytes:
        try:
            return os.read(self._output, 1 << 16)
        except BlockingIOError:
            return b""

    def stop(self, grace_s: float) -> None:
        """SIGTERM to the main process, SIGKILL to all after the grace."""
        if self.ended:
            return
        if grace_s <= 0:
            self.kill()
            return
        self._process.send_signal(signal.SIGTERM)
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._kill_timer = asyncio.get_running_loop().call_later(grace_s, self.kill)

    def kill(self) -> None:
        """SIGKILL to the whole container."""
        if not self.ended:
            kill_quietly(self.pid, group=True)
            for pid in marked_processes(POD_MARKER, self._marker):
                kill_quietly(pid)


class SimulatedContainer:
    """No process: it "runs" for some seconds. For benchmarks of what watches pods."""

    def __init__(self, *, seconds: float, exit_code: int, log: Path, on_end: Callable[[int], None]) -> None:
        self.ended = False
        self.pid = 0
        self._on_end = on_end
        self._log = Log(log)
        self._log.add(b"simulated container\n")
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end, exit_code)

    def look(self) -> None:
        """There is nothing to look at."""

    def stop(self, grace_s: float) -> None:
        """End as a process does that follows SIGTERM."""
        self._end(143 if grace_s > 0 else 137)

    def kill(self) -> None:
        """End at once."""
        self._end(137)

    def _end(self, code: int) -> None:
        if not self.ended:
            self.ended = True
            self._timer.cancel()
            self._log.close()
            asyncio.get_running_loop().call_soon(self._on_end, code)


AnyContainer = Container | SimulatedContainer
