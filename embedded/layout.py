"""Where the embedded platform keeps its things, which ports it took, and the secrets it made on first use."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import stat
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from genai_operators.exceptions import ConfigurationError
from genai_operators.store import canonical_json

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
#: macOS allows 104 bytes for the path of a unix socket, Linux 108.
MAX_SOCKET_PATH_BYTES = 100
PREFERRED_PORTS = {"airflow": 8080, "mlflow": 5000, "gateway": 8000, "gateway_admin": 9901}
SECRETS_FILE_MODE = 0o600
PRIVATE_FOLDER_MODE = 0o700
#: Airflow signs its tokens with SHA-512, whose key should have 64 bytes (RFC 7518, section 3.2).
SECRET_BYTES = 64


@dataclass(frozen=True)
class Layout:
    """One platform: its directory and its ports."""

    directory: Path
    ports: dict[str, int]

    @classmethod
    def at(cls, directory: Path) -> Layout:
        """The platform in ``directory``, with the ports that it took when it first started."""
        record = directory / "ports.json"
        ports = json.loads(record.read_text()) if record.exists() else {}
        return cls(directory=directory.resolve(), ports=ports)

    @property
    def airflow_home(self) -> Path:
        return self.directory / "airflow"

    @property
    def store(self) -> Path:
        return self.directory / "store"

    @property
    def serving(self) -> Path:
        return self.directory / "serving"

    @property
    def keys(self) -> Path:
        return self.directory / "keys"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def lineage(self) -> Path:
        return self.directory / "lineage"

    @property
    def supervisor_configuration(self) -> Path:
        return self.directory / "supervisord.conf"

    @property
    def supervisor_socket(self) -> Path:
        """In the directory, or in a private temporary one where that path is too long for a socket."""
        path = self.directory / "supervisor.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
            return path
        name = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"genai-{os.getuid()}-{name}" / "supervisor.sock"

    @property
    def airflow_url(self) -> str:
        return f"http://{HOST}:{self.ports['airflow']}"

    @property
    def mlflow_url(self) -> str:
        return f"http://{HOST}:{self.ports['mlflow']}"

    @property
    def gateway_url(self) -> str:
        return f"http://{HOST}:{self.ports['gateway']}"

    @property
    def gateway_admin_url(self) -> str:
        return f"http://{HOST}:{self.ports['gateway_admin']}"

    @property
    def workload_python(self) -> Path:
        return ROOT / ".venv-workload" / "bin" / "python"

    def prepared(self) -> Layout:
        """Make the folders and keep the ports that are free; a taken one is replaced by another, for good."""
        for folder in (self.airflow_home, self.store, self.serving, self.keys, self.logs, self.lineage):
            folder.mkdir(parents=True, exist_ok=True)
        # The store holds captured prompts, Airflow's database its connections.
        for folder in (self.directory, self.keys):
            folder.chmod(PRIVATE_FOLDER_MODE)
        if (folder := self.supervisor_socket.parent) != self.directory:
            _make_private_folder(folder)
        ports: dict[str, int] = {}
        for name, preferred in PREFERRED_PORTS.items():
            ports[name] = free_port(self.ports.get(name, preferred), taken=set(ports.values()))
        (self.directory / "ports.json").write_bytes(canonical_json(ports))
        return replace(self, ports=ports)

    def remove_socket(self) -> None:
        """With the folder that was made for it elsewhere; once nothing runs any more."""
        self.supervisor_socket.unlink(missing_ok=True)
        if (folder := self.supervisor_socket.parent) != self.directory and folder.is_dir():
            folder.rmdir()

    def secret(self, name: str, *, size: int = SECRET_BYTES) -> str:
        """A random secret of this platform, made on first use and kept in a file that only its owner reads."""
        path = self.directory / "secrets.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        if name not in known:
            known[name] = secrets.token_urlsafe(size)
            write_private(path, json.dumps(known))
        return str(known[name])


def _make_private_folder(folder: Path) -> None:
    """:raises ConfigurationError: when somebody else, who may guess its name, made it first."""
    folder.mkdir(mode=PRIVATE_FOLDER_MODE, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigurationError(f"{folder} is not private to this user; remove it, or use a shorter directory")


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else may read, also not for a moment."""
    draft = path.with_suffix(path.suffix + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, SECRETS_FILE_MODE)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


def free_port(preferred: int, *, taken: set[int]) -> int:
    """``preferred`` if nothing listens there, else one that the system gives."""
    for candidate in (preferred, 0):
        if candidate in taken:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, candidate))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port on the loopback address")
