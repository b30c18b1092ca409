"""What the objects of all kinds have in common."""

from __future__ import annotations

from typing import Any

from genai_operators.compute.kubernetes import names
from genai_operators.compute.kubernetes.pod import PodRequest
from genai_operators.compute.kubernetes.settings import KubernetesSettings
from genai_operators.compute.kubernetes.waiting import QUEUE_LABEL

WORKLOAD_PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
MAX_EXECUTION_LABEL = "kueue.x-k8s.io/max-exec-time-seconds"
DISRUPTED = {"type": "DisruptionTarget", "status": "True"}


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
    """In a queue it begins suspended, and Kueue releases it; elsewhere it may have a deadline of its own."""
    if settings.queue:
        return {"suspend": True}
    return {"activeDeadlineSeconds": settings.max_execution_s} if settings.max_execution_s else {}
