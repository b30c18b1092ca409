"""The objects of an attempt: pure functions of what was asked for.

Preemption stays inside the attempt: the Job controller replaces a pod that was disrupted, once it is gone
(``podReplacementPolicy: Failed``), and counts it against nothing. Any other failure of the pod fails the Job, and what
to do then is our decision, not the cluster's.
"""

from __future__ import annotations

from typing import Any

from genai_operators.compute.kubernetes.devices import claim_template
from genai_operators.compute.kubernetes.manifest_parts import DISRUPTED, object_metadata, queueing
from genai_operators.compute.kubernetes.multi_node import job_set, train_job
from genai_operators.compute.kubernetes.paths import Paths
from genai_operators.compute.kubernetes.pod import PodRequest, pod_template, supervisor_command


def manifest(request: PodRequest) -> dict[str, Any]:
    """A Job; on several nodes what the settings choose for those."""
    if request.resources.nodes == 1:
        return job_manifest(request)
    return job_set(request) if request.settings.multi_node == "jobset" else train_job(request)


def companions(request: PodRequest, *, uid: str, paths: Paths) -> list[tuple[str, dict[str, Any]]]:
    """Further objects, each with its collection. They belong to the created object, whose uid it is, and go with it."""
    if not (request.settings.device_class and request.resources.gpu_count):
        return []
    made = manifest(request)
    reference = {
        "apiVersion": made["apiVersion"],
        "kind": made["kind"],
        "name": made["metadata"]["name"],
        "uid": uid,
    }
    return [(paths.claim_templates, claim_template(request, owner=reference))]


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
