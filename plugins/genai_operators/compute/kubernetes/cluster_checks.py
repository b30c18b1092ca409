"""What is looked at in a cluster before jobs go there, one function a subject. They change nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from genai_operators.compute.kubernetes import placement, pods
from genai_operators.compute.kubernetes.api import KubernetesApi
from genai_operators.compute.kubernetes.findings import Finding, State, as_yaml
from genai_operators.compute.kubernetes.paths import NODES
from genai_operators.compute.kubernetes.permissions import (
    OPTIONAL,
    PERMISSIONS,
    Need,
    Permission,
    role_manifests,
    workload_account,
)
from genai_operators.compute.kubernetes.settings import KubernetesSettings
from genai_operators.exceptions import ConfigurationError

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
#: podReplacementPolicy, on which preemption rests, is on by default from here on.
OLDEST_MINOR = 29
#: Subjects of findings.
NAMESPACE, ACCOUNT, MAY_USE = "namespace", "service account", "may use "
KUEUE, KUEUE_VERSION = "kueue.x-k8s.io", "v1beta2"
#: Need -> API group and version.
ADD_ONS: Mapping[Need, tuple[str, str]] = {
    Need.JOBSET: ("jobset.x-k8s.io", "v1alpha2"),
    Need.TRAINJOB: ("trainer.kubeflow.org", "v1alpha1"),
    Need.DEVICES: ("resource.k8s.io", "v1"),
}
INSTALL = {
    KUEUE: "# Install Kueue 0.19 or newer: https://kueue.sigs.k8s.io/docs/installation/",
    "jobset.x-k8s.io": "# Install JobSet: https://jobset.sigs.k8s.io/docs/installation/",
    "trainer.kubeflow.org": "# Install Kubeflow Trainer 2.3 or newer: https://www.kubeflow.org/docs/components/trainer/",
    "resource.k8s.io": "# Upgrade to Kubernetes 1.34 or newer, with NVIDIA's DRA driver.",
}
FEATURE_DISCOVERY = """\
# Install NVIDIA's GPU operator, whose feature discovery labels the nodes:
#   helm install gpu-operator nvidia/gpu-operator --namespace gpu-operator --create-namespace"""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be run there. :param controller_namespace: where Airflow runs, for the roles that are printed."""

    settings: KubernetesSettings
    gpu: bool = False
    nodes: int = 1
    controller_namespace: str = "airflow"

    @property
    def needs(self) -> frozenset[Need]:
        """Which permissions and add-ons that takes."""
        several = Need.JOBSET if self.settings.multi_node == "jobset" else Need.TRAINJOB
        asked = {
            Need.QUEUE: self.settings.queue is not None,
            several: self.nodes > 1,
            Need.DEVICES: self.settings.device_class is not None,
        }
        return frozenset({Need.ALWAYS, *OPTIONAL, *(need for need, wanted in asked.items() if wanted)})


Check = Callable[[KubernetesApi, Wanted], list[Finding]]


def version(api: KubernetesApi, wanted: Wanted) -> list[Finding]:
    """The server answers, and is new enough. :raises GenaiError: it does not answer or refuses us."""
    found = api.find("/version") or {}
    text = str(found.get("gitVersion") or "unknown")
    numbers = re.match(r"v?(\d+)\.(\d+)", text)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) < (1, OLDEST_MINOR):
        return [Finding(State.MISSING, "server", f"{text} is too old: 1.{OLDEST_MINOR} is the oldest that will do")]
    return [Finding(State.FINE, "server", f"Kubernetes {text}")]


def namespace(api: KubernetesApi, wanted: Wanted) -> list[Finding]:
    """The jobs' namespace, and the service account of their pods."""
    name, account = wanted.settings.namespace, wanted.settings.service_account
    made = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    accounts = f"/api/v1/namespaces/{name}/serviceaccounts/{account}"
    return [
        _exists(api, f"/api/v1/namespaces/{name}", NAMESPACE, name, as_yaml(made)),
        _exists(api, accounts, ACCOUNT, account, as_yaml(_account(wanted))),
    ]


def permissions(api: KubernetesApi, wanted: Wanted) -> list[Finding]:
    """Each verb on each resource, by SelfSubjectAccessReview: the cluster's own answer, whatever the roles say."""
    fix = as_yaml(*role_manifests(wanted.settings.namespace, controller_namespace=wanted.controller_namespace))
    findings = []
    for permission in PERMISSIONS:
        if permission.need not in wanted.needs:
            continue
        denied = [verb for verb in permission.verbs if not _allowed(api, wanted, permission, verb)]
        subject = f"{MAY_USE}{permission.name}"
        if not denied:
            findings.append(Finding(State.FINE, subject, ", ".join(permission.verbs)))
            continue
        state = State.OPTIONAL if permission.need in OPTIONAL else State.MISSING
        findings.append(Finding(state, subject, f"may not {', '.join(denied)} (for {permission.need})", fix))
    return findings


def gpus(api: KubernetesApi, wanted: Wanted) -> list[Finding]:
    """Nodes with GPUs, and the labels by which a pod finds one that is large enough."""
    lacking = State.MISSING if wanted.gpu else State.OPTIONAL
    try:
        nodes = api.list(NODES).items
    except ConfigurationError:
        return [Finding(State.OPTIONAL, "GPU nodes", "unknown: the nodes may not be listed")]
    resource = placement.gpu_resource(wanted.settings)
    having = [node for node in nodes if int(_allocatable(node).get(resource, 0)) > 0]
    if not having:
        told = f"none of {len(nodes)} nodes has {resource} now; an autoscaler may add some when a job asks"
        return [Finding(lacking, "GPU nodes", told)]
    bare = [
        pods.name(node) for node in having if not {placement.MEMORY_LABEL, placement.PRODUCT_LABEL} <= {*_labels(node)}
    ]
    products = sorted({f"{_labels(node).get(placement.PRODUCT_LABEL, 'unlabelled')}" for node in having})
    found = [Finding(State.FINE, "GPU nodes", f"{len(having)}: {', '.join(products)}")]
    if bare:
        told = f"{placement.MEMORY_LABEL} or {placement.PRODUCT_LABEL} is missing on {', '.join(bare)}"
        found.append(Finding(lacking, "GPU labels", told, FEATURE_DISCOVERY))
    else:
        found.append(Finding(State.FINE, "GPU labels", "memory and product, on each of them"))
    return found


def queue(api: KubernetesApi, wanted: Wanted) -> list[Finding]:
    """Kueue, in a version that we speak, and the LocalQueue that jobs name."""
    name, where = wanted.settings.queue, wanted.settings.namespace
    if name is None:
        return [Finding(State.SKIPPED, "queue", "no queue is asked for; the namespace's quota counts GPUs")]
    add_on = _add_on(api, KUEUE, KUEUE_VERSION)
    if add_on.state is not State.FINE:
        return [add_on]
    made = {
        "apiVersion": f"{KUEUE}/{KUEUE_VERSION}",
        "kind": "LocalQueue",
        "metadata": {"name": name, "namespace": where},
        "spec": {"clusterQueue": "genai"},
    }
    path = f"/apis/{KUEUE}/{KUEUE_VERSION}/namespaces/{where}/localqueues/{name}"
    found = _exists(api, path, "queue", name, as_yaml(made))
    if found.state is State.FINE:
        active = pods.condition(api.find(path) or {}, "Active")
        if active.get("status") == "False":
            told = f"{name} is not active: {active.get('message') or active.get('reason')}"
            return [add_on, Finding(State.MISSING, "queue", told, "# See docker/kubernetes/kueue/queues.yaml.")]
    return [add_on, found]


def add_ons(api: KubernetesApi, wanted: Wanted) -> list[Finding]:
    """What several nodes, or claimed devices, take beyond Kubernetes itself."""
    return [
        _add_on(api, group, version)
        if need in wanted.needs
        else Finding(State.SKIPPED, group, f"not asked for ({need})")
        for need, (group, version) in ADD_ONS.items()
    ]


#: In the order in which they depend on each other; the first that raises ends the check.
CHECKS: tuple[Check, ...] = (version, namespace, permissions, gpus, queue, add_ons)


def _exists(api: KubernetesApi, path: str, subject: str, name: str, fix: str) -> Finding:
    try:
        found = api.find(path)
    except ConfigurationError:
        return Finding(State.OPTIONAL, subject, f"{name}: unknown, as it may not be looked at")
    if found is None:
        return Finding(State.MISSING, subject, f"there is no {name}", fix)
    return Finding(State.FINE, subject, name)


def _add_on(api: KubernetesApi, group: str, version: str) -> Finding:
    found = api.find(f"/apis/{group}")
    if found is None:
        return Finding(State.MISSING, group, "not installed", INSTALL[group])
    served = [each.get("version") for each in found.get("versions") or []]
    if version not in served:
        return Finding(State.MISSING, group, f"serves {', '.join(map(str, served))}, not {version}", INSTALL[group])
    return Finding(State.FINE, group, version)


def _allowed(api: KubernetesApi, wanted: Wanted, permission: Permission, verb: str) -> bool:
    resource, _, subresource = permission.resource.partition("/")
    attributes = {"verb": verb, "group": permission.group, "resource": resource}
    if subresource:
        attributes["subresource"] = subresource
    if not permission.cluster:
        attributes["namespace"] = wanted.settings.namespace
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = api.create(REVIEWS, review) or {}
    return (answer.get("status") or {}).get("allowed") is True


def _account(wanted: Wanted) -> dict[str, Any]:
    account = workload_account(wanted.settings.namespace)
    return {**account, "metadata": {**account["metadata"], "name": wanted.settings.service_account}}


def _labels(node: Mapping[str, Any]) -> Mapping[str, str]:
    return node["metadata"].get("labels") or {}


def _allocatable(node: Mapping[str, Any]) -> Mapping[str, str]:
    return (node.get("status") or {}).get("allocatable") or {}
