"""The object of an attempt on several nodes: a JobSet, or a TrainJob of Kubeflow. Pure functions.

One pod a node, all with the same command: the pod of rank 0 runs the supervisor and keeps the records, the others run
:mod:`genai_operators.compute.follower`; each starts ``torchrun``, which reads its place from ``PET_*`` variables (of
TrainJobs Kubeflow sets them, of JobSets we do).

Maintenance costs no restart: a disrupted pod fails its Job by pod failure policy, and that failure alone restarts the
JobSet without counting, once all its pods are gone. Every other failure is the end.
"""

from __future__ import annotations

from typing import Any

from genai_operators.compute.kubernetes import names
from genai_operators.compute.kubernetes.manifest_parts import DISRUPTED, object_metadata, queueing
from genai_operators.compute.kubernetes.pod import (
    PodRequest,
    environment,
    node_command,
    pod_template,
    processes_per_node,
)
from genai_operators.compute.kubernetes.settings import KubernetesSettings

#: The replicated Job whose pods are the nodes; the runtimes of Kubeflow call it so, too.
NODE = "node"
RENDEZVOUS_PORT = 29400
PATCH_MANAGER = "genai-operators/compute"
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
#: What a runtime patch may say of a pod (``PodSpecPatch`` of Kubeflow Trainer 2.3; in 2.2 not yet the grace). The API
#: server drops anything else without a word.
PATCHABLE = (
    "serviceAccountName",
    "volumes",
    "imagePullSecrets",
    "securityContext",
    "nodeSelector",
    "affinity",
    "tolerations",
    "terminationGracePeriodSeconds",
)


def job_set(request: PodRequest) -> dict[str, Any]:
    """A ``jobset.x-k8s.io/v1alpha2`` JobSet with the name of the attempt."""
    nodes, settings = request.resources.nodes, request.settings
    template = pod_template(request, node_command(request))
    template["spec"]["containers"][0]["env"] += rendezvous(request)
    job = {
        "parallelism": nodes,
        "completions": nodes,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onPodConditions": [DISRUPTED]}]},
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},  # rank 0 has published; nobody else writes
        **_deadline(settings),
        "template": template,
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": object_metadata(request),
        "spec": {
            **({"suspend": True} if settings.queue else {}),
            "ttlSecondsAfterFinished": settings.ttl_s,
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "successPolicy": {"operator": "All", "targetReplicatedJobs": [NODE]},
            "failurePolicy": {
                "maxRestarts": 0,
                "restartStrategy": "BlockingRecreate",
                "rules": [
                    {
                        "name": "maintenance",
                        "action": "RestartJobSetAndIgnoreMaxRestarts",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {
                    "name": NODE,
                    "replicas": 1,
                    "template": {"metadata": {"labels": names.labels(request.attempt)}, "spec": job},
                }
            ],
        },
    }


def train_job(request: PodRequest) -> dict[str, Any]:
    """A ``trainer.kubeflow.org/v1alpha1`` TrainJob with the name of the attempt.

    What a patch cannot say (priority class, token, read-only root of further containers) is the runtime's to say: use
    one made for it (``training_runtime``). That goes for claimed devices too, so settings with both are refused. It has
    no time to live either: once finished, :mod:`.orphans` removes it.
    """
    settings, template = request.settings, pod_template(request, node_command(request))
    container = template["spec"]["containers"][0]
    pod = {each: template["spec"][each] for each in PATCHABLE if each in template["spec"]}
    patched = {each: container[each] for each in ("volumeMounts", "securityContext")}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": object_metadata(request),
        "spec": {
            **queueing(settings),
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "ClusterTrainingRuntime",
                "name": settings.training_runtime,
            },
            "trainer": {
                "image": container["image"],
                "command": container["command"],
                "env": environment(request),
                "numNodes": request.resources.nodes,
                "numProcPerNode": processes_per_node(request.resources),
                "resourcesPerNode": container["resources"],
            },
            "runtimePatches": [
                {
                    "manager": PATCH_MANAGER,
                    "trainingRuntimeSpec": {
                        "template": {
                            "spec": {
                                "replicatedJobs": [
                                    {
                                        "name": NODE,
                                        "template": {
                                            "spec": {
                                                "template": {
                                                    "metadata": template["metadata"],
                                                    "spec": {**pod, "containers": [{"name": NODE, **patched}]},
                                                }
                                            }
                                        },
                                    }
                                ]
                            }
                        }
                    },
                }
            ],
        },
    }


def rendezvous(request: PodRequest) -> list[dict[str, Any]]:
    """Variables by which torchrun finds the other nodes: the first pod's name in the JobSet's own domain is known."""
    name = request.attempt.name
    index = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX_ANNOTATION}']"}}
    own = request.settings.env
    told = {
        "PET_NNODES": str(request.resources.nodes),
        "PET_NPROC_PER_NODE": str(processes_per_node(request.resources)),
        "PET_MASTER_ADDR": f"{name}-{NODE}-0-0.{name}",
        "PET_MASTER_PORT": str(RENDEZVOUS_PORT),
    }
    return [
        *({"name": variable, "value": value} for variable, value in told.items() if variable not in own),
        {"name": "PET_NODE_RANK", "valueFrom": index},
    ]


def _deadline(settings: KubernetesSettings) -> dict[str, Any]:
    return {} if settings.queue else queueing(settings)
