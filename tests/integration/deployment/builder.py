"""Builds images with buildah and runs them with podman and runc, in a storage of its own, where these tools exist.

The base image is pulled where its registry can be reached, and otherwise made from Debian's packages: a stand-in, which
shows that the Dockerfiles build and what they make runs as described, not that the real base behaves the same.
"""

from __future__ import annotations

import configparser
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

REAL_BASE = "docker.io/library/python:3.11.14-slim-bookworm"
STAND_IN = "localhost/genai-test-python:bookworm"
REGISTRY = ("registry-1.docker.io", 443)
REGISTRY_TIMEOUT_S = 3.0
BUILD_TIMEOUT_S = 900
RUN_TIMEOUT_S = 120
TOOLS = ("buildah", "podman", "runc")
# A machine without CAP_SYS_RESOURCE refuses the default limits, which are higher than its own.
LIMITS = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def why_not() -> str | None:
    """What is missing for building images here; ``None`` when nothing is."""
    if sys.platform != "linux":
        return "containers are built on Linux only"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"no {', '.join(missing)}: images are neither built nor run here"
    if os.getuid() != 0:
        return "images are built as the superuser only"
    if shutil.which("mmdebstrap") is None and not registry_answers():
        return "no registry can be reached, and no mmdebstrap makes a base image"
    return None


def registry_answers() -> bool:
    """Whether the registry of the base image can be reached."""
    try:
        with socket.create_connection(REGISTRY, timeout=REGISTRY_TIMEOUT_S):
            return True
    except OSError:
        return False


class NoContainers(Exception):
    """The tools are there, but a container does not start, or no base image can be had."""


class Builder:
    """:raises NoContainers: why nothing can be built or run here.

    :param folder: of its own, for images, containers and configuration. :param cache: keeps the stand-in's files.
    """

    def __init__(self, folder: Path, *, cache: Path) -> None:
        self._folder = folder
        self._cache = cache
        (folder / "containers.conf").write_text(CONTAINERS_CONF)
        self._environment = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}
        self._storage = ("--root", str(folder / "storage"), "--runroot", str(folder / "run"))
        try:
            self.base = self._pulled() if registry_answers() else self._stand_in()
            self._call([*self._run_command(), self.base, "true"], timeout=RUN_TIMEOUT_S)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            raise NoContainers(str(error)) from error

    def build(self, context: Path, dockerfile: str, *, tag: str, target: str = "", **arguments: str) -> str:
        """Build and return the image's name."""
        options = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        command = [
            *("buildah", *self._storage, "bud", "--runtime", "runc", *LIMITS, "--isolation", "oci"),
            *("--network", "host"),
            *("--format", "docker", "--pull-never", *self._package_index(), *options),
            *(("--target", target) if target else ()),
            *("--tag", f"localhost/{tag}", "--file", str(context / dockerfile), str(context)),
        ]  # fmt: skip
        self._call(command, timeout=BUILD_TIMEOUT_S)
        return f"localhost/{tag}"

    def run(
        self,
        image: str,
        *command: str,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        volumes: Mapping[Path, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end, as restricted as in a cluster: read-only root, no capability, no network."""
        variables = [word for name, value in (environment or {}).items() for word in ("--env", f"{name}={value}")]
        mounts = [word for path, target in (volumes or {}).items() for word in ("--volume", f"{path}:{target}")]
        arguments = [*options, *variables, *mounts, image, *command]
        return self._call([*self._run_command(), *arguments], timeout=RUN_TIMEOUT_S, check=False)

    def inspect(self, image: str) -> dict[str, object]:
        """The image's configuration."""
        shown = self._call(["podman", *self._storage, "inspect", "--type", "image", image], timeout=RUN_TIMEOUT_S)
        found: dict[str, object] = json.loads(shown.stdout)[0]
        return found

    def remove(self) -> None:
        """Remove every container and image of this storage, so that its folder can be deleted."""
        for command in (["rm", "--all", "--force"], ["rmi", "--all", "--force"]):
            self._call(["podman", *self._storage, *command], timeout=RUN_TIMEOUT_S, check=False)

    def _run_command(self) -> list[str]:
        hardening = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none")
        return ["podman", *self._storage, "--runtime", "runc", "run", "--rm", "--pull=never", *LIMITS, *hardening]

    def _pulled(self) -> str:
        self._call(["podman", *self._storage, "pull", REAL_BASE], timeout=BUILD_TIMEOUT_S)
        return REAL_BASE

    def _stand_in(self) -> str:
        archive = self._cache / "python-bookworm.tar"
        if not archive.exists():
            self._cache.mkdir(parents=True, exist_ok=True)
            draft = archive.with_suffix(".new.tar")
            packages = "--include=python3,python3-venv,ca-certificates"
            without = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "locale", "man")]
            command = ["mmdebstrap", "--variant=minbase", packages, *without, "bookworm", str(draft)]
            self._call(command, timeout=BUILD_TIMEOUT_S)
            draft.rename(archive)
        self._call(["podman", *self._storage, "import", str(archive), STAND_IN], timeout=BUILD_TIMEOUT_S)
        return STAND_IN

    def _package_index(self) -> list[str]:
        """Volumes that give pip, while building, this machine's own configuration: its index, certificates, wheels."""
        listed = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
        )
        parser = configparser.RawConfigParser()
        parser["global"] = {}
        folders: set[Path] = set()
        for line in listed.stdout.splitlines():
            name, _, quoted = line.partition("=")
            key, value = name.rpartition(".")[2], quoted.strip("'").replace("\\n", " ")
            parser["global"][key] = value
            folders |= {path for word in value.split() if (path := _local_folder(word)) is not None}
        file = self._folder / "pip.conf"
        with file.open("w") as written:
            parser.write(written)
        mounts = {file: "/etc/pip.conf", **{folder: str(folder) for folder in folders}}
        return [word for path, target in mounts.items() for word in ("--volume", f"{path}:{target}:ro")]

    def _call(self, command: Sequence[str], *, timeout: float, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert not check or done.returncode == 0, f"{' '.join(command[:4])}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done


def _local_folder(word: str) -> Path | None:
    """The folder that a value of pip's configuration needs on this machine, if it is one."""
    path = Path(urlsplit(word).path) if word.startswith("file://") else Path(word)
    if not path.is_absolute() or not path.exists():
        return None
    folder = path if path.is_dir() else path.parent
    # A "simple" index of files refers to the folder beside it.
    return folder.parent if folder.name == "simple" else folder
