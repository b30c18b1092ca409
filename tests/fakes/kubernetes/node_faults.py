"""A node that stops answering, and the controllers that react: node lifecycle, taint manager, pod collector."""

from __future__ import annotations

import asyncio

from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.controller import Recorder, run_guarded
from tests.fakes.kubernetes.deletion import delete, is_terminal, set_condition
from tests.fakes.kubernetes.kinds import NODES, PODS, Object
from tests.fakes.kubernetes.settings import NodeShape

_UNREACHABLE = "node.kubernetes.io/unreachable"


class NodeFaults:
    """Loses nodes and heals them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._events = Recorder(cluster.store, "node-controller")
        self._autoscaler = Recorder(cluster.store, "cluster-autoscaler")

    def lose(self, node: str, *, kill: bool, evict_after_s: float, collect_after_s: float | None) -> None:
        """The node goes silent.

        :param kill: whether its processes die with it; else they run on as zombies that nobody can reach.
        :param evict_after_s: until the taint manager deletes its pods (really 40 s + 300 s).
        :param collect_after_s: from then until the node is taken out of service and the pods are removed by force;
            None: they stay Terminating until :meth:`heal`.
        """
        kubelet = self._cluster.kubelets.node(node)
        kubelet.lost = True
        if kill:
            for run in self._cluster.kubelets.runs_on(node):
                run.kill()
        self._mark_node(node)
        for pod in self._pods_on(node):
            self._write(pod, self._unready)
            self._events.event(pod, "NodeNotReady", "Node is not ready", warning=True)
        loop = asyncio.get_running_loop()
        loop.call_later(evict_after_s, run_guarded, lambda: self._evict(node, collect_after_s))

    def remove(self, node: str) -> None:
        """The machine is taken away, as spot capacity is: the processes die, the node object goes at once."""
        self._cluster.kubelets.node(node).lost = True
        for run in self._cluster.kubelets.runs_on(node):
            run.kill()
        self._cluster.store.remove(NODES, "", node)

    def scale_up(self, shape: NodeShape, after_s: float) -> None:
        """Say so in the events of the pods that wait, then add the node."""
        message = f"pod triggered scale-up: [{{{shape.name}-group 0->1 (max: 8)}}]"
        for pod in self._cluster.store.all(PODS):
            if not pod["spec"].get("nodeName") and not is_terminal(pod):
                self._autoscaler.event(pod, "TriggeredScaleUp", message)
        loop = asyncio.get_running_loop()
        loop.call_later(after_s, run_guarded, lambda: self._cluster.add_node(shape))

    def heal(self, node: str) -> None:
        """The kubelet is back: it reports, and kills what nobody wants any more."""

        def ready(made: Object) -> None:
            made["spec"]["taints"] = [one for one in made["spec"].get("taints") or [] if one["key"] != _UNREACHABLE]
            message = "kubelet is posting ready status"
            set_condition(made["status"], "Ready", "True", reason="KubeletReady", message=message)

        self._cluster.kubelets.node(node).lost = False
        if self._cluster.store.find(NODES, "", node) is not None:
            self._cluster.store.update(NODES, "", node, ready)
        for run in self._cluster.kubelets.runs_on(node):
            run.resume()

    def _mark_node(self, node: str) -> None:
        def unknown(made: Object) -> None:
            message = "Kubelet stopped posting node status."
            set_condition(made["status"], "Ready", "Unknown", reason="NodeStatusUnknown", message=message)
            taints = made["spec"].setdefault("taints", [])
            taints += [{"key": _UNREACHABLE, "effect": effect} for effect in ("NoSchedule", "NoExecute")]

        self._cluster.store.update(NODES, "", node, unknown)

    def _unready(self, pod: Object) -> None:
        set_condition(pod["status"], "Ready", "False", reason="NodeNotReady")

    def _evict(self, node: str, collect_after_s: float | None) -> None:
        if not self._cluster.kubelets.node(node).lost:
            return
        message = "Taint manager: deleting due to NoExecute taint"
        for pod in self._pods_on(node):
            self._disrupt(pod, "DeletionByTaintManager", message)
            self._events.event(pod, "TaintManagerEviction", f"Marking for deletion Pod {pod['metadata']['name']}")
            delete(self._cluster.store, PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], {})
        if collect_after_s is not None:
            asyncio.get_running_loop().call_later(collect_after_s, run_guarded, lambda: self._collect(node))

    def _collect(self, node: str) -> None:
        """As after ``node.kubernetes.io/out-of-service``: failed, then deleted by force."""
        if not self._cluster.kubelets.node(node).lost:
            return
        for pod in self._pods_on(node):
            self._write(pod, lambda made: made["status"].update(phase="Failed"))
            delete(
                self._cluster.store, PODS, pod["metadata"]["namespace"], pod["metadata"]["name"],
                {"gracePeriodSeconds": 0},
            )  # fmt: skip

    def _pods_on(self, node: str) -> list[Object]:
        pods = self._cluster.store.all(PODS)
        return [pod for pod in pods if pod["spec"].get("nodeName") == node and not is_terminal(pod)]

    def _disrupt(self, pod: Object, reason: str, message: str) -> None:
        self._write(
            pod,
            lambda made: set_condition(made["status"], "DisruptionTarget", "True", reason=reason, message=message),
        )

    def _write(self, pod: Object, change: object) -> None:
        self._cluster.store.update(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], change)  # type: ignore[arg-type]
