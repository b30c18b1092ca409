"""The kubelets of all nodes, and what they answer for the API server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from tests.fakes.kubernetes import errors, pod_log
from tests.fakes.kubernetes.controller import Recorder, run_guarded
from tests.fakes.kubernetes.deletion import delete, is_terminal, set_condition
from tests.fakes.kubernetes.images import Images
from tests.fakes.kubernetes.kinds import PODS, Object
from tests.fakes.kubernetes.pod_run import Node, PodRun, Tools
from tests.fakes.kubernetes.settings import Settings
from tests.fakes.kubernetes.storage import Change, Store
from tests.fakes.kubernetes.web import Reply, Request


class Kubelets:
    """Runs the pods that are bound to nodes."""

    def __init__(self, store: Store, settings: Settings, images: Images) -> None:
        self._store = store
        self._tools = Tools(store, settings, images, Recorder(store, "kubelet"), Path(settings.folder))
        self.nodes: dict[str, Node] = {}
        self.runs: dict[str, PodRun] = {}
        store.listen(self._on_change)

    def reap(self) -> None:
        """A child has ended (SIGCHLD)."""
        for run in list(self.runs.values()):
            if run.container is not None:
                run.container.look()

    def run_of(self, namespace: str, name: str) -> PodRun:
        """The run behind a pod. Raises 404 when no node has it."""
        pod = self._store.get(PODS, namespace, name)
        run = self.runs.get(pod["metadata"]["uid"])
        if run is None:
            raise errors.bad_request(f"pod {name} does not have a host assigned")
        return run

    @property
    def root_writes(self) -> list[str]:
        """Files that containers with a read-only root left outside of their volumes."""
        return self._tools.root_writes

    def node(self, name: str) -> Node:
        """A node's kubelet."""
        return self.nodes.setdefault(name, Node(name))

    def runs_on(self, node: str) -> list[PodRun]:
        """The pods of a node."""
        return [run for run in self.runs.values() if run.node.name == node]

    def kill_all(self) -> None:
        """The server ends: so does everything that it started."""
        for run in self.runs.values():
            run.kill()

    def _on_change(self, change: Change) -> None:
        if change.kind is PODS and change.object["spec"].get("nodeName"):
            asyncio.get_running_loop().call_soon(run_guarded, lambda: self._look(change))

    def _look(self, change: Change) -> None:
        pod = change.object
        uid = pod["metadata"]["uid"]
        run = self.runs.get(uid)
        if run is None:
            if change.type != "DELETED" and not is_terminal(pod) and not pod["metadata"].get("deletionTimestamp"):
                self._begin(pod)
            return
        if run.node.lost:
            return
        if change.type == "DELETED":
            run.kill()
            if run.stuck:  # removed by force: nothing is left to be stuck
                run.stuck = False
                run.resume()
        elif pod["metadata"].get("deletionTimestamp") and not (run.stopping and run.finished):
            self._stop(run, pod)

    def _stop(self, run: PodRun, pod: Object) -> None:
        grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
        if not run.stopping or grace == 0:
            run.stop(grace)

    def _begin(self, pod: Object) -> None:
        run = PodRun(pod, self.node(pod["spec"]["nodeName"]), self._tools)
        self.runs[run.uid] = run
        if not run.node.lost:
            run.begin()

    # --- for the API server ------------------------------------------------------------------------------------

    async def log(self, pod: Object, request: Request, reply: Reply) -> None:
        """``pods/log``."""
        run = self.runs.get(pod["metadata"]["uid"])
        if run is not None and run.node.lost:
            raise errors.ApiError(500, "InternalError", f'Get "https://{run.node.name}:10250": dial tcp: i/o timeout')
        await pod_log.serve(self._store, pod, run, request, reply)

    def evict(self, pod: Object, options: Mapping[str, object]) -> Object:
        """``pods/eviction``: a graceful deletion that says who asked."""
        meta = pod["metadata"]

        def mark(made: Object) -> None:
            message = "Eviction API: evicting"
            set_condition(made["status"], "DisruptionTarget", "True", reason="EvictionByEvictionAPI", message=message)

        self._store.update(PODS, meta["namespace"], meta["name"], mark)
        delete(self._store, PODS, meta["namespace"], meta["name"], options)
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
