"""What we ask a cluster's API for: one list, from which the role is made that is applied and that the check prints.

Least privilege: a verb stands here because some request of ours needs it; a test compares the two. No pod is created,
nothing executed in one, and no Secret is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

CONTROLLER = "genai-controller"
WORKLOAD_ACCOUNT = "genai-workload"


class Need(StrEnum):
    """When a permission is needed."""

    ALWAYS = "always"
    NEWS = "why a pod waits, in the task's log"
    COST = "prices by the nodes' labels, and lost nodes"
    QUEUE = "a Kueue queue"
    JOBSET = "several nodes by JobSet"
    TRAINJOB = "several nodes by TrainJob"
    DEVICES = "claims of devices"
    CHECK = "this check"


#: Without these a run still succeeds; it only says or knows less.
OPTIONAL = frozenset({Need.NEWS, Need.COST, Need.CHECK})


@dataclass(frozen=True)
class Permission:
    """:param resource: plural, with a subresource like ``pods/log``. :param cluster: it is about no namespace."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    need: Need
    cluster: bool = False

    @property
    def name(self) -> str:
        """Like ``jobs.batch``."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


_OBJECT_VERBS = ("create", "delete", "get", "list")
PERMISSIONS: tuple[Permission, ...] = (
    Permission("batch", "jobs", (*_OBJECT_VERBS, "watch"), Need.ALWAYS),
    Permission("", "pods", ("delete", "list", "watch"), Need.ALWAYS),
    Permission("", "pods/log", ("get",), Need.ALWAYS),
    Permission("", "events", ("list",), Need.NEWS),
    Permission("kueue.x-k8s.io", "workloads", ("list",), Need.QUEUE),
    Permission("kueue.x-k8s.io", "localqueues", ("get",), Need.CHECK),
    Permission("visibility.kueue.x-k8s.io", "localqueues/pendingworkloads", ("get",), Need.NEWS),
    Permission("jobset.x-k8s.io", "jobsets", _OBJECT_VERBS, Need.JOBSET),
    Permission("trainer.kubeflow.org", "trainjobs", _OBJECT_VERBS, Need.TRAINJOB),
    Permission("resource.k8s.io", "resourceclaimtemplates", ("create",), Need.DEVICES),
    Permission("", "namespaces", ("get",), Need.CHECK),
    Permission("", "serviceaccounts", ("get",), Need.CHECK),
    Permission("", "nodes", ("get",), Need.COST, cluster=True),
    Permission("", "nodes", ("list",), Need.CHECK, cluster=True),
)


def rules(permissions: Sequence[Permission]) -> list[dict[str, Any]]:
    """RBAC rules that grant exactly these."""
    return [
        {"apiGroups": [each.group], "resources": [each.resource], "verbs": list(each.verbs)} for each in permissions
    ]


def role_manifests(
    namespace: str, *, controller_namespace: str, permissions: Sequence[Permission] = PERMISSIONS
) -> list[dict[str, Any]]:
    """Role, ClusterRole and their bindings for Airflow's service account.

    :param namespace: where jobs run. :param controller_namespace: where Airflow runs.
    """
    inside = [each for each in permissions if not each.cluster]
    outside = [each for each in permissions if each.cluster]
    found = []
    if inside:
        found += _granted("Role", inside, CONTROLLER, {"namespace": namespace}, controller_namespace)
    if outside:
        found += _granted("ClusterRole", outside, f"{CONTROLLER}-{namespace}", {}, controller_namespace)
    return found


def workload_account(namespace: str) -> dict[str, Any]:
    """The pods' service account: no rights, and no token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": WORKLOAD_ACCOUNT, "namespace": namespace},
        "automountServiceAccountToken": False,
    }


def _granted(
    kind: str, permissions: Sequence[Permission], name: str, where: dict[str, str], controller_namespace: str
) -> list[dict[str, Any]]:
    api, group = "rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io"
    metadata = {"name": name, **where}
    subject = {"kind": "ServiceAccount", "name": CONTROLLER, "namespace": controller_namespace}
    return [
        {"apiVersion": api, "kind": kind, "metadata": metadata, "rules": rules(permissions)},
        {
            "apiVersion": api,
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": kind, "name": name},
            "subjects": [subject],
        },
    ]
