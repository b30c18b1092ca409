"""Model servers as programs of the platform's supervisord, driven over XML-RPC on its unix socket.

A program file under ``<directory>/programs.d`` outlives this process and the supervisor: whoever starts the platform
again starts the same servers. The supervisor restarts a server that dies; one that dies again and again while it starts
is given up (``FATAL``), and its log says why.
"""

from __future__ import annotations

import os
import shlex
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from genai_operators.exceptions import GatewayUnavailable, ServingFailed
from genai_operators.serving.state import replace_file

PROGRAMS_FOLDER = "programs.d"
LOG_FOLDER = "log"

# A server that ends within this time has failed to start; most of a start is the import of torch and transformers.
START_SECONDS = 30
START_RETRIES = 2
STOP_WAIT_S = 10
LOG_MAX_BYTES = 5_000_000
LOG_TAIL_BYTES = 4_000
LOG_TAIL_LINES = 20

# Two threads of torch on two busy cores are four to five times slower than one. Servers never look outside.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONPATH": "",
}

_FAULT_BAD_NAME = 10
_FAULT_NOT_RUNNING = 70
_FAULT_ALREADY_STARTED = 60
_FAULT_ALREADY_ADDED = 90


class ProgramState(StrEnum):
    """The supervisor's states that matter here; see its documentation."""

    MISSING = "MISSING"
    STOPPED = "STOPPED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    BACKOFF = "BACKOFF"
    STOPPING = "STOPPING"
    EXITED = "EXITED"
    FATAL = "FATAL"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run. ``name`` is a plain word; ``directory`` is where it runs."""

    name: str
    command: Sequence[str]
    directory: Path
    environment: Mapping[str, str]


class Programs:
    """The program files of one gateway directory and the supervisor that runs them."""

    def __init__(self, *, socket: Path, directory: Path) -> None:
        """:param socket: the supervisor's unix socket. :param directory: holds ``programs.d`` and ``log``."""
        self._socket = socket
        self._directory = directory

    def log_path(self, name: str) -> Path:
        return self._directory / LOG_FOLDER / f"{name}.log"

    def file_path(self, name: str) -> Path:
        return self._directory / PROGRAMS_FOLDER / f"{name}.conf"

    def write(self, program: Program) -> None:
        """Write the program file; :meth:`start` makes the supervisor read it."""
        self.log_path(program.name).parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.file_path(program.name), self._render(program).encode())

    def start(self, name: str) -> None:
        """Run the program as its file says: start it, restart it if its file changed, leave it alone if it runs so."""
        with self._supervisor() as rpc:
            ((_, changed, _),) = rpc.reloadConfig()
            if name in changed:
                _forgiving(rpc.stopProcessGroup, name, faults=(_FAULT_BAD_NAME,))
                _forgiving(rpc.removeProcessGroup, name, faults=(_FAULT_BAD_NAME,))
            _forgiving(rpc.addProcessGroup, name, faults=(_FAULT_ALREADY_ADDED,))
            if self._state(rpc, name) in (ProgramState.STOPPED, ProgramState.EXITED, ProgramState.FATAL):
                _forgiving(rpc.startProcess, name, False, faults=(_FAULT_ALREADY_STARTED,))

    def remove(self, name: str) -> None:
        """Stop the program and forget it. None there is fine."""
        self.file_path(name).unlink(missing_ok=True)
        with self._supervisor() as rpc:
            _forgiving(rpc.stopProcessGroup, name, faults=(_FAULT_BAD_NAME, _FAULT_NOT_RUNNING))
            _forgiving(rpc.removeProcessGroup, name, faults=(_FAULT_BAD_NAME,))
            rpc.reloadConfig()

    def state(self, name: str) -> ProgramState:
        """What the supervisor says of a program."""
        with self._supervisor() as rpc:
            return self._state(rpc, name)

    def last_lines(self, name: str) -> str:
        """The end of a program's log, for a message."""
        try:
            with self.log_path(name).open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - LOG_TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return "(it wrote no log)"
        return "\n".join(text.splitlines()[-LOG_TAIL_LINES:]) or "(its log is empty)"

    def _render(self, program: Program) -> str:
        settings = {
            "command": shlex.join(program.command),
            "directory": str(program.directory),
            "environment": ",".join(f'{key}="{_plain(value)}"' for key, value in sorted(program.environment.items())),
            "autostart": "true",
            "autorestart": "true",
            "startsecs": str(START_SECONDS),
            "startretries": str(START_RETRIES),
            "stopasgroup": "true",
            "killasgroup": "true",
            "stopwaitsecs": str(STOP_WAIT_S),
            "redirect_stderr": "true",
            "stdout_logfile": str(self.log_path(program.name)),
            "stdout_logfile_maxbytes": str(LOG_MAX_BYTES),
            "stdout_logfile_backups": "1",
        }
        lines = [f"{key} = {value.replace('%', '%%')}" for key, value in settings.items()]
        return "\n".join([f"[program:{program.name}]", *lines, ""])

    def _state(self, rpc: Any, name: str) -> ProgramState:
        try:
            return ProgramState(rpc.getProcessInfo(name)["statename"])
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == _FAULT_BAD_NAME:
                return ProgramState.MISSING
            raise

    def _supervisor(self) -> _Connection:
        return _Connection(self._socket)


class _Connection:
    """One conversation with the supervisor; its errors become ours."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def __enter__(self) -> Any:
        from supervisor.xmlrpc import SupervisorTransport

        self._transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        proxy = xmlrpc.client.ServerProxy("http://localhost", transport=self._transport, allow_none=True)
        return proxy.supervisor

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self._transport.close()
        if isinstance(error, (OSError, xmlrpc.client.ProtocolError)):
            raise GatewayUnavailable(
                f"the platform's supervisor does not answer at {self._socket} ({error}). `make up` starts it."
            ) from error
        if isinstance(error, xmlrpc.client.Fault):
            raise ServingFailed(f"the platform's supervisor refused: {error.faultString}") from error


def _forgiving(call: Any, *arguments: Any, faults: tuple[int, ...]) -> None:
    """Call the supervisor; the named faults mean that it is already so."""
    try:
        call(*arguments)
    except xmlrpc.client.Fault as fault:
        if fault.faultCode not in faults:
            raise


def _plain(value: str) -> str:
    if '"' in value or "\n" in value:
        raise ServingFailed(
            f"the environment value {value!r} holds a quote or a line break, which a program file cannot"
        )
    return value
