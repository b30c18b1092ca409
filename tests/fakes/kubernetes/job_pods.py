"""The pods that the Job controller makes."""

from __future__ import annotations

from tests.fakes.kubernetes.kinds import Object
from tests.fakes.kubernetes.storage import copy_of

#: Holds a pod until the Job controller has counted it.
TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"


def label_job(job: Object) -> None:
    """On creation: the selector, and the labels by which the pods are found; in place."""
    uid, name = job["metadata"]["uid"], job["metadata"]["name"]
    labels = {
        "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name, "controller-uid": uid,
        "job-name": name,
    }  # fmt: skip
    job["spec"]["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    template = job["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {})
    job["metadata"].setdefault("labels", dict(template))
    template.update(labels)


def pod_of(job: Object, *, index: int | None, suffix: str) -> Object:
    """A pod for a Job; of one index when the Job is Indexed."""
    template = copy_of(job["spec"]["template"])
    meta = template.get("metadata") or {}
    name = job["metadata"]["name"] + (f"-{index}" if index is not None else "")
    labels = dict(meta.get("labels") or {})
    annotations = dict(meta.get("annotations") or {})
    spec = template["spec"]
    if index is not None:
        labels[INDEX] = annotations[INDEX] = str(index)
        spec.setdefault("hostname", f"{job['metadata']['name']}-{index}"[:63])
        for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
            field = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
            container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "valueFrom": field})
    owner = {
        "apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    return {
        "metadata": {
            "name": f"{name[:57]}-{suffix}",
            "generateName": f"{name}-",
            "namespace": job["metadata"]["namespace"],
            "labels": labels,
            "annotations": annotations,
            "finalizers": [TRACKING],
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


def completion_index(pod: Object) -> int:
    """The pod's index, or -1."""
    return int((pod["metadata"].get("annotations") or {}).get(INDEX, -1))
