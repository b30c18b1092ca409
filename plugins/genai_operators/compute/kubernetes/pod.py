"""The pod of an attempt: pure functions from what was asked for to a pod template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genai_operators.compute.contract import Attempt
from genai_operators.compute.kubernetes import names, placement
from genai_operators.compute.kubernetes.settings import DEFAULT_SCRATCH_BYTES, KubernetesSettings
from genai_operators.compute.resources import Resources
from genai_operators.exceptions import ConfigurationError

SCRATCH = "/scratch"
#: After the workload's own grace the supervisor still writes the last chunks of the log and how it ended.
FAREWELL_S = 20
SUPERVISOR = "genai_operators.compute.supervisor"
FOLLOWER = "genai_operators.compute.follower"
ENTRY = "genai_operators.workloads.main"
DISTRIBUTED_ENTRY = "genai_operators.workloads.distributed"
#: Workloads that can use more than one GPU or node.
DISTRIBUTED_KINDS = frozenset({"fine_tune"})
#: Autoscalers shall not move a training run to tidy up.
STAY = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
TOPOLOGY_ANNOTATIONS = {
    "required": "kueue.x-k8s.io/podset-required-topology",
    "preferred": "kueue.x-k8s.io/podset-preferred-topology",
    "unconstrained": "kueue.x-k8s.io/podset-unconstrained-topology",
}
#: Pods find their devices by this name when they are claimed (dynamic resource allocation).
CLAIM = "gpus"


@dataclass(frozen=True, kw_only=True)
class PodRequest:
    """Everything that shapes a pod. :param grace_s: seconds that the workload has for its last checkpoint."""

    attempt: Attempt
    settings: KubernetesSettings
    grace_s: float

    @property
    def resources(self) -> Resources:
        """What the attempt's rung asks for."""
        return self.attempt.resources


def processes_per_node(resources: Resources) -> int:
    """One for each GPU; one on CPUs."""
    return max(1, resources.gpu_count)


def supervisor_command(request: PodRequest) -> list[str]:
    """The command of the pod that keeps the records."""
    return [request.settings.python, "-m", SUPERVISOR, *_arguments(request)]


def node_command(request: PodRequest) -> list[str]:
    """The command of each of several nodes: it is the supervisor on the first and a follower on the others.

    :raises ConfigurationError: the workload cannot use several nodes.
    """
    kind = request.attempt.directory.split("/")[-2]
    if kind not in DISTRIBUTED_KINDS:
        raise ConfigurationError(
            f"kubernetes: a {kind} workload runs on one node; nodes: {request.resources.nodes} is for "
            f"{', '.join(sorted(DISTRIBUTED_KINDS))}"
        )
    return [request.settings.python, "-m", FOLLOWER, *_arguments(request)]


def _arguments(request: PodRequest) -> list[str]:
    """Which attempt, and what computes it: our entry point, below ``torchrun`` where it takes several processes."""
    attempt, settings = request.attempt, request.settings
    several = request.resources.nodes * processes_per_node(request.resources) > 1
    distributed = several and attempt.directory.split("/")[-2] in DISTRIBUTED_KINDS
    return [
        *("--store", settings.store_in_pod or attempt.store.uri, "--directory", attempt.directory),
        *("--attempt", str(attempt.number), "--grace", f"{request.grace_s:g}", "--incarnation", "$(POD_UID)"),
        *("--", settings.python, "-m", DISTRIBUTED_ENTRY if distributed else ENTRY),
    ]


def pod_template(request: PodRequest, command: Sequence[str]) -> dict[str, Any]:
    """Metadata and specification of a pod that runs ``command``."""
    settings = request.settings
    annotations = {
        **settings.annotations,
        **STAY,
        **{TOPOLOGY_ANNOTATIONS[mode]: level for mode, level in settings.topology.items()},
        names.DIRECTORY_ANNOTATION: request.attempt.directory,
    }
    return {
        "metadata": {"labels": {**settings.labels, **names.labels(request.attempt)}, "annotations": annotations},
        "spec": _drop_empty(
            {
                "restartPolicy": "Never",
                "serviceAccountName": settings.service_account or None,
                "automountServiceAccountToken": settings.mount_token,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": round(request.grace_s) + FAREWELL_S,
                "securityContext": _drop_empty(
                    {
                        "runAsNonRoot": True,
                        "runAsUser": settings.run_as_user,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    }
                ),
                "priorityClassName": settings.priority_class,
                "runtimeClassName": settings.runtime_class,
                "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
                "nodeSelector": dict(settings.node_selector),
                "affinity": _drop_empty({"nodeAffinity": placement.node_affinity(request.resources, settings)}),
                "tolerations": placement.tolerations(request.resources, settings),
                "resourceClaims": _resource_claims(request),
                "containers": [_container(request, command)],
                "volumes": _volumes(request),
            }
        ),
    }


def claim_template_name(attempt: Attempt) -> str:
    """Of the ResourceClaimTemplate that its pods' claims are made from."""
    return f"{attempt.name}-{CLAIM}"


def _container(request: PodRequest, command: Sequence[str]) -> dict[str, Any]:
    settings = request.settings
    return _drop_empty(
        {
            "name": names.CONTAINER,
            "image": settings.require_image(),
            "imagePullPolicy": settings.image_pull_policy,
            "command": list(command),
            "env": environment(request),
            "envFrom": [{"secretRef": {"name": name}} for name in settings.env_from_secrets],
            "resources": container_resources(request),
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [{"name": name, "mountPath": path} for name, path in _mounts(request).items()],
        }
    )


def environment(request: PodRequest) -> list[dict[str, Any]]:
    """Variables of the container: where it may write, who it is, the user's own, and Secrets by reference."""
    own = {
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "HF_HOME": f"{SCRATCH}/huggingface",
        "GENAI_SCRATCH_ROOT": f"{SCRATCH}/attempts",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": f"{request.grace_s:.0f}",  # torchrun's own is 30 s
    }
    told = {"POD_UID": "metadata.uid", "POD_NAME": "metadata.name", "NODE_NAME": "spec.nodeName"}
    variables: list[dict[str, Any]] = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in told.items()
    ]
    if request.resources.nodes == 1 and processes_per_node(request.resources) > 1:
        own["PET_NPROC_PER_NODE"] = str(processes_per_node(request.resources))  # torchrun reads it
    variables += [{"name": name, "value": value} for name, value in {**own, **request.settings.env}.items()]
    for name, reference in request.settings.secret_env.items():
        secret, _, key = reference.partition("/")
        variables.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return variables


def container_resources(request: PodRequest) -> dict[str, Any]:
    """Requests and limits. Memory is asked for in full, so that nobody else's use of the node kills the run."""
    resources, settings = request.resources, request.settings
    memory = str(resources.memory_bytes)
    requests: dict[str, str] = {"cpu": f"{resources.cpu:g}", "memory": memory}
    limits: dict[str, str] = {"memory": memory}
    if not resources.gpu_count:
        return {"requests": requests, "limits": limits}
    if settings.device_class:
        return {"requests": requests, "limits": limits, "claims": [{"name": CLAIM}]}
    count = {placement.gpu_resource(settings): str(resources.gpu_count)}
    return {"requests": {**requests, **count}, "limits": {**limits, **count}}


def _resource_claims(request: PodRequest) -> list[dict[str, str]]:
    if not (request.settings.device_class and request.resources.gpu_count):
        return []
    return [{"name": CLAIM, "resourceClaimTemplateName": claim_template_name(request.attempt)}]


def _mounts(request: PodRequest) -> dict[str, str]:
    """Volume -> where it is mounted."""
    mounts = {"scratch": SCRATCH, **({"shm": "/dev/shm"} if request.resources.shared_memory_bytes else {})}  # noqa: S108
    claims = enumerate(request.settings.volume_claims.values())
    return {**mounts, **{f"claim-{number}": path for number, path in claims}}


def _volumes(request: PodRequest) -> list[dict[str, Any]]:
    """The writable scratch, ``/dev/shm`` (whose use counts against the container's memory), and the user's claims."""
    settings, shared = request.settings, request.resources.shared_memory_bytes
    room = settings.scratch_bytes or max(DEFAULT_SCRATCH_BYTES, request.resources.scratch_bytes)
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {"sizeLimit": str(room)}}]
    if shared:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(shared)}})
    for number, claim in enumerate(settings.volume_claims):
        volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}})
    return volumes


def _drop_empty(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None and value != {} and value != []}
