"""Processes of this host: who they are, how they die together, what memory they took. Linux first, macOS as well."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LINUX = sys.platform == "linux"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, never confused with another that got the same number later.

    :param host: name of the machine. :param boot: which boot of it ("" where the system does not say).
    :param started: when the process started, in the system's own notation.
    """

    host: str
    boot: str
    pid: int
    started: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"host": self.host, "boot": self.boot, "pid": self.pid, "started": self.started}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ProcessIdentity:
        """:raises KeyError: when the record is not one of ours."""
        return cls(host=record["host"], boot=record["boot"], pid=int(record["pid"]), started=record["started"])

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Of a living process of this host."""
        return cls(host=socket.gethostname(), boot=boot_id(), pid=pid, started=_started(pid) or "")

    def is_local(self) -> bool:
        """Whether it belongs to this host, so that :meth:`is_alive` can know."""
        return self.host == socket.gethostname()

    def is_alive(self) -> bool:
        """Whether it still runs. A zombie does not; nor does anything from before the last boot."""
        return self.boot == boot_id() and self.started != "" and _started(self.pid) == self.started


def boot_id() -> str:
    """Identifies this boot of this machine; "" where the system does not say."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def _started(pid: int) -> str | None:
    """When the process started; ``None`` if there is none, or only its zombie."""
    if not _LINUX:
        shown = subprocess.run(
            ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        state, _, started = shown.stdout.strip().partition(" ")
        return started.strip() if state and not state.startswith("Z") else None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name is in parentheses and may hold anything; the state is the first field after it, the start the 20th.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def spawn_bound(command: Sequence[str], *, env: dict[str, str], cwd: Path) -> subprocess.Popen[bytes]:
    """Start a child, in a process group of its own, that cannot outlive this thread's process.

    Linux kills it with its parent (``PR_SET_PDEATHSIG``; so call this from the main thread, as the signal is bound to
    the *thread* that forked). stdout and stderr come back as one pipe. See :class:`Guard` for its children.
    """
    return subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
        preexec_fn=_die_with_parent(os.getpid()) if _LINUX else None,
    )


def _die_with_parent(parent: int) -> Callable[[], None]:
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # resolved before the fork: only async-signal-safe calls after it

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died between the fork and here
            os.kill(os.getpid(), signal.SIGKILL)

    return bind


class Guard:
    """A shell that waits for this process to die and then kills a whole process group.

    It needs nothing of the child and reaches grandchildren (data loader workers) as well, which ``PR_SET_PDEATHSIG``
    does not; on macOS it is the only bond. It reads a pipe whose other end only this process holds.
    """

    def __init__(self, group: int) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -s KILL -- "-$0" 2>/dev/null', str(group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,  # a signal to our group must not take the guard along
        )

    def dismiss(self) -> None:
        """The group has ended; kill nobody."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def kill_group(group: int) -> None:
    """SIGKILL to every process of the group; none left is fine."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS answers EPERM when only zombies are left
        return


def live_memory_bytes(pid: int) -> int:
    """Largest resident memory of a living process so far; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def children_memory_bytes() -> int:
    """Largest resident memory of any ended child (or child of a child that was waited for)."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def oom_kills() -> int:
    """How often the kernel killed for memory in this control group (version 2, then 1), or on this machine.

    A rise while a child died of SIGKILL is evidence that memory was the reason; SIGKILL alone is none.
    """
    for path in _oom_counters():
        try:
            found = re.search(r"^oom_kill\s+(\d+)", path.read_text(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return int(found[1])
    return 0


def _oom_counters() -> list[Path]:
    paths: list[Path] = []
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        groups = []
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if controllers == "" and group != "/":
            paths.append(Path(f"/sys/fs/cgroup{group}/memory.events"))
        elif controllers == "memory" and group != "/":
            paths.append(Path(f"/sys/fs/cgroup/memory{group}/memory.oom_control"))
    return [*paths, Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat")]
