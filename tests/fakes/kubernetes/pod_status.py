"""A pod's status, step by step, as the kubelet writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.fakes.kubernetes.deletion import set_condition
from tests.fakes.kubernetes.images import image_id
from tests.fakes.kubernetes.kinds import PODS, Object
from tests.fakes.kubernetes.storage import Store, now

State = dict[str, Any]
NO_ADDRESS = "127.0.0.1"


def waiting(reason: str, message: str = "") -> State:
    """A container that does not run yet."""
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def running(since: str) -> State:
    """A container that runs."""
    return {"running": {"startedAt": since}}


def terminated(code: int, *, started: str, container: str, reason: str = "", message: str = "") -> State:
    """A container that ended. Without a reason: ``Completed`` or ``Error``."""
    ended: State = {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error")}
    if message:
        ended["message"] = message
    return {"terminated": {**ended, "startedAt": started, "finishedAt": now(), "containerID": container}}


class StatusWriter:
    """Writes the status of one pod. A pod that is gone is left alone; a silent writer keeps everything back."""

    def __init__(self, store: Store, pod: Object) -> None:
        self._store = store
        self._key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self._uid = pod["metadata"]["uid"]
        #: The node is unreachable: nothing that the kubelet says arrives.
        self.silent: Callable[[], bool] = lambda: False

    def current(self) -> Object | None:
        """The pod, if it is still this one."""
        pod = self._store.find(PODS, *self._key)
        return pod if pod is not None and pod["metadata"]["uid"] == self._uid else None

    def write(self, change: Callable[[Object], None]) -> None:
        """Change the pod."""
        if self.current() is not None and not self.silent():
            self._store.update(PODS, *self._key, change)

    def begin(self, containers: Sequence[Object], initial: Sequence[Object]) -> None:
        """The kubelet has seen the pod."""

        def change(pod: Object) -> None:
            status = pod["status"]
            status.setdefault("startTime", now())
            status |= {"hostIP": NO_ADDRESS, "hostIPs": [{"ip": NO_ADDRESS}]}
            set_condition(status, "PodReadyToStartContainers", "False")
            if initial:
                message = f"containers with incomplete status: [{' '.join(one['name'] for one in initial)}]"
                set_condition(status, "Initialized", "False", reason="ContainersNotInitialized", message=message)
            else:
                set_condition(status, "Initialized", "True")
            _not_ready(status, containers, "ContainersNotReady")
            reason = "PodInitializing" if initial else "ContainerCreating"
            status["containerStatuses"] = [_container_status(one, waiting(reason)) for one in containers]
            if initial:
                status["initContainerStatuses"] = [
                    _container_status(one, waiting("PodInitializing")) for one in initial
                ]

        self.write(change)

    def state(self, container: Object, state: State, *, restarts: int = 0, last: State | None = None) -> None:
        """One container's state; the pod's phase follows when it runs."""

        def change(pod: Object) -> None:
            status = pod["status"]
            entry = _entry(status, container["name"])
            entry |= {"state": state, "restartCount": restarts, "ready": "running" in state}
            entry["started"] = "running" in state
            entry["lastState"] = last or entry.get("lastState") or {}
            if "running" in state:
                entry |= {
                    "containerID": f"containerd://{self._uid.replace('-', '')}",
                    "imageID": image_id(container["image"]),
                }
                status |= {"podIP": NO_ADDRESS, "podIPs": [{"ip": NO_ADDRESS}]}
                set_condition(status, "PodReadyToStartContainers", "True")
                if entry in (status.get("containerStatuses") or []):
                    status["phase"] = "Running"
                    set_condition(status, "ContainersReady", "True")
                    set_condition(status, "Ready", "True")

        self.write(change)

    def initialized(self) -> None:
        """The last init container has ended well."""
        self.write(lambda pod: set_condition(pod["status"], "Initialized", "True"))

    def end(self, containers: Sequence[Object], phase: str, *, reason: str = "", message: str = "") -> None:
        """The pod has ended; containers that never started are marked so."""

        def change(pod: Object) -> None:
            status = pod["status"]
            if status["phase"] in ("Succeeded", "Failed"):
                return
            status["phase"] = phase
            if reason:
                status |= {"reason": reason, "message": message}
            _not_ready(status, containers, "PodCompleted" if phase == "Succeeded" else "PodFailed")
            set_condition(status, "PodReadyToStartContainers", "False")
            for entry in status.get("containerStatuses") or []:
                entry |= {"ready": False, "started": False}
                if "terminated" not in entry["state"]:
                    text = "The container could not be located when the pod was terminated"
                    lost = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": text}
                    entry["state"] = {"terminated": {**lost, "startedAt": None, "finishedAt": None}}

        self.write(change)

    def disrupt(self, reason: str, message: str) -> None:
        """Say that the pod's end is somebody else's doing."""
        self.write(lambda pod: set_condition(pod["status"], "DisruptionTarget", "True", reason=reason, message=message))


def _entry(status: Object, name: str) -> Object:
    for group in ("containerStatuses", "initContainerStatuses"):
        for entry in status.get(group) or []:
            if entry["name"] == name:
                found: Object = entry
                return found
    raise KeyError(name)


def _container_status(container: Object, state: State) -> Object:
    return {
        "name": container["name"], "image": container["image"], "imageID": "", "ready": False, "started": False,
        "restartCount": 0, "state": state, "lastState": {},
    }  # fmt: skip


def _not_ready(status: Object, containers: Sequence[Object], reason: str) -> None:
    message = f"containers with unready status: [{' '.join(one['name'] for one in containers)}]"
    text = message if reason == "ContainersNotReady" else ""
    set_condition(status, "Ready", "False", reason=reason, message=text)
    set_condition(status, "ContainersReady", "False", reason=reason, message=text)
