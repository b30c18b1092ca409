"""What passes between an operator, a workload and the place that runs it.

A :class:`Workload` says what is to be computed; its fingerprint is its identity. An :class:`Attempt` is one try at it
on some machine. A :class:`Backend` knows only how to launch, probe and stop an attempt; claiming, adopting, waiting and
judging are written once, in :mod:`~genai_operators.compute.attempts` and :mod:`~genai_operators.compute.driver`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

from genai_operators.compute.resources import Resources, Usage
from genai_operators.decisions.verdict import Verdict
from genai_operators.exceptions import BadWorkload
from genai_operators.store import Store, canonical_json, sha256_bytes

RECORD_VERSION = 1
WORKLOADS_PREFIX = "workloads"
#: Code that changes what a workload computes. A change anywhere in it makes a new fingerprint.
CODE_FOLDERS = ("workloads", "decisions")


@dataclass(frozen=True)
class Artifact:
    """A file or directory in a store.

    :param digest: sha256 of the file, or of the canonical manifest of the directory.
    """

    uri: str
    digest: str

    def to_json(self) -> dict[str, str]:
        """Plain JSON types."""
        return {"uri": self.uri, "digest": self.digest}

    @classmethod
    def from_json(cls, record: Mapping[str, str]) -> Artifact:
        """:raises KeyError: when ``uri`` or ``digest`` is missing."""
        return cls(uri=record["uri"], digest=record["digest"])


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One unit of heavy work.

    :param kind: which function of :mod:`genai_operators.workloads` computes it.
    :param params: JSON only; everything in it that differs makes another workload.
    :param inputs: name -> artifact. Only the digests count: the same bytes elsewhere are the same input.
    :param code_digest: what :func:`code_digest` says of the code that computes it.
    :param nonce: set (to the run id) when an earlier result must not be reused.
    """

    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Artifact] = field(default_factory=dict)
    code_digest: str = ""
    nonce: str | None = None

    @property
    def fingerprint(self) -> str:
        """sha256, in hex, of everything that changes the result. :raises BadWorkload: when a parameter is not JSON."""
        identity: dict[str, Any] = {
            "version": RECORD_VERSION,
            "kind": self.kind,
            "params": self.params,
            "inputs": {name: artifact.digest for name, artifact in self.inputs.items()},
            "code": self.code_digest,
        }
        if self.nonce is not None:
            identity["nonce"] = self.nonce
        try:
            return sha256_bytes(canonical_json(identity))
        except (TypeError, ValueError) as error:
            raise BadWorkload(f"the parameters of a {self.kind} workload are not plain JSON: {error}") from error

    @property
    def directory(self) -> str:
        """Where its records lie, relative to the store."""
        return f"{WORKLOADS_PREFIX}/{self.kind}/{self.fingerprint}"

    def to_json(self) -> dict[str, Any]:
        """The content of ``spec.json``."""
        return {
            "version": RECORD_VERSION,
            "kind": self.kind,
            "params": self.params,
            "inputs": {name: artifact.to_json() for name, artifact in self.inputs.items()},
            "code_digest": self.code_digest,
            "nonce": self.nonce,
            "fingerprint": self.fingerprint,
        }


@lru_cache(maxsize=1)
def code_digest() -> str:
    """sha256 over our own Python files that compute results (:data:`CODE_FOLDERS`); library versions are not part."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(p for folder in CODE_FOLDERS for p in (package / folder).rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class Phase(StrEnum):
    """Where an attempt stands, on every backend.

    ``PREEMPTED``: its machine was taken away, and the platform will begin it again by itself.
    """

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


#: Phases in which the backend vouches that no process of the attempt is left.
GONE: frozenset[Phase] = frozenset({Phase.SUCCEEDED, Phase.FAILED})


@dataclass(frozen=True)
class Probe:
    """What a backend knows about an attempt.

    :param reason: one word for programs.
    :param detail: a sentence for people; while it waits, why.
    :param error: where the platform itself says how it ended, in a phase of :data:`GONE`: the class name of a failure
        in :mod:`~genai_operators.exceptions`, e.g. ``OutOfMemory`` or ``NodeLost``.
    :param since: when the phase began, in seconds since the epoch, where the platform knows.
    :param vouched: in a phase of :data:`GONE`, the platform saw its processes end. ``False``: it has no object of them
        any more, because somebody removed that, and one that lives on is ended by its lease only.
    """

    phase: Phase
    reason: str = ""
    detail: str = ""
    error: str | None = None
    since: float | None = None
    vouched: bool = True


#: A probe's reason when the platform has nothing of an attempt that has not begun: its launch did not get there.
ABSENT = "absent"
#: A probe's reason when the attempt lies where this backend cannot look (another host). Only its lease can end it.
UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Attempt:
    """Try ``number`` (from 1) at the workload in ``directory``. ``claim`` is the content of its ``claim.json``."""

    store: Store
    directory: str
    number: int
    claim: Mapping[str, Any] = field(default_factory=dict)

    @property
    def resources(self) -> Resources:
        """What it asked for."""
        return Resources.from_json(self.claim.get("resources") or {})

    @property
    def prefix(self) -> str:
        """Where its records lie, relative to the store."""
        return f"{self.directory}/attempts/{self.number}"

    def path(self, name: str) -> str:
        """Path of one of its records."""
        return f"{self.prefix}/{name}"

    @property
    def name(self) -> str:
        """Unique and the same for everybody: what a job, a folder or a process of it is called."""
        kind, fingerprint = self.directory.split("/")[-2:]
        return f"{kind.replace('_', '-')}-{fingerprint[:16]}-{self.number}"


class Backend(Protocol):
    """Where attempts run. It keeps no state: whoever knows the claim can ask."""

    #: Short name, as the model file's ``compute.target`` has it.
    target: ClassVar[str]
    #: Whether the platform may begin an attempt again in another process after it was taken away. An ending that can
    #: be resumed is then the attempt's end only once :meth:`probe` says gone.
    restarts: ClassVar[bool]

    def describe(self) -> dict[str, Any]:
        """What :func:`~genai_operators.compute.backends.open_backend` opens an equal one from; it stands in the claim,
        so that anybody can look after a running attempt. Holds no secret.
        """
        ...

    def launch(self, attempt: Attempt) -> None:
        """Start it and return. Idempotent: however often and by whomever it is called, the attempt begins once."""
        ...

    def probe(self, attempt: Attempt) -> Probe:
        """What is known of it now. A phase in :data:`GONE` vouches that none of its processes is left."""
        ...

    def stop(self, attempt: Attempt) -> None:
        """End its processes without asking them, and remove what would start them again. Idempotent.

        The last resort, after ``cancel.json`` was not obeyed; and the way to take an attempt that has not begun out of
        a queue.
        """
        ...

    def usage(self, attempt: Attempt) -> Sequence[Usage]:
        """What it has used so far, one record a pod that the platform still knows of; none where it is free."""
        ...


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a workload came to: the content of ``result.json``, written once by the first attempt that finished.

    :param attempt: the attempt that won.
    :param metrics: figures; units are in their names.
    :param seconds: duration of the winning attempt, from the start of its process.
    """

    attempt: int
    outputs: Mapping[str, Artifact] = field(default_factory=dict)
    verdict: Verdict | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    report_uri: str | None = None
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Result:
        """:raises BadWorkload: when the record is not a result of this version."""
        try:
            if record["version"] != RECORD_VERSION:
                raise BadWorkload(f"result version {record['version']!r}, this code reads {RECORD_VERSION}")
            verdict = record.get("verdict")
            return cls(
                attempt=int(record["attempt"]),
                outputs={name: Artifact.from_json(output) for name, output in record.get("outputs", {}).items()},
                verdict=None if verdict is None else Verdict.from_json(verdict),
                metrics=dict(record.get("metrics", {})),
                report_uri=record.get("report_uri"),
                seconds=float(record.get("seconds", 0.0)),
                peak_memory_bytes=int(record.get("peak_memory_bytes", 0)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadWorkload(f"not the result of a workload: {error!r}") from error
