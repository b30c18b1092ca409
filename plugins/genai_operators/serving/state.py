"""What the local gateway was told, one small file a model, and the lock that makes changes one at a time.

``<directory>/state/<model>.json`` is the only truth; Envoy's routes and clusters are generated from all of these files,
and the supervisor's program files say how the servers run. A process that dies between two writes leaves a state from
which the next call goes on.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from genai_operators.exceptions import ServingFailed
from genai_operators.serving.contract import Deployment, OutputKind, ServeOptions

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Server:
    """A deployment, the loopback port that its server was given, and the command that runs it.

    :param command: ``{port}`` stands for the port; everything else is filled in.
    """

    deployment: Deployment
    port: int
    command: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"deployment": self.deployment.to_json(), "port": self.port, "command": list(self.command)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Self | None:
        if value is None:
            return None
        return cls(
            deployment=Deployment.from_json(value["deployment"]),
            port=int(value["port"]),
            command=tuple(value["command"]),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelState:
    """The slots of one model.

    :param percent: the canary's share, 0 to 100; 0 without a canary.
    :param route_version: grows with each change of the routes; every access-log line carries it.
    :param release: who set the weight last.
    :param draining: servers that get no new requests and stop when theirs have ended.
    """

    model: str
    champion: Server | None = None
    canary: Server | None = None
    percent: float = 0.0
    route_version: int = 0
    release: str = ""
    draining: tuple[Server, ...] = ()
    output: OutputKind = OutputKind.TEXT
    retention_s: float = ServeOptions.retention_s
    capture_bytes: int = ServeOptions.capture_bytes
    timeout_s: float = ServeOptions.timeout_s
    champion_retries: int = ServeOptions.champion_retries

    @property
    def servers(self) -> tuple[Server, ...]:
        """Every server that must run."""
        return tuple(server for server in (self.champion, self.canary, *self.draining) if server is not None)

    def with_servers(self, change: Callable[[Server], Server]) -> Self:
        """The same state with every server changed."""
        return dataclasses.replace(
            self,
            champion=change(self.champion) if self.champion else None,
            canary=change(self.canary) if self.canary else None,
            draining=tuple(change(server) for server in self.draining),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "champion": self.champion and self.champion.to_json(),
            "canary": self.canary and self.canary.to_json(),
            "draining": [server.to_json() for server in self.draining],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        known = {field.name: value[field.name] for field in dataclasses.fields(cls)}
        draining = tuple(server for item in value["draining"] if (server := Server.from_json(item)))
        return cls(
            **known
            | {
                "champion": Server.from_json(value["champion"]),
                "canary": Server.from_json(value["canary"]),
                "draining": draining,
                "output": OutputKind(value["output"]),
            }
        )


class StateDirectory:
    """The state files of a gateway directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._states = directory / "state"

    def read(self, model: str) -> ModelState | None:
        """The state of a model; None when it was never deployed here."""
        path = self._states / f"{model}.json"
        try:
            return ModelState.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ServingFailed(
                f"{path} cannot be read ({error!r}). Move it away; the next release writes it anew."
            ) from error

    def read_all(self) -> tuple[ModelState, ...]:
        """Every model, sorted by name."""
        names = sorted(path.stem for path in self._states.glob("*.json"))
        return tuple(state for name in names if (state := self.read(name)))

    def write(self, state: ModelState) -> None:
        """Replace the state of a model atomically. Hold :meth:`locked` from the read to the write."""
        text = json.dumps(state.to_json(), indent=1, sort_keys=True)
        replace_file(self._states / f"{state.model}.json", text.encode())

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One change at a time over all models of this directory. A dead holder releases it."""
        path = self.directory / "gateway.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file by renaming a finished one over it, in the same folder. Readers see the old or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
