"""The resources that the fake serves, as one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: An API object as JSON.
Object = dict[str, Any]
ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Kind:
    """One resource: where it stands in the API and what it can do."""

    group: str
    version: str
    name: str
    plural: str
    namespaced: bool = True
    status: bool = False
    custom: bool = False
    short_names: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """``batch/v1``, or ``v1`` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """How messages name it: ``jobs.batch``, ``pods``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified(self) -> str:
        """How messages name the kind: ``Job.batch``, ``Pod``."""
        return f"{self.name}.{self.group}" if self.group else self.name

    @property
    def singular(self) -> str:
        """``job``."""
        return self.name.lower()


PODS = Kind("", "v1", "Pod", "pods", status=True, short_names=("po",))
EVENTS = Kind("", "v1", "Event", "events", short_names=("ev",))
NODES = Kind("", "v1", "Node", "nodes", namespaced=False, status=True, short_names=("no",))
NAMESPACES = Kind("", "v1", "Namespace", "namespaces", namespaced=False, status=True, short_names=("ns",))
SECRETS = Kind("", "v1", "Secret", "secrets")
CONFIG_MAPS = Kind("", "v1", "ConfigMap", "configmaps", short_names=("cm",))
SERVICE_ACCOUNTS = Kind("", "v1", "ServiceAccount", "serviceaccounts", short_names=("sa",))
SERVICES = Kind("", "v1", "Service", "services", status=True, short_names=("svc",))
QUOTAS = Kind("", "v1", "ResourceQuota", "resourcequotas", status=True, short_names=("quota",))
CLAIMS = Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", status=True, short_names=("pvc",))
JOBS = Kind("batch", "v1", "Job", "jobs", status=True)
DEVICE_CLASSES = Kind("resource.k8s.io", "v1", "DeviceClass", "deviceclasses", namespaced=False)
RESOURCE_CLAIMS = Kind("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims", status=True)
CLAIM_TEMPLATES = Kind("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates")
PRIORITY_CLASSES = Kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", namespaced=False)
_KUEUE = ("kueue.x-k8s.io", "v1beta2")
LOCAL_QUEUES = Kind(*_KUEUE, "LocalQueue", "localqueues", status=True, custom=True)
CLUSTER_QUEUES = Kind(*_KUEUE, "ClusterQueue", "clusterqueues", namespaced=False, status=True, custom=True)
WORKLOADS = Kind(*_KUEUE, "Workload", "workloads", status=True, custom=True, short_names=("wl",))
FLAVORS = Kind(*_KUEUE, "ResourceFlavor", "resourceflavors", namespaced=False, custom=True, short_names=("rf",))
WORKLOAD_PRIORITIES = Kind(*_KUEUE, "WorkloadPriorityClass", "workloadpriorityclasses", namespaced=False, custom=True)
JOB_SETS = Kind("jobset.x-k8s.io", "v1alpha2", "JobSet", "jobsets", status=True, custom=True)
TRAIN_JOBS = Kind("trainer.kubeflow.org", "v1alpha1", "TrainJob", "trainjobs", status=True, custom=True)
CLUSTER_RUNTIMES = Kind(
    "trainer.kubeflow.org",
    "v1alpha1",
    "ClusterTrainingRuntime",
    "clustertrainingruntimes",
    namespaced=False,
    custom=True,
)
REVIEWS = Kind("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False)

KINDS = (
    PODS, EVENTS, NODES, NAMESPACES, SECRETS, CONFIG_MAPS, SERVICE_ACCOUNTS, SERVICES, QUOTAS, CLAIMS, JOBS,
    DEVICE_CLASSES, RESOURCE_CLAIMS, CLAIM_TEMPLATES, PRIORITY_CLASSES, LOCAL_QUEUES, CLUSTER_QUEUES, WORKLOADS,
    FLAVORS, WORKLOAD_PRIORITIES, JOB_SETS, TRAIN_JOBS, CLUSTER_RUNTIMES, REVIEWS,
)  # fmt: skip
#: Groups that a cluster may lack; without one, its paths answer 404.
OPTIONAL_GROUPS = ("kueue.x-k8s.io", "jobset.x-k8s.io", "trainer.kubeflow.org", "resource.k8s.io")


def find_kind(group: str, version: str, plural: str) -> Kind | None:
    """The kind behind a path, if any."""
    for kind in KINDS:
        if (kind.group, kind.version, kind.plural) == (group, version, plural):
            return kind
    return None


def kind_named(name: str) -> Kind:
    """By plural, as the control client names kinds."""
    for kind in KINDS:
        if kind.plural == name:
            return kind
    raise KeyError(f"no kind {name!r}; known: {', '.join(kind.plural for kind in KINDS)}")
