"""What an attempt waits for before it runs, in the words that a person would look up with kubectl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genai_operators.compute.contract import Phase, Probe
from genai_operators.compute.kubernetes import pods
from genai_operators.compute.kubernetes.jobs import JobView

Json = Mapping[str, Any]

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
#: The kubelet tries a failing image again after 10 s, 20 s, 40 s: so many tries tell a typo from a hiccup.
IMAGE_TRIES = 3
IMAGE_GRACE_S = 60.0
#: A Secret or service account that is missing may be on its way; after this long it is not.
CONFIGURATION_GRACE_S = 60.0
NO_SUCH_IMAGE = frozenset({"InvalidImageName", "ErrImageNeverPull"})
IMAGE_TROUBLE = frozenset({"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"})
CONFIGURATION_TROUBLE = frozenset({"CreateContainerConfigError", "CreateContainerError", "CreateContainerConfigErr"})
#: Events by which the cluster autoscaler and Karpenter say that a machine is on its way, and that none is.
SCALING_UP = frozenset({"TriggeredScaleUp", "Nominated"})
NOT_SCALING = frozenset({"NotTriggerScaleUp", "FailedScaleUp", "FailedScheduling"})
#: Reason of a probe while a machine is being added.
SCALE_UP = "scale-up"
SPELLING_OF_QUOTA = "exceeded quota"
LONGEST_DETAIL = 500


def for_start(pod: Json, events: Sequence[Json], *, now: float) -> Probe:
    """Of a pod that does not run yet: no node, or its container is not up."""
    scheduled = pods.condition(pod, "PodScheduled")
    if scheduled.get("status") != "True" and not pods.node(pod):
        return _for_node(pod, scheduled, events)
    since = pods.seconds(scheduled.get("lastTransitionTime"))
    waited_s = now - since if since is not None else 0.0
    _, told = pods.container_state(pod)
    reason, message = str(told.get("reason") or ""), str(told.get("message") or "")
    detail = _short(f"pod {pods.name(pod)} on node {pods.node(pod)}: {reason} {message}".strip())
    if reason in NO_SUCH_IMAGE or (reason in IMAGE_TROUBLE and _tried_enough(reason, events, waited_s)):
        return Probe(Phase.STARTING, reason=reason, detail=detail, error="ImagePullFailed", since=since)
    if reason in CONFIGURATION_TROUBLE and waited_s > CONFIGURATION_GRACE_S:
        return Probe(Phase.STARTING, reason=reason, detail=detail, error="ConfigurationError", since=since)
    if reason in IMAGE_TROUBLE | CONFIGURATION_TROUBLE:
        return Probe(Phase.STARTING, reason=reason, detail=detail, since=since)
    newest = newest_event(events)
    if newest is not None:
        detail = _short(f"pod {pods.name(pod)} on node {pods.node(pod)}: {newest.get('message')}")
    return Probe(Phase.STARTING, reason=reason or "scheduled", detail=detail, since=since)


def for_pod(events: Sequence[Json], *, created: float | None, now: float) -> Probe | None:
    """Of a Job that cannot make its pod; ``None`` where nothing says so."""
    refused = newest_event([event for event in events if event.get("reason") == "FailedCreate"])
    if refused is None:
        return None
    message = _short(str(refused.get("message") or ""))
    if SPELLING_OF_QUOTA in message:
        return Probe(Phase.QUEUED, reason="quota", detail=message, since=created)
    patient = created is None or now - created <= CONFIGURATION_GRACE_S
    error = None if patient else "ConfigurationError"
    return Probe(Phase.STARTING, reason="FailedCreate", detail=message, error=error, since=created)


def queue_of(job: Json) -> str | None:
    """The Kueue LocalQueue that it waits in, if any."""
    return (job["metadata"].get("labels") or {}).get(QUEUE_LABEL)


def in_queue(job: Json, view: JobView, workload: Json | None, *, begun: bool, ahead: int | None = None) -> Probe:
    """Of a suspended Job without pods: what Kueue says of its workload. :param ahead: how many wait before it."""
    queue = queue_of(job)
    since = view.since or view.created
    if queue is None:
        return Probe(Phase.QUEUED, reason="suspended", detail="its Job is suspended, by no queue of ours", since=since)
    again = " again, as others took its place" if begun else ""
    again += "" if ahead is None else f", {ahead} before it"
    if workload is None:
        return Probe(Phase.QUEUED, reason="queued", detail=f"waits in queue {queue}{again}", since=since)
    if (workload.get("spec") or {}).get("active") is False:
        return _deactivated(workload, queue, since)
    quota = pods.condition(workload, "QuotaReserved")
    told = str(quota.get("message") or pods.condition(workload, "Evicted").get("message") or "")
    detail = f"waits in queue {queue}{again}" + (f": {told}" if told else "")
    return Probe(Phase.QUEUED, reason=str(quota.get("reason") or "queued"), detail=_short(detail), since=since)


def newest_event(events: Sequence[Json]) -> Json | None:
    """The event that was seen last."""
    return max(events, key=lambda event: event_time(event) or 0.0, default=None)


def event_time(event: Json) -> float | None:
    """When an event was last seen: it may be counted in a series, or be of the old kind."""
    series = event.get("series") or {}
    told = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((at for each in told if (at := pods.seconds(each)) is not None), None)


def _for_node(pod: Json, scheduled: Json, events: Sequence[Json]) -> Probe:
    newest = newest_event([event for event in events if event.get("reason") in SCALING_UP | NOT_SCALING])
    if newest is not None and newest.get("reason") in SCALING_UP:
        detail = _short(f"a machine is being added: {newest.get('message')}")
        return Probe(Phase.STARTING, reason=SCALE_UP, detail=detail, since=event_time(newest))
    since = pods.seconds(scheduled.get("lastTransitionTime") or pod["metadata"].get("creationTimestamp"))
    reason = str(scheduled.get("reason") or "unscheduled")
    told = str(scheduled.get("message") or "no node has been chosen yet")
    return Probe(Phase.QUEUED, reason=reason, detail=_short(told), since=since)


def _deactivated(workload: Json, queue: str, since: float | None) -> Probe:
    """Kueue gave it up: it will never be admitted again."""
    evicted = pods.condition(workload, "Evicted")
    reason = str(evicted.get("reason") or "Deactivated")
    error = "WorkloadTimeout" if "ExecutionTime" in reason else "QuotaExceeded"
    detail = _short(f"queue {queue} gave it up ({reason}): {evicted.get('message') or ''}".rstrip(": "))
    return Probe(Phase.QUEUED, reason=reason, detail=detail, error=error, since=since)


def _tried_enough(reason: str, events: Sequence[Json], waited_s: float) -> bool:
    """By the tries that were counted; where no event tells of any, by the time. (A good image may take long, too.)"""
    failed = [event for event in events if event.get("reason") == "Failed" and _is_a_try(str(event.get("message")))]
    if failed:
        return max(map(_count, failed)) >= IMAGE_TRIES
    return reason == "ImagePullBackOff" and waited_s > IMAGE_GRACE_S


def _is_a_try(message: str) -> bool:
    """One line a try; the lines about backing off come far more often."""
    return message.startswith("Failed to pull image") or "ErrImagePull" in message


def _count(event: Json) -> int:
    return int((event.get("series") or {}).get("count") or event.get("count") or 1)


def _short(told: str) -> str:
    return told if len(told) <= LONGEST_DETAIL else told[: LONGEST_DETAIL - 1] + "…"
