"""A model server on this machine: its command, its port, and whether it answers."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from genai_operators.exceptions import ServingFailed
from genai_operators.serving import loopback
from genai_operators.serving.contract import STANDARD_RUNTIME, Deployment, GatewaySettings
from genai_operators.serving.program_files import ENVIRONMENT, Program, ProgramFiles
from genai_operators.serving.programs import Programs, ProgramState
from genai_operators.serving.state import Server
from genai_operators.serving.verified_start import command_line

# `transformers serve` answers only to the name it was started with, so it is started beside a link of that name.
# `-P` keeps the working directory, which holds a folder named like the model, out of Python's module search.
STANDARD_COMMAND = (
    "{python}",
    "-P",
    "-m",
    "transformers.cli.transformers",
    "serve",
    "{name}",
    "--host",
    "127.0.0.1",
    "--port",
    "{port}",
)
SERVERS_FOLDER = "servers"
HEALTH_TIMEOUT_S = 2.0
FIRST_TOKEN_TIMEOUT_S = 30.0
MAX_REFUSAL_BYTES = 2_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_UNFIT = frozenset("\n\r\0")


class Servers:
    """Starts, watches and stops the servers of one model."""

    def __init__(self, *, settings: GatewaySettings, runtimes: Mapping[str, Sequence[str]]) -> None:
        """:param runtimes: command templates by name, beside the built-in one."""
        self._settings = settings
        self._runtimes = {STANDARD_RUNTIME: STANDARD_COMMAND, **runtimes}
        self._directory = settings.directory.resolve()
        self._programs = Programs(socket=settings.supervisor)
        self._files = ProgramFiles(self._directory)

    def check(self, deployment: Deployment) -> None:
        """:raises ServingFailed: when it can never run: a bad name, an unknown or unfit runtime, no model directory."""
        for name in (deployment.model, deployment.runtime):
            if not _NAME.fullmatch(name):
                raise ServingFailed(f"{name!r} cannot name a server; use letters, digits, '_' and '-'")
        if deployment.runtime not in self._runtimes:
            raise ServingFailed(
                f"{deployment.model} has no runtime {deployment.runtime!r}; its model file knows "
                f"{', '.join(self._runtimes)}"
            )
        if any(set(part) & _UNFIT for part in self._runtimes[deployment.runtime]):
            raise ServingFailed(
                f"the command of the runtime {deployment.runtime!r} of {deployment.model} holds a line break, which "
                "would spoil the supervisor's configuration for every model"
            )
        if not Path(deployment.model_dir).is_dir():
            raise ServingFailed(f"{deployment.id}: there is no model directory {deployment.model_dir}")

    def place(self, deployment: Deployment) -> Server:
        """Choose a port and fill the runtime's command."""
        places = {
            "{python}": self._settings.workload_python,
            "{project}": str(self._settings.project_root),
            "{model_dir}": str(Path(deployment.model_dir).resolve()),
            "{name}": deployment.model,
        }
        command = tuple(_filled(part, places) for part in self._runtimes[deployment.runtime])
        return Server(deployment=deployment, port=free_port(), command=command)

    def start(self, server: Server) -> None:
        """Make it run as described; one that does so already is left alone."""
        write_program(self._directory, server)
        self._programs.start(server.deployment.id)

    def stop(self, server: Server) -> None:
        """Stop it and remove what :meth:`start` made."""
        name = server.deployment.id
        self._files.remove(name)
        self._programs.remove(name)
        folder = self._directory / SERVERS_FOLDER / name
        (folder / server.deployment.model).unlink(missing_ok=True)
        if folder.is_dir():
            folder.rmdir()

    def is_down(self, server: Server) -> bool:
        """Does the supervisor neither run nor start it?"""
        return self._programs.state(server.deployment.id) in (
            ProgramState.MISSING,
            ProgramState.STOPPED,
            ProgramState.EXITED,
        )

    def port_was_taken(self, server: Server) -> bool:
        """Did it fail because another process listens on its port?"""
        failed = self._programs.state(server.deployment.id) in (ProgramState.BACKOFF, ProgramState.FATAL)
        return failed and "address already in use" in self._files.last_lines(server.deployment.id).lower()

    def check_alive(self, server: Server) -> None:
        """:raises ServingFailed: with the log's last lines, when the supervisor has given it up."""
        name = server.deployment.id
        if self._programs.state(name) is ProgramState.FATAL:
            raise ServingFailed(
                f"{name} ended again and again while it started. {self._files.log_path(name)} ends:\n"
                f"{self._files.last_lines(name)}"
            )

    def healthy(self, server: Server) -> bool:
        """Does ``/health`` answer 200?"""
        try:
            status, _ = loopback.call(_url(server, "/health"), timeout_s=HEALTH_TIMEOUT_S)
        except OSError:
            return False
        return status == 200

    def generates(self, server: Server) -> bool:
        """Ask for one token, which also warms the server up. Its own errors mean "not yet".

        :raises ServingFailed: it refuses a plain chat request, which waiting will not mend.
        """
        body = {
            "model": server.deployment.model,
            "max_tokens": 1,
            "messages": [{"role": "user", "content": "Are you there?"}],
        }
        url = _url(server, "/v1/chat/completions")
        try:
            status, answer = loopback.call(url, method="POST", body=body, timeout_s=FIRST_TOKEN_TIMEOUT_S)
            if status == 200:
                return bool(json.loads(answer).get("choices"))
        except (OSError, ValueError):
            return False
        if 400 <= status < 500:
            text = answer[:MAX_REFUSAL_BYTES].decode("utf-8", errors="replace")
            raise ServingFailed(f"{server.deployment.id} refuses a plain chat request: {status} {text}")
        return False


def write_program(directory: Path, server: Server) -> None:
    """Write what the supervisor runs: the program file and the folder that it runs in."""
    deployment = server.deployment
    folder = directory / SERVERS_FOLDER / deployment.id
    folder.mkdir(parents=True, exist_ok=True)
    model_dir = Path(deployment.model_dir).resolve()
    _link(folder / deployment.model, target=model_dir)
    command = command_line(
        [part.replace("{port}", str(server.port)) for part in server.command],
        model_dir=model_dir,
        digest=deployment.digest,
    )
    program = Program(name=deployment.id, command=command, directory=folder, environment=ENVIRONMENT)
    ProgramFiles(directory).write(program)


def free_port() -> int:
    """A loopback port that is free now. If another process takes it first, the server is moved to the next one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    """Could a server listen there now?"""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _url(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def _filled(part: str, places: Mapping[str, str]) -> str:
    for place, value in places.items():
        part = part.replace(place, value)
    return part


def _link(path: Path, *, target: Path) -> None:
    """Point a symbolic link at a directory, atomically if it pointed elsewhere."""
    if path.is_symlink() and path.readlink() == target:
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target, target_is_directory=True)
    fresh.rename(path)
