"""What a workload sees of the world: parameters, verified inputs, an output folder, checkpoints, progress, and stop.

Nothing here knows where the workload runs. Everything durable goes to the store; the scratch folder may vanish.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genai_operators.decisions.verdict import Verdict
from genai_operators.exceptions import BadWorkload, ManifestMismatch, ObjectNotFound
from genai_operators.report import Page
from genai_operators.store import MANIFEST_NAME, Manifest, Store, directory_manifest, locate, sha256_file

PROGRESS_PREFIX = "::progress "
#: Copies of inputs that lie where a pod cannot look, by digest.
INPUTS_PREFIX = "inputs"
KEPT_CHECKPOINTS = 2  # of one attempt: the newest may be damaged, then the one before it counts


@dataclass(frozen=True)
class InputArtifact:
    """A file or directory in the store and the digest that it must have."""

    uri: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class WorkloadOutput:
    """What a workload function returns.

    :param verdict: the gate's answer, for workloads that are gates.
    :param outputs: name -> folder below ``Context.output`` ("" for all of it) to be published as an artifact.
    :param metrics: figures for the registry and the log.
    :param report: the page; stored as ``report.html`` of the workload.
    """

    verdict: Verdict | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    report: Page | None = None


class StoppedResumably(Exception):
    """A workload stopped because it was asked to, after its checkpoint was written. No error: the process exits 75."""


class Checkpoints:
    """Checkpoints of one workload over all its attempts. One without a manifest does not exist."""

    def __init__(self, *, store: Store, directory: str, attempt: int, scratch: Path) -> None:
        self._store = store
        self._attempts = f"{directory}/attempts"
        self._own = f"{self._attempts}/{attempt}/checkpoints"
        self._scratch = scratch

    def save(self, step: int, directory: Path) -> Manifest:
        """Upload ``directory`` as the checkpoint of ``step``; older ones of this attempt beyond the last two go."""
        manifest = self._store.upload_directory(directory, f"{self._own}/{step}")
        for old in sorted(self._steps(self._own))[:-KEPT_CHECKPOINTS]:
            self._remove(f"{self._own}/{old}")
        return manifest

    def newest_valid(self) -> tuple[int, Path] | None:
        """Download the newest checkpoint of any attempt whose every file matches its manifest; ``None`` without one.

        A damaged one is skipped with a line in the log, so a crash while it was written never blocks the next attempt.
        """
        for step, prefix in self._newest_first():
            target = self._scratch / f"checkpoint-{step}"
            try:
                self._store.download_directory(prefix, target)
            except (ManifestMismatch, ObjectNotFound) as error:
                print(f"checkpoint of step {step} is not usable, trying the one before it: {error}", flush=True)
                shutil.rmtree(target, ignore_errors=True)
                continue
            return step, target
        return None

    def _newest_first(self) -> list[tuple[int, str]]:
        found = []
        for attempt in self._store.list_names(self._attempts):
            prefix = f"{self._attempts}/{attempt}/checkpoints"
            found += [(step, int(attempt), f"{prefix}/{step}") for step in self._steps(prefix)]
        return [(step, prefix) for step, _, prefix in sorted(found, reverse=True)]

    def _steps(self, prefix: str) -> list[int]:
        return [int(name) for name in self._store.list_names(prefix) if name.isdigit()]

    def _remove(self, prefix: str) -> None:
        self._store.delete(f"{prefix}/{MANIFEST_NAME}")  # first, so that half a deletion is no checkpoint
        for info in self._store.list(prefix):
            self._store.delete(info.path)


class Context:
    """Handed to every workload function."""

    def __init__(
        self,
        *,
        store: Store,
        directory: str,
        attempt: int,
        params: Mapping[str, Any],
        inputs: Mapping[str, InputArtifact],
        scratch: Path,
        start: int = 0,
        store_elsewhere: str | None = None,
    ) -> None:
        """
        :param directory: ``workloads/<kind>/<fingerprint>``, relative to ``store``.
        :param start: which process of the attempt this is, where the platform starts several.
        :param store_elsewhere: the same store's URI for those who specified the workload and read its result, where
            that differs from ours.
        """
        self.store = store
        self.store_elsewhere = store_elsewhere or store.uri
        self.directory = directory
        self.attempt = attempt
        self.start = start
        self.params = params
        self.inputs = inputs
        self.scratch = scratch
        self.output = scratch / "output"
        self.output.mkdir(parents=True, exist_ok=True)
        self.checkpoints = Checkpoints(store=store, directory=directory, attempt=attempt, scratch=scratch)
        self._stop = threading.Event()

    def fetch(self, name: str) -> Path:
        """Download the input ``name`` once, verify its digest, and return where it lies: a file or a directory.

        :raises BadWorkload: when the workload has no such input.
        :raises ObjectNotFound: when it is not in the store any more.
        :raises ManifestMismatch: when it is not what the digest says.
        """
        if name not in self.inputs:
            raise BadWorkload(f"{self.directory} has no input {name!r}; it has {sorted(self.inputs) or 'none'}")
        artifact = self.inputs[name]
        target = self.scratch / "inputs" / name
        store, path = self._find(artifact)
        if store.exists(path):
            target = target / path
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(store.get(path))
            found = sha256_file(target)
        else:
            if not target.exists():
                _download(store, path, target)
            found = directory_manifest(target).digest
        if found != artifact.digest:
            raise ManifestMismatch(
                f"input {name!r} at {artifact.uri} changed since the workload was specified (sha256 {found[:12]}, "
                f"expected {artifact.digest[:12]}). Run the task again: it will specify a new workload."
            )
        return target

    def uri_of(self, path: str) -> str:
        """URI of an object of the store, for those who read the result."""
        return f"{self.store_elsewhere}/{path}"

    def _find(self, artifact: InputArtifact) -> tuple[Store, str]:
        """Where it lies: within our store, as a copy in it (of what lies on another host), or where its URI says."""
        if artifact.uri.startswith(f"{self.store_elsewhere}/"):
            return self.store, artifact.uri.removeprefix(f"{self.store_elsewhere}/")
        copies = self.store.list_names(f"{INPUTS_PREFIX}/{artifact.digest}")
        if copies:
            return self.store, f"{INPUTS_PREFIX}/{artifact.digest}/{copies[0]}"
        return locate(artifact.uri)

    def log(self, line: str) -> None:
        """One line for the task log. Never text of a user."""
        print(line, flush=True)

    def progress(self, **figures: float | str | None) -> None:
        """Structured progress: ``step``, ``total``, ``loss``, ``tokens_per_s``, ``eta_s``, ``phase``."""
        print(PROGRESS_PREFIX + json.dumps(figures), flush=True)

    def request_stop(self) -> None:
        """Ask the workload to checkpoint and stop; the signal handler of SIGTERM calls it."""
        self._stop.set()

    def stop_requested(self) -> bool:
        """Whether somebody asked it to stop. A long workload looks at least once a second."""
        return self._stop.is_set()

    def stop_if_requested(self) -> None:
        """For workloads without checkpoints. :raises StoppedResumably: when a stop was requested."""
        if self.stop_requested():
            print("asked to stop; nothing to save", file=sys.stderr, flush=True)
            raise StoppedResumably


def _download(store: Store, path: str, target: Path) -> None:
    """A directory of ours, verified by its manifest; or anybody's, which the input's digest verifies afterwards."""
    if store.exists(f"{path}/{MANIFEST_NAME}"):
        store.download_directory(path, target)
        return
    objects = store.list(path)
    if not objects:
        raise ObjectNotFound(f"{store.uri_of(path)} does not exist, neither as a file nor as a directory")
    for info in objects:
        file = target / info.path.removeprefix(f"{path}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(store.get(info.path))
