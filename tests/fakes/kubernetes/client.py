"""The control client: faults as Python methods, beside what :class:`Observer` sees."""

from __future__ import annotations

from tests.fakes.kubernetes.observer import ControlError, Observer
from tests.fakes.kubernetes.settings import Image, NodeShape

__all__ = ["ControlClient", "ControlError"]


class ControlClient(Observer):
    """One method per command of :class:`tests.fakes.kubernetes.control.Control`; ``namespace`` has a default."""

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
