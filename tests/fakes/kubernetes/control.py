"""Faults and figures on command: what the control client calls, by method name, over its own loopback port."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.deletion import delete
from tests.fakes.kubernetes.errors import ApiError
from tests.fakes.kubernetes.gate import Rule, Token
from tests.fakes.kubernetes.kinds import QUOTAS, kind_named
from tests.fakes.kubernetes.node_faults import NodeFaults
from tests.fakes.kubernetes.pod_faults import PodFaults
from tests.fakes.kubernetes.settings import Image, NodeShape
from tests.fakes.kubernetes.web import Reply, Request, WebServer


class Control:
    """Every public method is a command; arguments and results are JSON."""

    def __init__(self, cluster: Cluster, api_server: WebServer) -> None:
        self._cluster = cluster
        self._api_server = api_server
        self._pods = PodFaults(cluster)
        self._nodes = NodeFaults(cluster)

    async def handle(self, request: Request, reply: Reply) -> None:
        """Run one command: ``POST /<method>`` with the arguments as a JSON object."""
        name = request.path.strip("/")
        command = getattr(self, name, None)
        if name.startswith("_") or name == "handle" or command is None:
            reply.send(404, {"error": f"no command {name!r}"})
            return
        try:
            reply.send(200, {"result": command(**json.loads(request.body or b"{}"))})
        except (ApiError, KeyError, TypeError, ValueError) as error:
            reply.send(400, {"error": f"{type(error).__name__}: {error}"})

    # --- figures -----------------------------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        """Objects ever created by kind, requests by verb and resource, open watches, processes that run."""
        containers = [run.container for run in self._cluster.kubelets.runs.values()]
        running = [one for one in containers if one is not None and not one.ended]
        return {
            "created": dict(self._cluster.store.created),
            "requests": dict(self._cluster.gate.requests),
            "watches": len(self._cluster.watches.open),
            "running": len(running),
            "revision": self._cluster.store.revision,
        }

    def reset_figures(self) -> None:
        """Count from zero."""
        self._cluster.store.created.clear()
        self._cluster.gate.requests.clear()

    def objects(self, plural: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """Everything of a kind; also while the API is away."""
        return self._cluster.store.all(kind_named(plural), namespace)

    def root_writes(self) -> list[str]:
        """Files that containers with a read-only root wrote outside of their volumes; a real one would have failed."""
        return self._cluster.kubelets.root_writes

    def processes(self, pod: str, namespace: str) -> int:
        """The main process of a pod; 0 when none runs."""
        container = self._cluster.kubelets.run_of(namespace, pod).container
        return 0 if container is None or container.ended else container.pid

    def container_log(self, uid: str, container: str = "") -> str:
        """A pod's log with times, by uid: also of a pod that is gone."""
        run = self._cluster.kubelets.runs[uid]
        path = run.log_path(container or run.pod["spec"]["containers"][0]["name"])
        return path.read_text(errors="replace") if path.exists() else ""

    # --- pods --------------------------------------------------------------------------------------------------

    def preempt(self, pod: str, namespace: str, grace_s: int | None = None) -> None:
        """The scheduler makes room for a pod of higher priority."""
        self._pods.preempt(namespace, pod, grace_s)

    def evict(self, pod: str, namespace: str, reason: str = "memory", grace_s: float = 0.0) -> None:
        """The kubelet ends a pod because its node runs out of something."""
        self._pods.evict(namespace, pod, reason, grace_s)

    def out_of_memory(self, pod: str, namespace: str) -> None:
        """The kernel kills the container: exit code 137, reason OOMKilled."""
        self._pods.out_of_memory(namespace, pod)

    def kill_container(self, pod: str, namespace: str) -> None:
        """SIGKILL to the container's processes, without any reason given."""
        self._cluster.kubelets.run_of(namespace, pod).kill()

    def stick(self, pod: str, namespace: str) -> None:
        """From now on the kubelet neither reports nor confirms this pod's end: it stays Terminating."""
        self._cluster.kubelets.run_of(namespace, pod).stuck = True

    def unstick(self, pod: str, namespace: str) -> None:
        """The kubelet says what happened meanwhile."""
        self._pods.unstick(namespace, pod)

    # --- nodes and scheduling ----------------------------------------------------------------------------------

    def lose_node(
        self, node: str, kill: bool = True, evict_after_s: float = 0.1, collect_after_s: float | None = 0.5
    ) -> None:
        """The node stops answering; see :meth:`NodeFaults.lose`."""
        self._nodes.lose(node, kill=kill, evict_after_s=evict_after_s, collect_after_s=collect_after_s)

    def remove_node(self, node: str) -> None:
        """The machine and its object are gone; the pod collector cleans up (DeletionByPodGC)."""
        self._nodes.remove(node)

    def heal_node(self, node: str) -> None:
        """It answers again; pods that nobody wants any more are killed there."""
        self._nodes.heal(node)

    def add_node(
        self, name: str, labels: dict[str, str], taints: list[dict[str, str]], allocatable: dict[str, str]
    ) -> None:
        """A scale-up."""
        self._cluster.add_node(NodeShape(name, labels, tuple(taints), allocatable))

    def scale_up(
        self,
        name: str,
        labels: dict[str, str],
        taints: list[dict[str, str]],
        allocatable: dict[str, str],
        after_s: float,
    ) -> None:
        """An autoscaler promises a node to every pod that waits, and brings it after a while."""
        self._nodes.scale_up(NodeShape(name, labels, tuple(taints), allocatable), after_s)

    def delay_scheduling(self, seconds: float) -> None:
        """Every new pod waits so long before the scheduler looks at it."""
        self._cluster.scheduler.delay_s = seconds

    def hold_scheduling(self, held: bool) -> None:
        """While held nothing is scheduled."""
        self._cluster.scheduler.held = held
        self._cluster.scheduler.look_again()

    # --- images and quota --------------------------------------------------------------------------------------

    def refuse_image(self, image: str, message: str = "") -> None:
        """Pulling it fails from now on. Without tag and digest: whatever they are."""
        said = message or f'failed to resolve reference "{image}": pull access denied, repository does not exist'
        self._cluster.images.refused[image] = said

    def allow_image(self, image: str) -> None:
        """Undo :meth:`refuse_image`."""
        self._cluster.images.refused.pop(image, None)

    def add_image(
        self, image: str, path: list[str], pythonpath: list[str], environment: dict[str, str], command: list[str]
    ) -> None:
        """Push an image."""
        self._cluster.images.add(image, Image(tuple(path), tuple(pythonpath), environment, tuple(command)))

    def set_quota(self, namespace: str, hard: dict[str, str] | None, name: str = "compute") -> None:
        """A ResourceQuota, e.g. ``{"pods": "0"}`` or ``{"count/jobs.batch": "1"}``; None removes it."""
        store = self._cluster.store
        if store.find(QUOTAS, namespace, name) is not None:
            store.remove(QUOTAS, namespace, name)
        if hard is not None:
            store.create(QUOTAS, {"metadata": {"name": name, "namespace": namespace}, "spec": {"hard": hard}})

    # --- the API server ----------------------------------------------------------------------------------------

    def outage(self, seconds: float) -> None:
        """Connections are reset and refused for so long."""
        self._api_server.close()
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, lambda: loop.create_task(self._api_server.listen()))

    def reset_connections(self) -> None:
        """Open connections are reset once."""
        self._api_server.close()
        asyncio.get_running_loop().create_task(self._api_server.listen())

    def slow(self, seconds: float) -> None:
        """Every answer takes so much longer; 0 ends it."""
        self._cluster.gate.latency_s = seconds

    def fail_requests(
        self, code: int, count: int | None = 1, verb: str = "", resource: str = "", retry_after_s: int = 1
    ) -> None:
        """The next ``count`` matching requests (None: all) are answered with 429 or 5xx."""
        rule = Rule(verb=verb, resource=resource, remaining=count, code=code, retry_after_s=retry_after_s)
        self._cluster.gate.injected.append(rule)

    def lose_answers(self, count: int = 1, verb: str = "create", resource: str = "jobs") -> None:
        """The next matching requests are carried out, then the connection is cut without an answer."""
        self._cluster.gate.lost_answers.append(Rule(verb=verb, resource=resource, remaining=count))

    def deny(self, verb: str = "", resource: str = "", namespace: str = "", user: str = "") -> None:
        """Forbid requests, as missing RBAC does; empty means any. Resources are plurals, or ``pods/log``."""
        self._cluster.gate.denied.append(Rule(verb=verb, resource=resource, namespace=namespace, user=user))

    def well(self) -> None:
        """No slowness, no injected errors, no denials, no lost answers, watches as usual."""
        gate = self._cluster.gate
        gate.latency_s = 0.0
        for rules in (gate.injected, gate.denied, gate.lost_answers):
            rules.clear()
        self._cluster.watches.expire_next = 0
        self._cluster.watches.stalled = False

    def add_token(self, token: str, user: str, valid_s: float | None = None) -> None:
        """A bearer token, for so long."""
        self._cluster.gate.tokens[token] = Token(user, None if valid_s is None else time.time() + valid_s)

    def expire_token(self, token: str) -> None:
        """From now on it is answered with 401."""
        self._cluster.gate.tokens.pop(token, None)

    # --- watches -----------------------------------------------------------------------------------------------

    def drop_watches(self) -> int:
        """Cut every open watch. Returns how many."""
        return self._cluster.watches.drop_all()

    def expire_watches(self, count: int = 1) -> None:
        """Cut every open watch, and tell the next ``count`` that begin at a version that it is too old."""
        self._cluster.store.compact()
        self._cluster.watches.expire_next = count
        self._cluster.watches.drop_all()

    def stall_watches(self, stalled: bool) -> None:
        """While stalled, open watches say nothing and miss what happens."""
        self._cluster.watches.stalled = stalled

    def clear(self, namespace: str) -> None:
        """Between two tests: everything that runs is removed by force, faults end, nodes are healed."""
        self.well()
        cluster = self._cluster
        cluster.scheduler.held, cluster.scheduler.delay_s = False, 0.0
        cluster.images.refused.clear()
        cluster.kueue.hold(False)
        cluster.without.clear()
        cluster.without.update(cluster.settings.without)
        for node in [node for node in cluster.kubelets.nodes.values() if node.lost]:
            self._nodes.heal(node.name)
        for plural in ("trainjobs", "jobsets", "jobs", "resourcequotas", "resourceclaimtemplates"):
            for made in cluster.store.all(kind_named(plural), namespace):
                cluster.store.update(
                    kind_named(plural),
                    namespace,
                    made["metadata"]["name"],
                    lambda one: one["metadata"].pop("finalizers", 0),
                )
                self._force(plural, made["metadata"]["name"], namespace)
        for pod in cluster.store.all(kind_named("pods"), namespace):
            self._force("pods", pod["metadata"]["name"], namespace)

    def _force(self, plural: str, name: str, namespace: str) -> None:
        options = {"propagationPolicy": "Background", "gracePeriodSeconds": 0}
        if self._cluster.store.find(kind_named(plural), namespace, name) is not None:
            delete(self._cluster.store, kind_named(plural), namespace, name, options)

    # --- by hand -----------------------------------------------------------------------------------------------

    def delete(self, plural: str, name: str, namespace: str, propagation: str = "Background") -> None:
        """Somebody deletes something by hand."""
        delete(self._cluster.store, kind_named(plural), namespace, name, {"propagationPolicy": propagation})

    def set_group(self, group: str, installed: bool) -> None:
        """Install or remove an optional API group."""
        (self._cluster.without.discard if installed else self._cluster.without.add)(group)

    def hold_queue(self, held: bool) -> None:
        """While held, Kueue admits nothing."""
        self._cluster.kueue.hold(held)

    def evict_workload(
        self, name: str, namespace: str, reason: str = "Preempted", message: str = "", requeue_after_s: float = 0.5
    ) -> None:
        """Kueue takes a workload's quota away: its job is suspended, and admitted again later."""
        self._cluster.kueue.evict(namespace, name, reason=reason, message=message, requeue_after_s=requeue_after_s)
