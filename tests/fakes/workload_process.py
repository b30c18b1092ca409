"""One workload in a store of its own, computed by the entry point that the supervisor starts, without a supervisor."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from genai_operators.compute.contract import Artifact, Workload
from genai_operators.store import Store, sha256_file
from genai_operators.workloads.context import Context, InputArtifact
from genai_operators.workloads.records import Message, Record, write_records

ROOT = Path(__file__).resolve().parents[2]
#: Trains a very small model from scratch, within a second once torch is imported.
TINY_RECIPE: Mapping[str, Any] = {
    "architecture": {"hidden_size": 32, "layers": 2, "heads": 2, "key_value_heads": 1, "intermediate_size": 64},
    "tokenizer": {"vocab_size": 300},
    "max_steps": 12,
    "batch_size": 4,
    "save_every_steps": 4,
    "max_length": 64,
}


def file_input(path: Path) -> Artifact:
    """A local file as an input."""
    return Artifact(uri=path.resolve().as_uri(), digest=sha256_file(path))


def record(text: str, answer: str, *, identity: str = "", source: str = "train") -> Record:
    """A record of one question and its answer."""
    return Record(identity or text, (Message("user", text), Message("assistant", answer)), source)


def dataset_input(store: Store, name: str, parts: Mapping[str, Sequence[Record]]) -> Artifact:
    """A validated data set in the store; ``parts`` by file name without its ending."""
    with TemporaryDirectory() as local:
        for part, records in parts.items():
            write_records(Path(local) / f"{part}.jsonl", records)
        manifest = store.upload_directory(Path(local), f"datasets/{name}")
    return Artifact(uri=store.uri_of(f"datasets/{name}"), digest=manifest.digest)


def context_of(
    tmp_path: Path, *, params: Mapping[str, Any], inputs: Mapping[str, Artifact] | None = None, attempt: int = 1
) -> Context:
    """A context as the entry point makes it; the store is ``tmp_path/store``."""
    scratch = tmp_path / f"scratch-{attempt}"
    scratch.mkdir(parents=True, exist_ok=True)
    return Context(
        store=Store.open(tmp_path / "store"),
        directory="workloads/test/fingerprint",
        attempt=attempt,
        params=params,
        inputs={name: InputArtifact(uri=a.uri, digest=a.digest) for name, a in (inputs or {}).items()},
        scratch=scratch,
    )


@dataclass
class WorkloadProcess:
    """A specified workload. Start its attempts with :meth:`start` or :meth:`run`."""

    module: ClassVar[str] = "genai_operators.workloads.main"

    store: Store
    workload: Workload
    python: str
    scratch_root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store.create_json(f"{self.workload.directory}/spec.json", self.workload.to_json())

    def scratch(self, attempt: int) -> Path:
        """Where an attempt computes."""
        return self.scratch_root / f"{self.workload.fingerprint[:12]}-{attempt}"

    def start(self, attempt: int = 1) -> subprocess.Popen[str]:
        """Start an attempt; stdout and stderr come as one pipe."""
        scratch = self.scratch(attempt)
        scratch.mkdir(parents=True, exist_ok=True)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT}",
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "GENAI_WORKLOAD_URI": self.store.uri_of(self.workload.directory),
            "GENAI_ATTEMPT": str(attempt),
            "GENAI_SCRATCH": str(scratch),
            **self.environment,
        }
        return subprocess.Popen(
            [self.python, "-m", self.module],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=scratch,
        )

    def run(self, attempt: int = 1) -> tuple[int, str]:
        """Run an attempt to its end; (exit code, output)."""
        process = self.start(attempt)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def error(self, attempt: int = 1) -> dict[str, str]:
        """What the attempt wrote before it failed."""
        found: dict[str, str] = json.loads((self.scratch(attempt) / "error.json").read_text())
        return found

    def result(self) -> dict[str, Any]:
        """Content of ``result.json``."""
        found: dict[str, Any] = self.store.get_json(f"{self.workload.directory}/result.json")
        return found

    def output(self, name: str) -> Artifact:
        """An output of the result."""
        return Artifact.from_json(self.result()["outputs"][name])
