"""Which nodes a pod may use: by what NVIDIA's feature discovery and the clouds write on them, not by their names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genai_operators.compute.kubernetes.gpu_products import gpu_of_label, product_labels
from genai_operators.compute.kubernetes.settings import KubernetesSettings
from genai_operators.compute.resources import Resources
from genai_operators.decisions.gpu_catalogue import CATALOGUE, MIB, gpu_named

GPU_TAINT = "nvidia.com/gpu"
#: Label and value of a machine that can be taken away: Karpenter, EKS, GKE (old and new), AKS.
SPOT_LABELS: tuple[tuple[str, str], ...] = (
    ("karpenter.sh/capacity-type", "spot"),
    ("eks.amazonaws.com/capacityType", "SPOT"),
    ("cloud.google.com/gke-spot", "true"),
    ("cloud.google.com/gke-preemptible", "true"),
    ("cloud.google.com/gke-provisioning", "spot"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
)
#: Taints that clouds put on such machines.
SPOT_TAINTS: tuple[tuple[str, str], ...] = (
    ("cloud.google.com/gke-spot", "true"),
    ("cloud.google.com/gke-preemptible", "true"),
    ("kubernetes.azure.com/scalesetpriority", "spot"),
)
MACHINE_LABELS = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")
PRODUCT_LABEL = "nvidia.com/gpu.product"
MEMORY_LABEL = "nvidia.com/gpu.memory"
#: A GPU that was asked for by name only, without a figure from the plan, must have nearly all the memory of that type.
SAME_SIZE = 0.95


def node_affinity(resources: Resources, settings: KubernetesSettings) -> dict[str, Any] | None:
    """Node affinity: enough memory on the GPU (required), its product and spot (as asked)."""
    required = [*_gpu_requirements(resources, settings), *_on_demand_requirements(resources)]
    terms = [{"matchExpressions": required}] if required else []
    if resources.spot and settings.spot_only:
        terms = [{"matchExpressions": [*required, _is(name, value)]} for name, value in SPOT_LABELS]
    preferred = _preferences(resources, settings)
    affinity: dict[str, Any] = {}
    if terms:
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    if preferred:
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return affinity or None


def tolerations(resources: Resources, settings: KubernetesSettings) -> list[dict[str, Any]]:
    """Of the GPU taint, of the clouds' spot taints where spot is asked for, and the user's own."""
    tolerated: list[dict[str, Any]] = [dict(each) for each in settings.tolerations]
    if resources.gpu_count:
        tolerated.append({"key": GPU_TAINT, "operator": "Exists", "effect": "NoSchedule"})
    if resources.spot:
        tolerated += [
            {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"} for key, value in SPOT_TAINTS
        ]
    return tolerated


def gpu_resource(settings: KubernetesSettings) -> str:
    """Name of the extended resource that a container asks for."""
    return f"nvidia.com/mig-{settings.mig_profile}" if settings.mig_profile else settings.gpu_resource


def needed_memory_mib(resources: Resources) -> int:
    """Memory that the GPU must exceed, in MiB; 0 where nobody knows."""
    if resources.gpu_memory_bytes:
        return resources.gpu_memory_bytes // MIB
    if resources.gpu in CATALOGUE:
        return int(SAME_SIZE * gpu_named(resources.gpu).memory / MIB)
    return 0


def gpu_of_node(labels: Mapping[str, str]) -> str | None:
    """Name in the catalogue of a node's GPUs; ``None`` without them, or for others."""
    return gpu_of_label(labels[PRODUCT_LABEL]) if PRODUCT_LABEL in labels else None


def is_spot(labels: Mapping[str, str]) -> bool:
    """Whether the node can be taken away."""
    return any(labels.get(name) == value for name, value in SPOT_LABELS)


def machine_of_node(labels: Mapping[str, str]) -> str:
    """The cloud's name for the machine's type; empty where nobody says."""
    return next((labels[name] for name in MACHINE_LABELS if name in labels), "")


def _gpu_requirements(resources: Resources, settings: KubernetesSettings) -> list[dict[str, Any]]:
    needed = needed_memory_mib(resources)
    if not (resources.gpu_count and needed) or settings.device_class:
        return []
    label = f"nvidia.com/mig-{settings.mig_profile}.memory" if settings.mig_profile else MEMORY_LABEL
    return [{"key": label, "operator": "Gt", "values": [str(needed)]}]


def _on_demand_requirements(resources: Resources) -> list[dict[str, Any]]:
    """A node without the label passes ``NotIn``: in a cluster without spot nodes this asks for nothing."""
    if resources.spot:
        return []
    return [{"key": name, "operator": "NotIn", "values": [value]} for name, value in SPOT_LABELS]


def _preferences(resources: Resources, settings: KubernetesSettings) -> list[dict[str, Any]]:
    preferred = []
    labels = product_labels(resources.gpu or "")
    if resources.gpu_count and labels and not settings.device_class:
        term = {"matchExpressions": [{"key": PRODUCT_LABEL, "operator": "In", "values": labels}]}
        preferred.append({"weight": 100, "preference": term})
    if resources.spot and not settings.spot_only:
        preferred += [{"weight": 50, "preference": {"matchExpressions": [_is(*each)]}} for each in SPOT_LABELS]
    return preferred


def _is(name: str, value: str) -> dict[str, Any]:
    return {"key": name, "operator": "In", "values": [value]}
