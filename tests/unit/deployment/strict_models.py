"""Kinds that Kubernetes itself does not know, as models that refuse unknown fields.

An API server drops unknown fields of custom resources without a word, so a misspelt field would simply have no effect.
Written from the definitions of Kueue v1beta2 (0.19), kind v1alpha4 and Kustomize v1beta1; only what we use, and its
neighbours.
"""

# ruff: noqa: N815  (the names are the API's)

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")


def _quantity(value: int | str) -> int | str:
    if not QUANTITY.fullmatch(str(value)):
        raise ValueError(f"{value!r} is no quantity")
    return value


Quantity = Annotated[int | str, AfterValidator(_quantity)]
Name = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253)
]
Labels = dict[str, str]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Strict):
    name: Name
    namespace: Name | None = None
    labels: Labels = {}
    annotations: Labels = {}


class Toleration(Strict):
    key: str | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    tolerationSeconds: int | None = None


class Taint(Strict):
    key: str
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class FlavorSpec(Strict):
    nodeLabels: Annotated[Labels, Field(max_length=8)] = {}
    nodeTaints: Annotated[list[Taint], Field(max_length=8)] = []
    tolerations: Annotated[list[Toleration], Field(max_length=8)] = []
    topologyName: Name | None = None


class ResourceFlavor(Strict):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"]
    kind: Literal["ResourceFlavor"]
    metadata: Metadata
    spec: FlavorSpec = FlavorSpec()


class Requirement(Strict):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] = []


class LabelSelector(Strict):
    matchLabels: Labels = {}
    matchExpressions: list[Requirement] = []


class FlavorQuota(Strict):
    name: str
    nominalQuota: Quantity
    borrowingLimit: Quantity | None = None
    lendingLimit: Quantity | None = None


class FlavorQuotas(Strict):
    name: Name
    resources: Annotated[list[FlavorQuota], Field(min_length=1, max_length=64)]


class ResourceGroup(Strict):
    coveredResources: Annotated[list[str], Field(min_length=1, max_length=64)]
    flavors: Annotated[list[FlavorQuotas], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def every_flavor_lists_every_resource_in_order(self) -> ResourceGroup:
        for flavor in self.flavors:
            if [resource.name for resource in flavor.resources] != self.coveredResources:
                raise ValueError(f"flavor {flavor.name} must list {self.coveredResources}, in this order")
        return self


class FlavorFungibility(Strict):
    whenCanBorrow: Literal["MayStopSearch", "TryNextFlavor"] = "MayStopSearch"
    whenCanPreempt: Literal["MayStopSearch", "TryNextFlavor"] = "TryNextFlavor"
    preference: Literal["BorrowingOverPreemption", "PreemptionOverBorrowing"] | None = None


class Preemption(Strict):
    reclaimWithinCohort: Literal["Never", "LowerPriority", "Any"] = "Never"
    withinClusterQueue: Literal["Never", "LowerPriority", "LowerOrNewerEqualPriority"] = "Never"
    borrowWithinCohort: dict[str, Any] | None = None


StopPolicy = Literal["None", "Hold", "HoldAndDrain"]


class ClusterQueueSpec(Strict):
    resourceGroups: Annotated[list[ResourceGroup], Field(max_length=16)] = []
    cohortName: Name | None = None
    queueingStrategy: Literal["StrictFIFO", "BestEffortFIFO"] = "BestEffortFIFO"
    namespaceSelector: LabelSelector | None = None
    flavorFungibility: FlavorFungibility = FlavorFungibility()
    preemption: Preemption = Preemption()
    stopPolicy: StopPolicy = "None"

    @model_validator(mode="after")
    def each_resource_and_flavor_stands_in_one_group(self) -> ClusterQueueSpec:
        for names in (
            [name for group in self.resourceGroups for name in group.coveredResources],
            [flavor.name for group in self.resourceGroups for flavor in group.flavors],
        ):
            if len(names) != len(set(names)):
                raise ValueError(f"{names} repeat")
        return self


class ClusterQueue(Strict):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"]
    kind: Literal["ClusterQueue"]
    metadata: Metadata
    spec: ClusterQueueSpec


class LocalQueueSpec(Strict):
    clusterQueue: Name
    stopPolicy: StopPolicy = "None"


class LocalQueue(Strict):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"]
    kind: Literal["LocalQueue"]
    metadata: Metadata
    spec: LocalQueueSpec


class WorkloadPriorityClass(Strict):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"]
    kind: Literal["WorkloadPriorityClass"]
    metadata: Metadata
    value: int
    description: str = ""


class Mount(Strict):
    hostPath: str
    containerPath: str
    readOnly: bool = False


class KindNode(Strict):
    role: Literal["control-plane", "worker"]
    image: str | None = None
    labels: Labels = {}
    extraMounts: list[Mount] = []


class KindNetworking(Strict):
    apiServerAddress: Literal["127.0.0.1"]
    disableDefaultCNI: bool = False


class KindCluster(Strict):
    apiVersion: Literal["kind.x-k8s.io/v1alpha4"]
    kind: Literal["Cluster"]
    name: Name
    networking: KindNetworking
    nodes: list[KindNode]


class Kustomization(Strict):
    apiVersion: Literal["kustomize.config.k8s.io/v1beta1"]
    kind: Literal["Kustomization"]
    resources: list[str]
    patches: list[dict[str, Any]] = []


MODELS: tuple[type[Strict], ...] = (
    ResourceFlavor, ClusterQueue, LocalQueue, WorkloadPriorityClass, KindCluster, Kustomization,
)  # fmt: skip


def model_of(manifest: dict[str, Any]) -> type[Strict] | None:
    """The model of a manifest's kind, ``None`` for Kubernetes' own kinds."""
    for model in MODELS:
        version, kind = (model.model_fields[name].annotation for name in ("apiVersion", "kind"))
        if (manifest["apiVersion"],) == version.__args__ and (manifest["kind"],) == kind.__args__:  # type: ignore[union-attr]
            return model
    return None
