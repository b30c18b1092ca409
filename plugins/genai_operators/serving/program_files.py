"""Program files: what the platform's supervisord reads to run a model server, and where its log goes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genai_operators.exceptions import ServingFailed
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

# Two threads of torch on two busy cores are four to five times slower than one. Servers never look outside. The path is
# for what verifies the model first; the server itself gets none.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
}


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run. ``name`` is a plain word; ``directory`` is where it runs."""

    name: str
    command: Sequence[str]
    directory: Path
    environment: Mapping[str, str]


class ProgramFiles:
    """The program files and logs of one gateway directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def log_path(self, name: str) -> Path:
        return self._directory / LOG_FOLDER / f"{name}.log"

    def file_path(self, name: str) -> Path:
        return self._directory / PROGRAMS_FOLDER / f"{name}.conf"

    def write(self, program: Program) -> None:
        """Write a program file; the supervisor reads it when it is told to."""
        self.log_path(program.name).parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.file_path(program.name), self._render(program).encode())

    def remove(self, name: str) -> None:
        """None there is fine. The log stays."""
        self.file_path(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Of every program file there is."""
        return sorted(path.stem for path in (self._directory / PROGRAMS_FOLDER).glob("*.conf"))

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
            "command": _command(program.command),
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


def _command(parts: Sequence[str]) -> str:
    """One line, split where supervisord, even inside quotes, would see a comment (" ;") or its own "%(here)s"."""
    return shlex.join(parts).replace(" ;", " '';").replace("%(", "%''(")


def _plain(value: str) -> str:
    if '"' in value or "\n" in value:
        raise ServingFailed(
            f"the environment value {value!r} holds a quote or a line break, which a program file cannot"
        )
    return value
