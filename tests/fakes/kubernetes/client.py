"""The control client: faults and figures as Python methods. Talks over loopback, never over the API's port."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from typing import Any

from tests.fakes.kubernetes.settings import Image, NodeShape

WAIT_S = 30.0
POLL_S = 0.02


class ControlError(Exception):
    """The server refused a command."""


class ControlClient:
    """One method per command of :class:`tests.fakes.kubernetes.control.Control`; ``namespace`` has a default."""

    def __init__(self, port: int, namespace: str) -> None:
        self._port = port
        self.namespace = namespace

    def call(self, command: str, /, **arguments: Any) -> Any:
        """Run any command by name. Raises ControlError."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("POST", f"/{command}", json.dumps(arguments), {"Connection": "close"})
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if "error" in answer:
            raise ControlError(f"{command}: {answer['error']}")
        return answer["result"]

    # --- figures -----------------------------------------------------------------------------------------------

    def created(self, plural: str) -> int:
        """How many objects of a kind were ever created, by anybody."""
        return int(self.call("figures")["created"].get(plural, 0))

    def requests(self, verb: str = "", resource: str = "") -> int:
        """How many requests arrived, e.g. ``requests("create", "jobs")``; empty means any."""
        counted: dict[str, int] = self.call("figures")["requests"]
        return sum(
            count
            for key, count in counted.items()
            if verb in ("", key.split(" ")[0]) and resource in ("", key.split(" ")[1])
        )

    def figures(self) -> dict[str, Any]:
        """All figures: created, requests, watches, running, revision."""
        return dict(self.call("figures"))

    def reset_figures(self) -> None:
        """Count from zero."""
        self.call("reset_figures")

    def objects(self, plural: str) -> list[dict[str, Any]]:
        """Everything of a kind in the namespace (or of the cluster); also while the API is away."""
        found: list[dict[str, Any]] = self.call("objects", plural=plural)
        return [one for one in found if one["metadata"].get("namespace") in (None, self.namespace)]

    def pods(self, job: str | None = None) -> list[dict[str, Any]]:
        """Pods, of one Job if named, oldest first."""
        found = [
            pod
            for pod in self.objects("pods")
            if job is None or (pod["metadata"].get("labels") or {}).get("batch.kubernetes.io/job-name") == job
        ]
        return sorted(found, key=lambda pod: int(pod["metadata"]["uid"] and pod["metadata"]["resourceVersion"]))

    def process_of(self, pod: str) -> int:
        """The main process of a pod; 0 when none runs."""
        return int(self.call("processes", pod=pod, namespace=self.namespace))

    def container_log(self, uid: str) -> str:
        """The log of a pod's container with times, by the pod's uid: also of a pod that is gone."""
        return str(self.call("container_log", uid=uid))

    def wait(self, condition: Callable[[], Any], what: str, *, seconds: float = WAIT_S) -> Any:
        """Until ``condition()`` is true; returns what it returned. Raises TimeoutError with what is in the cluster."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s: {what}\n{self.describe()}")
            time.sleep(POLL_S)
        return found

    def wait_for_pod(self, job: str, phase: str = "Running", *, other_than: str = "", seconds: float = WAIT_S) -> str:
        """Until a pod of the Job has the phase; returns its name. ``other_than``: not this one."""

        def look() -> str:
            for pod in self.pods(job):
                if pod["status"]["phase"] == phase and pod["metadata"]["name"] != other_than:
                    return str(pod["metadata"]["name"])
            return ""

        return str(self.wait(look, f"a pod of {job} that is {phase}", seconds=seconds))

    def wait_for_job(self, job: str, condition: str = "Complete", *, seconds: float = WAIT_S) -> dict[str, Any]:
        """Until a Job has the condition; returns the Job."""

        def look() -> dict[str, Any] | None:
            for one in self.objects("jobs"):
                conditions = (one.get("status") or {}).get("conditions") or []
                if one["metadata"]["name"] == job and any(
                    each["type"] == condition and each["status"] == "True" for each in conditions
                ):
                    return one
            return None

        return dict(self.wait(look, f"job {job} {condition}", seconds=seconds))

    def describe(self) -> str:
        """Jobs, pods and the latest events, for messages."""
        lines = [f"job {job['metadata']['name']}: {json.dumps(job.get('status'))}" for job in self.objects("jobs")]
        lines += [f"pod {pod['metadata']['name']}: {json.dumps(pod['status'])}" for pod in self.objects("pods")]
        events = sorted(self.objects("events"), key=lambda event: int(event["metadata"]["resourceVersion"]))
        lines += [
            f"event {event['involvedObject']['name']}: {event['reason']}: {event['message']}" for event in events[-20:]
        ]
        return "\n".join(lines)

    # --- faults ------------------------------------------------------------------------------------------------

    def preempt(self, pod: str, *, grace_s: int | None = None) -> None:
        """The scheduler makes room for another pod (graceful; ``DisruptionTarget`` PreemptionByScheduler)."""
        self.call("preempt", pod=pod, namespace=self.namespace, grace_s=grace_s)

    def evict(self, pod: str, *, reason: str = "memory", grace_s: float = 0.0) -> None:
        """The kubelet ends the pod for lack of ``reason`` (reason Evicted, phase Failed, the object stays)."""
        self.call("evict", pod=pod, namespace=self.namespace, reason=reason, grace_s=grace_s)

    def out_of_memory(self, pod: str) -> None:
        """SIGKILL to the whole container, reason OOMKilled, exit code 137."""
        self.call("out_of_memory", pod=pod, namespace=self.namespace)

    def kill_container(self, pod: str) -> None:
        """SIGKILL to the whole container, reason Error, exit code 137."""
        self.call("kill_container", pod=pod, namespace=self.namespace)

    def stick(self, pod: str) -> None:
        """The pod will stay Terminating until :meth:`unstick`; its processes end."""
        self.call("stick", pod=pod, namespace=self.namespace)

    def unstick(self, pod: str) -> None:
        """Let a stuck pod go."""
        self.call("unstick", pod=pod, namespace=self.namespace)

    def lose_node(
        self, node: str, *, kill: bool = True, evict_after_s: float = 0.1, collect_after_s: float | None = 0.5
    ) -> None:
        """The node goes silent. ``kill=False``: its processes go on as zombies until :meth:`heal_node`."""
        self.call("lose_node", node=node, kill=kill, evict_after_s=evict_after_s, collect_after_s=collect_after_s)

    def remove_node(self, node: str) -> None:
        """The machine is taken away (spot): processes die, the node object goes, its pods fail (DeletionByPodGC)."""
        self.call("remove_node", node=node)

    def heal_node(self, node: str) -> None:
        """The node answers again and kills what nobody wants any more."""
        self.call("heal_node", node=node)

    def add_node(self, shape: NodeShape) -> None:
        """A scale-up."""
        self.call(
            "add_node",
            name=shape.name,
            labels=shape.labels,
            taints=list(shape.taints),
            allocatable=shape.allocatable,
        )

    def scale_up(self, shape: NodeShape, *, after_s: float) -> None:
        """An autoscaler says ``TriggeredScaleUp`` to the pods that wait, and brings the node later."""
        self.call(
            "scale_up",
            name=shape.name,
            labels=shape.labels,
            taints=list(shape.taints),
            allocatable=shape.allocatable,
            after_s=after_s,
        )

    def delay_scheduling(self, seconds: float) -> None:
        """Every new pod waits so long for the scheduler."""
        self.call("delay_scheduling", seconds=seconds)

    def hold_scheduling(self, held: bool = True) -> None:
        """Nothing is scheduled while held."""
        self.call("hold_scheduling", held=held)

    def refuse_image(self, image: str, message: str = "") -> None:
        """Pulling it fails (ErrImagePull, ImagePullBackOff) until :meth:`allow_image`."""
        self.call("refuse_image", image=image, message=message)

    def allow_image(self, image: str) -> None:
        """Undo :meth:`refuse_image`."""
        self.call("allow_image", image=image)

    def add_image(self, name: str, image: Image) -> None:
        """Push an image."""
        self.call(
            "add_image",
            image=name,
            path=list(image.path),
            pythonpath=list(image.pythonpath),
            environment=image.environment,
            command=list(image.command),
        )

    def set_quota(self, hard: dict[str, str] | None, *, name: str = "compute") -> None:
        """``{"pods": "0"}``: no pods; ``{"count/jobs.batch": "0"}``: no Jobs; None: no quota."""
        self.call("set_quota", namespace=self.namespace, hard=hard, name=name)

    def outage(self, seconds: float) -> None:
        """The API server resets and refuses connections for so long."""
        self.call("outage", seconds=seconds)

    def reset_connections(self) -> None:
        """Open connections to the API server are reset once."""
        self.call("reset_connections")

    def slow(self, seconds: float) -> None:
        """Every answer takes so much longer; 0 ends it."""
        self.call("slow", seconds=seconds)

    def fail_requests(
        self, code: int, *, count: int | None = 1, verb: str = "", resource: str = "", retry_after_s: int = 1
    ) -> None:
        """Answer the next ``count`` matching requests (None: all) with 429, 500, 503 or 504."""
        self.call("fail_requests", code=code, count=count, verb=verb, resource=resource, retry_after_s=retry_after_s)

    def lose_answers(self, count: int = 1, *, verb: str = "create", resource: str = "jobs") -> None:
        """Carry out the next matching requests, then cut the connection."""
        self.call("lose_answers", count=count, verb=verb, resource=resource)

    def deny(self, verb: str = "", resource: str = "", *, namespace: str = "") -> None:
        """Forbid requests (403), and say so in SelfSubjectAccessReviews."""
        self.call("deny", verb=verb, resource=resource, namespace=namespace)

    def well(self) -> None:
        """End slowness, injected errors, denials, lost answers and faults of watches."""
        self.call("well")

    def add_token(
        self, token: str, *, user: str = "system:serviceaccount:genai:airflow", valid_s: float | None = None
    ) -> None:
        """A bearer token that holds for so long."""
        self.call("add_token", token=token, user=user, valid_s=valid_s)

    def expire_token(self, token: str) -> None:
        """Answer it with 401 from now on."""
        self.call("expire_token", token=token)

    def clear(self) -> None:
        """Between two tests: remove by force what runs in the namespace, end all faults, wait until it is quiet."""
        self.call("clear", namespace=self.namespace)
        self.wait(lambda: not (self.pods() or self.objects("jobs") or self.figures()["running"]), "a quiet cluster")

    def drop_watches(self) -> int:
        """Cut every open watch. Returns how many."""
        return int(self.call("drop_watches"))

    def expire_watches(self, count: int = 1) -> None:
        """Cut every watch; the next ``count`` from a version get 410."""
        self.call("expire_watches", count=count)

    def stall_watches(self, stalled: bool = True) -> None:
        """Open watches say nothing and miss what happens."""
        self.call("stall_watches", stalled=stalled)

    def delete(self, plural: str, name: str, *, propagation: str = "Background") -> None:
        """Somebody deletes something by hand."""
        self.call("delete", plural=plural, name=name, namespace=self.namespace, propagation=propagation)

    def set_group(self, group: str, *, installed: bool) -> None:
        """Install or remove an optional API group."""
        self.call("set_group", group=group, installed=installed)

    def hold_queue(self, held: bool = True) -> None:
        """Kueue admits nothing while held."""
        self.call("hold_queue", held=held)

    def evict_workload(
        self, name: str, *, reason: str = "Preempted", message: str = "", requeue_after_s: float = 0.5
    ) -> None:
        """Kueue suspends the job of a Workload and requeues it. The name is the Workload's or its job's."""
        self.call(
            "evict_workload",
            name=name,
            namespace=self.namespace,
            reason=reason,
            message=message,
            requeue_after_s=requeue_after_s,
        )
