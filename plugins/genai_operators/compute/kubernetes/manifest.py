"""The Job of an attempt on one node: a pure function of what was asked for.

Preemption stays inside the attempt: the Job controller replaces a pod that was disrupted, once it is gone
(``podReplacementPolicy: Failed``), and counts it against nothing. Any other failure of the pod fails the Job, and what
to do then is our decision, not the cluster's.
"""

from __future__ import annotations

from typing import Any

from genai_operators.compute.kubernetes import names
from genai_operators.compute.kubernetes.pod import PodRequest, pod_template, supervisor_command
from genai_operators.compute.kubernetes.settings import KubernetesSettings

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
WORKLOAD_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
MAX_EXECUTION_LABEL = "kueue.x-k8s.io/max-exec-time-seconds"
DISRUPTED = {"type": "DisruptionTarget", "status": "True"}


def job_manifest(request: PodRequest) -> dict[str, Any]:
    """A ``batch/v1`` Job with the name of the attempt."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": object_metadata(request),
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [DISRUPTED]}]},
            "ttlSecondsAfterFinished": request.settings.ttl_s,
            **queueing(request.settings),
            "template": pod_template(request, supervisor_command(request)),
        },
    }


def object_metadata(request: PodRequest) -> dict[str, Any]:
    """Name, labels and annotations of the attempt's object, those for the queue included."""
    settings = request.settings
    queue: dict[str, str] = {}
    if settings.queue:
        queue[QUEUE_LABEL] = settings.queue
        if settings.workload_priority:
            queue[WORKLOAD_PRIORITY_LABEL] = settings.workload_priority
        if settings.max_execution_s:
            queue[MAX_EXECUTION_LABEL] = str(settings.max_execution_s)
    return {
        "name": request.attempt.name,
        "namespace": settings.namespace,
        "labels": {**settings.labels, **queue, **names.labels(request.attempt)},
        "annotations": {**settings.annotations, names.DIRECTORY_ANNOTATION: request.attempt.directory},
    }


def queueing(settings: KubernetesSettings) -> dict[str, Any]:
    """In a queue it begins suspended, and Kueue releases it; elsewhere the Job itself may have a deadline."""
    if settings.queue:
        return {"suspend": True}
    return {"activeDeadlineSeconds": settings.max_execution_s} if settings.max_execution_s else {}
