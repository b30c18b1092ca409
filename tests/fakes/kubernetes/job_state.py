"""What a Job's pods amount to: figures, conditions and the verdict, as functions of what is stored."""

from __future__ import annotations

import time
from calendar import timegm
from dataclasses import dataclass

from tests.fakes.kubernetes.deletion import condition_of
from tests.fakes.kubernetes.job_pods import completion_index
from tests.fakes.kubernetes.kinds import PODS, Object
from tests.fakes.kubernetes.storage import Store


@dataclass(frozen=True)
class JobPods:
    """A Job's pods at one look."""

    active: list[Object]
    terminating: list[Object]
    succeeded: list[Object]
    failed: list[Object]


def epoch(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    return float(timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")))


def is_finished(job: Object) -> bool:
    """Whether the Job is Complete or Failed."""
    return condition_of(job, "Complete") is not None or condition_of(job, "Failed") is not None


def pods_of(store: Store, job: Object) -> JobPods:
    """The pods that a Job owns, sorted by what they do."""
    found = JobPods([], [], [], [])
    for pod in store.all(PODS, job["metadata"]["namespace"]):
        owners = pod["metadata"].get("ownerReferences") or []
        if not any(owner["uid"] == job["metadata"]["uid"] for owner in owners):
            continue
        phase = pod["status"]["phase"]
        if phase in ("Succeeded", "Failed"):
            (found.succeeded if phase == "Succeeded" else found.failed).append(pod)
        elif pod["metadata"].get("deletionTimestamp"):
            found.terminating.append(pod)
        else:
            found.active.append(pod)
    return found


def verdict_on(job: Object) -> tuple[str, str, str] | None:
    """What decides the Job by its counts: condition, reason, message."""
    spec, status = job["spec"], job["status"]
    completions = spec.get("completions")
    wanted = completions if completions is not None else min(1, status.get("succeeded", 0) or 1)
    policy = success_policy_met(spec, status)
    if policy:
        return "SuccessCriteriaMet", "SuccessPolicy", policy
    if status.get("succeeded", 0) >= wanted and not spec.get("suspend"):
        return "SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods"
    if status.get("failed", 0) > spec["backoffLimit"]:
        message = "Job has reached the specified backoff limit"
        return "FailureTarget", "BackoffLimitExceeded", message
    deadline, started = spec.get("activeDeadlineSeconds"), status.get("startTime")
    if deadline is not None and started and not spec.get("suspend") and time.time() >= epoch(started) + deadline:
        return "FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline"
    return None


def add_counts(status: Object, succeeded: int, failed: int, indexes: list[int]) -> None:
    for name, more in (("succeeded", succeeded), ("failed", failed)):
        if more:
            status[name] = status.get(name, 0) + more
    known = [index for index in indexes if index >= 0]
    if known:
        done = {int(one) for one in status.get("completedIndexes", "").split(",") if one} | set(known)
        status["completedIndexes"] = ",".join(str(index) for index in sorted(done))


def write_counts(status: Object, *, active: int, ready: int, terminating: int) -> None:
    """The figures of pods that have not ended."""
    status.update(ready=ready, terminating=terminating)
    status.pop("active", None)
    if active:
        status["active"] = active


def is_ready(pod: Object) -> bool:
    """Whether it runs and is ready."""
    return condition_of(pod, "Ready") is not None


def free_indexes(spec: Object, status: Object, pods: JobPods) -> list[int]:
    """Indexes that no pod has or had with success."""
    taken = {completion_index(pod) for pod in pods.active + pods.terminating}
    taken |= {int(one) for one in status.get("completedIndexes", "").split(",") if one}
    return [index for index in range(spec["completions"]) if index not in taken]


def success_policy_met(spec: Object, status: Object) -> str | None:
    """The message when a rule of the success policy holds."""
    done = {one for one in status.get("completedIndexes", "").split(",") if one}
    for number, rule in enumerate((spec.get("successPolicy") or {}).get("rules") or []):
        wanted = set(str(rule.get("succeededIndexes", "")).split(",")) - {""}
        if (wanted and wanted <= done) or (rule.get("succeededCount") and len(done) >= rule["succeededCount"]):
            return f"Matched rules at index {number}"
    return None
