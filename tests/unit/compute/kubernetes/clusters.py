"""Attempts and objects of a cluster, as the API would show them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from genai_operators.compute.contract import Attempt
from genai_operators.compute.kubernetes.backend import KubernetesCompute
from genai_operators.compute.kubernetes.pod import PodRequest
from genai_operators.store import Store

#: A moment; objects of the tests are around it.
NOW = datetime(2026, 11, 3, 12, 0, 0, tzinfo=UTC).timestamp()
DIGEST = "registry.example/genai/workload@sha256:" + "ab" * 32
FINGERPRINT = "0123456789abcdef" * 4


def attempt_of(folder: Path, *, kind: str = "fine_tune", number: int = 1, **resources: Any) -> Attempt:
    """An attempt in a store in ``folder``, on the given resources."""
    return Attempt(
        store=Store.open(folder.as_uri()),
        directory=f"workloads/{kind}/{FINGERPRINT}",
        number=number,
        claim={"resources": resources, "at": NOW},
    )


def request_for(attempt: Attempt, *, grace_s: float = 120.0, **settings: Any) -> PodRequest:
    """What shapes the attempt's objects."""
    return PodRequest(attempt=attempt, settings=KubernetesCompute(**{"image": DIGEST, **settings}), grace_s=grace_s)


def at(seconds: float) -> str:
    """A time as the API writes it, ``seconds`` after :data:`NOW`."""
    return datetime.fromtimestamp(NOW + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, status: str = "True", *, reason: str = "", message: str = "", since: float = 0.0) -> Any:
    """A condition of any object."""
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(since)}


def job(*conditions: Mapping[str, Any], suspend: bool = False, deleted: bool = False, **labels: str) -> Any:
    """A Job, created a minute ago."""
    metadata: dict[str, Any] = {"name": "job", "uid": "job-uid", "labels": labels, "creationTimestamp": at(-60)}
    if deleted:
        metadata["deletionTimestamp"] = at(-1)
    return {
        "kind": "Job",
        "metadata": metadata,
        "spec": {"suspend": suspend},
        "status": {"conditions": list(conditions)},
    }


def pod(
    phase: str = "Running",
    *conditions: Mapping[str, Any],
    state: Mapping[str, Any] | None = None,
    node: str = "node-a",
    deleted: float | None = None,
    name: str = "job-x7k2p",
    **status: Any,
) -> Any:
    """A pod; ``deleted`` is when it is to be gone, in seconds after :data:`NOW`."""
    metadata: dict[str, Any] = {"name": name, "uid": f"{name}-uid", "creationTimestamp": at(-50)}
    if deleted is not None:
        metadata["deletionTimestamp"] = at(deleted)
    statuses = [] if state is None else [{"name": "workload", "state": dict(state)}]
    return {
        "metadata": metadata,
        "spec": {"nodeName": node} if node else {},
        "status": {"phase": phase, "conditions": list(conditions), "containerStatuses": statuses, **status},
    }


def running(since: float = -30) -> dict[str, Any]:
    """State of a container."""
    return {"running": {"startedAt": at(since)}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """State of a container."""
    return {"waiting": {"reason": reason, "message": message}}


def terminated(code: int, reason: str = "Error", message: str = "", *, finished: float = -5) -> dict[str, Any]:
    """State of a container."""
    told = {"exitCode": code, "reason": reason, "startedAt": at(-30), "finishedAt": at(finished)}
    return {"terminated": {**told, "message": message} if message else told}


def event(reason: str, message: str, *, seen: float = -5, count: int = 1) -> dict[str, Any]:
    """An event, last seen at ``seen``."""
    return {"reason": reason, "message": message, "lastTimestamp": at(seen), "count": count, "series": None}
