"""Reading a pod: whether it can still run, why it waits, why it ended. Pure functions of the API's JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from genai_operators.compute.ending import EXIT_ERRORS, EXIT_RESUMABLE, error_class
from genai_operators.compute.kubernetes.names import CONTAINER

Json = Mapping[str, Any]

#: Reasons of the condition DisruptionTarget by which the node itself is gone.
LOST_NODE = frozenset({"DeletionByPodGC", "DeletionByTaintManager", "NodeLost", "NodeShutdown", "Shutdown"})
#: Reasons by which a kubelet refuses a pod that the scheduler gave it; another node, or a moment later, may take it.
REFUSED = ("OutOf", "UnexpectedAdmissionError", "NodeAffinity", "TaintToleration", "Preempting", "NodeShutdown")
#: How the kubelet words that a pod wrote more than it may.
STORAGE_WORDS = ("ephemeral", "emptydir", "storage limit")
KILLED = frozenset({137, 143, 129, 130})
CANNOT_START = frozenset({126, 127, 128})
LONGEST_TOLD = 400

_ERROR_LINE = re.compile(r"^(?:[\w.]+\.)?([A-Z]\w+): ", re.MULTILINE)


@dataclass(frozen=True)
class PodEnd:
    """How a pod ended.

    :param reason: one word of the platform's. :param error: class of our failure; ``None`` where it can be resumed.
    """

    reason: str
    detail: str
    error: str | None = None
    disrupted: bool = False


def name(found: Json) -> str:
    """Of any object."""
    return str(found["metadata"]["name"])


def seconds(timestamp: str | None) -> float | None:
    """Seconds since the epoch of a time as the API writes it."""
    return None if not timestamp else datetime.fromisoformat(timestamp).timestamp()


def condition(found: Json, kind: str) -> Json:
    """A condition of any object; empty where it has none of that type."""
    told = (found.get("status") or {}).get("conditions") or []
    return next((each for each in told if each.get("type") == kind), {})


def holds(found: Json, kind: str) -> bool:
    """Whether a condition is true. (It is a string: "False" is a true value of Python.)"""
    return condition(found, kind).get("status") == "True"


def is_terminal(pod: Json) -> bool:
    """Whether none of its containers runs or ever will. One that is being deleted still runs."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_terminating(pod: Json) -> bool:
    """Whether somebody asked for it to be deleted."""
    return pod["metadata"].get("deletionTimestamp") is not None


def container_state(pod: Json) -> tuple[str, Json]:
    """``waiting``, ``running`` or ``terminated``, and what is told of it; empty before the kubelet says anything."""
    statuses: Sequence[Json] = (pod.get("status") or {}).get("containerStatuses") or []
    ours = next((each for each in statuses if each.get("name") == CONTAINER), statuses[0] if statuses else {})
    state = ours.get("state") or {}
    return next(((kind, told) for kind, told in state.items() if told is not None), ("", {}))


def node(pod: Json) -> str:
    """Name of its node; empty before it has one."""
    return str((pod.get("spec") or {}).get("nodeName") or "")


def started_at(pod: Json) -> float | None:
    """When its container began, in seconds since the epoch."""
    return seconds(container_state(pod)[1].get("startedAt"))


def ended_at(pod: Json) -> float | None:
    """When its container ended; where nobody saw that, when it was to be gone at the latest."""
    finished = seconds(container_state(pod)[1].get("finishedAt"))
    return finished if finished is not None else seconds(pod["metadata"].get("deletionTimestamp"))


def end_of(pod: Json) -> PodEnd:
    """Why a pod ended, or is being ended: by its condition and reason first, then by the exit code."""
    status = pod.get("status") or {}
    _, told = container_state(pod)
    code, reason = told.get("exitCode"), str(status.get("reason") or "")
    if told.get("reason") == "OOMKilled" and code == 137:
        return PodEnd("OOMKilled", f"{_where(pod)}: the container was killed at its memory limit", "OutOfMemory")
    if reason == "Evicted":
        return _evicted(pod, status)
    if holds(pod, "DisruptionTarget"):
        disruption = condition(pod, "DisruptionTarget")
        return _disrupted(pod, str(disruption.get("reason") or "Disrupted"), str(disruption.get("message") or ""))
    if reason in LOST_NODE or reason == "Terminated":
        return _disrupted(pod, reason, str(status.get("message") or ""))
    if reason.startswith(REFUSED):
        return PodEnd(reason, f"{_where(pod)}: its node refused it: {status.get('message') or reason}", "Preempted")
    return _exited(pod, told)


def _evicted(pod: Json, status: Json) -> PodEnd:
    message = str(status.get("message") or "")
    if any(word in message.lower() for word in STORAGE_WORDS):
        return PodEnd("Evicted", f"{_where(pod)}: evicted for what it wrote: {message}", "StorageFull")
    return PodEnd("Evicted", f"{_where(pod)}: evicted: {message}", "Preempted", disrupted=True)


def _disrupted(pod: Json, reason: str, message: str) -> PodEnd:
    error = "NodeLost" if reason in LOST_NODE else "Preempted"
    return PodEnd(reason, f"{_where(pod)}: taken away ({reason}): {message}".rstrip(": "), error, disrupted=True)


def _exited(pod: Json, told: Json) -> PodEnd:
    code, reason = told.get("exitCode"), str(told.get("reason") or "")
    said = last_words(told)
    detail = f"{_where(pod)}: exit code {code}" + (f": {said}" if said else "")
    if code in (None, 0, EXIT_RESUMABLE) or code in KILLED:
        return PodEnd(reason or "Exited", detail)
    if code in CANNOT_START or reason in ("StartError", "ContainerCannotRun"):
        return PodEnd(reason or "StartError", f"{detail} (the image's command does not start)", "ConfigurationError")
    error = EXIT_ERRORS.get(int(code))
    return PodEnd(reason or "Error", detail, error.__name__ if error else _named_error(said))


def _named_error(said: str) -> str:
    """One of our own failures, where the last lines of the supervisor name one; it ended before it could write."""
    names = [found for found in _ERROR_LINE.findall(said) if error_class(found) is not None]
    return names[-1] if names else "WorkloadFailed"


def last_words(told: Json) -> str:
    """What a container that failed said last; the kubelet keeps it. Of a traceback, the error itself."""
    said = str(told.get("message") or "").strip()
    errors = [found.start() for found in _ERROR_LINE.finditer(said)]
    return said[errors[-1] :][:LONGEST_TOLD] if errors else said[-LONGEST_TOLD:]


def _where(pod: Json) -> str:
    return f"pod {name(pod)}" + (f" on node {node(pod)}" if node(pod) else "")
