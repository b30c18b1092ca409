"""What befalls single pods."""

from __future__ import annotations

from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.controller import Recorder
from tests.fakes.kubernetes.deletion import delete, set_condition
from tests.fakes.kubernetes.kinds import PODS, Object

_PREEMPTED = "default-scheduler: preempting to accommodate a higher priority pod"
_LOW = (
    "The node was low on resource: {resource}. Threshold quantity: 100Mi, available: 40Mi. Container {container} was "
    "using 512Mi, request is 256Mi, has larger consumption of {resource}. "
)


class PodFaults:
    """Preemption, eviction, out of memory, stuck in termination."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._scheduler_events = Recorder(cluster.store, "default-scheduler")
        self._kubelet_events = Recorder(cluster.store, "kubelet")

    def preempt(self, namespace: str, name: str, grace_s: int | None) -> None:
        """Condition first, then a graceful deletion: the order in which the scheduler does it."""
        pod = self.disrupt(namespace, name, "PreemptionByScheduler", _PREEMPTED)
        node = pod["spec"].get("nodeName", "")
        victim_of = "Preempted by pod 0b8f1d2e-6a39-4f5f-9f53-2d1c8a7e4b60"
        self._scheduler_events.event(pod, "Preempted", f"{victim_of} on node {node}")
        options = {} if grace_s is None else {"gracePeriodSeconds": grace_s}
        delete(self._cluster.store, PODS, namespace, name, options)

    def evict(self, namespace: str, name: str, resource: str, grace_s: float) -> None:
        """The pod fails with reason Evicted; its object stays."""
        pod = self.disrupt(
            namespace, name, "TerminationByKubelet", _LOW.format(resource=resource, container="main").strip()
        )
        message = _LOW.format(resource=resource, container=pod["spec"]["containers"][0]["name"])
        self._kubelet_events.event(pod, "Evicted", message, warning=True, node=pod["spec"].get("nodeName", ""))
        self._cluster.kubelets.run_of(namespace, name).stop(grace_s, reason="Evicted", message=message)

    def out_of_memory(self, namespace: str, name: str) -> None:
        """The whole group dies at once (cgroup v2 kills all of a container)."""
        run = self._cluster.kubelets.run_of(namespace, name)
        if run.container is None:
            raise ValueError(f"pod {name} has no running container")
        run.cause = "OOMKilled"
        run.container.kill()

    def unstick(self, namespace: str, name: str) -> None:
        """Report what was kept back."""
        run = self._cluster.kubelets.run_of(namespace, name)
        run.stuck = False
        run.resume()

    def disrupt(self, namespace: str, name: str, reason: str, message: str) -> Object:
        """Set the condition that says that the pod's end is not its own fault."""

        def mark(made: Object) -> None:
            set_condition(made["status"], "DisruptionTarget", "True", reason=reason, message=message)

        return self._cluster.store.update(PODS, namespace, name, mark)
