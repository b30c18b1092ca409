"""The pod garbage collector: pods that no kubelet will ever end."""

from __future__ import annotations

import asyncio

from tests.fakes.kubernetes.controller import run_guarded
from tests.fakes.kubernetes.deletion import delete, is_terminal, set_condition
from tests.fakes.kubernetes.errors import ApiError
from tests.fakes.kubernetes.kinds import NODES, PODS, Object
from tests.fakes.kubernetes.storage import Change, Store

#: The real one looks every 20 s.
PERIOD_S = 0.05
_NODE_GONE = "PodGC: node no longer exists"


class PodCollector:
    """Fails pods that are deleted before they have a node, or whose node is gone, and removes them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.listen(self._on_change)

    def _on_change(self, change: Change) -> None:
        loop = asyncio.get_running_loop()
        if change.kind is NODES and change.type == "DELETED":
            loop.call_later(PERIOD_S, run_guarded, lambda: self._node_gone(change.object["metadata"]["name"]))
        elif change.kind is PODS and change.type == "MODIFIED" and _is_adrift(change.object):
            loop.call_later(PERIOD_S, run_guarded, lambda: self._collect(change.object, node_gone=False))

    def _node_gone(self, node: str) -> None:
        for pod in self._store.all(PODS):
            if pod["spec"].get("nodeName") == node and not is_terminal(pod):
                self._collect(pod, node_gone=True)

    def _collect(self, pod: Object, *, node_gone: bool) -> None:
        meta = pod["metadata"]
        current = self._store.find(PODS, meta["namespace"], meta["name"])
        if current is None or current["metadata"]["uid"] != meta["uid"] or is_terminal(current):
            return

        def fail(made: Object) -> None:
            made["status"]["phase"] = "Failed"
            if node_gone:
                reason, message = "DeletionByPodGC", _NODE_GONE
                set_condition(made["status"], "DisruptionTarget", "True", reason=reason, message=message)

        self._store.update(PODS, meta["namespace"], meta["name"], fail)
        try:
            delete(self._store, PODS, meta["namespace"], meta["name"], {"gracePeriodSeconds": 0})
        except ApiError:
            return  # its last finalizer went with the status


def _is_adrift(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp")) and not pod["spec"].get("nodeName") and not is_terminal(pod)
