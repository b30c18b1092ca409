"""Model servers as programs of the platform's supervisord, driven over XML-RPC on its unix socket."""

from __future__ import annotations

import xmlrpc.client
from enum import StrEnum
from pathlib import Path
from typing import Any

from genai_operators.exceptions import GatewayUnavailable, ServingFailed

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


class Programs:
    """The supervisor's programs.

    Program files outlive this process and the supervisor: whoever starts the platform again starts the same servers.
    The supervisor restarts a server that dies; one that dies again and again while it starts is given up (``FATAL``).
    """

    def __init__(self, *, socket: Path) -> None:
        """:param socket: the supervisor's unix socket."""
        self._socket = socket

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
        """Stop a program whose file is gone, and forget it. None there is fine."""
        with self._supervisor() as rpc:
            _forgiving(rpc.stopProcessGroup, name, faults=(_FAULT_BAD_NAME, _FAULT_NOT_RUNNING))
            _forgiving(rpc.removeProcessGroup, name, faults=(_FAULT_BAD_NAME,))
            rpc.reloadConfig()

    def state(self, name: str) -> ProgramState:
        """What the supervisor says of a program."""
        with self._supervisor() as rpc:
            return self._state(rpc, name)

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
