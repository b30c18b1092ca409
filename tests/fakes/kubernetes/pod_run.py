"""One pod on its node: pull, start, run, stop, report."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.kubernetes.container import AnyContainer, Container, SimulatedContainer
from tests.fakes.kubernetes.controller import Recorder, run_guarded
from tests.fakes.kubernetes.images import Images, PullError
from tests.fakes.kubernetes.kinds import Object
from tests.fakes.kubernetes.pod_environment import (
    ConfigError,
    Rewriter,
    expand,
    prepare_folders,
    process_environment,
    resolve_variables,
    termination_message,
)
from tests.fakes.kubernetes.pod_status import StatusWriter, running, terminated, waiting
from tests.fakes.kubernetes.settings import Image, Settings
from tests.fakes.kubernetes.storage import Store, now

#: Between two tries of what can still become right: a missing Secret, a refused image.
RETRY_S = 0.5
#: On a pod: seconds it "runs" without a process, and the exit code it then has.
SIMULATE = "fake.kubernetes/run-seconds"
SIMULATED_CODE = "fake.kubernetes/exit-code"


@dataclass
class Node:
    """A node's kubelet: whether it can reach the API server."""

    name: str
    lost: bool = False


@dataclass
class Tools:
    """What every pod's run uses."""

    store: Store
    settings: Settings
    images: Images
    events: Recorder
    folder: Path
    #: Files that containers with a read-only root left outside of their volumes.
    root_writes: list[str] = field(default_factory=list)


class PodRun:
    """The life of one pod on a node."""

    def __init__(self, pod: Object, node: Node, tools: Tools) -> None:
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self.node = node
        self._tools = tools
        self._status = StatusWriter(tools.store, pod)
        self._status.silent = lambda: node.lost or self.stuck
        self._root: Path = tools.folder / "pods" / self.uid
        spec = pod["spec"]
        self._main: list[Object] = spec["containers"][:1]
        self._initial: list[Object] = list(spec.get("initContainers") or [])
        self._steps = [*self._initial, *self._main]
        self._at = 0
        self._restarts = 0
        self._started = ""
        self._timer: asyncio.TimerHandle | None = None
        self._unreported: list[Callable[[], None]] = []
        self.container: AnyContainer | None = None
        self.stopping = False
        self.finished = False
        #: The kubelet neither reports nor confirms the pod's end.
        self.stuck = False
        #: Reason for the end of the container other than its exit code, e.g. ``OOMKilled``.
        self.cause = ""
        self._final = ("", "")
        self._last_state: dict[str, Any] = {}

    def log_path(self, container: str, *, previous: bool = False) -> Path:
        """A container's log, or that of its former run."""
        return self._root / "logs" / container / f"{max(0, self._restarts - previous)}.log"

    # --- the beginning -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take the pod on."""
        self._status.begin(self._main, self._initial)
        self._prepare()

    def _prepare(self) -> None:
        """Volumes and image; tried again until both are there."""
        if self.stopping or self.finished or self.node.lost:
            return
        container = self._steps[self._at]
        try:
            shared = self._tools.folder / "claims"
            self._folders = prepare_folders(self._tools.store, self.pod, root=self._root, shared=shared)
        except ConfigError as error:
            volume = f"MountVolume.SetUp failed for volume : {error}"
            self._event("FailedMount", volume, warning=True)
            self._later(RETRY_S, self._prepare)
            return
        self._event("Pulling", f'Pulling image "{container["image"]}"')
        self._later(self._tools.settings.pull_s, self._pull)

    def _pull(self) -> None:
        container = self._steps[self._at]
        try:
            image = self._tools.images.pull(container["image"])
        except PullError as error:
            self._refused(container, error)
            return
        seconds = f"{self._tools.settings.pull_s:.3f}s"
        text = f'Successfully pulled image "{container["image"]}" in {seconds} ({seconds} including waiting).'
        self._event("Pulled", text)
        self._start(container, image)

    def _refused(self, container: Object, error: PullError) -> None:
        if error.reason == "InvalidImageName":
            self._event("InspectFailed", error.message, warning=True)
            self._status.state(container, waiting("InvalidImageName", error.message))
            self._later(self._tools.settings.pull_backoff_s, self._pull)
            return
        self._event("Failed", f'Failed to pull image "{container["image"]}": {error.message}', warning=True)
        self._event("Failed", "Error: ErrImagePull", warning=True)
        self._status.state(container, waiting("ErrImagePull", error.message))
        self._later(self._tools.settings.pull_backoff_s / 2, lambda: self._back_off(container, error))

    def _back_off(self, container: Object, error: PullError) -> None:
        text = f'Back-off pulling image "{container["image"]}"'
        self._event("BackOff", text)
        self._event("Failed", "Error: ImagePullBackOff", warning=True)
        self._status.state(container, waiting("ImagePullBackOff", f"{text}: ErrImagePull: {error.message}"))
        self._later(self._tools.settings.pull_backoff_s / 2, self._prepare)

    def _start(self, container: Object, image: Image) -> None:
        if self.stopping or self.finished:
            return
        try:
            variables = resolve_variables(self._tools.store, self._current(), container)
        except ConfigError as error:
            self._event("Failed", f"Error: {error}", warning=True)
            self._status.state(container, waiting("CreateContainerConfigError", str(error)))
            self._later(RETRY_S, lambda: self._start(container, image))
            return
        self._started = now()
        self._event("Created", f"Container created: {container['name']}")
        try:
            self.container = self._spawn(container, image, variables)
        except OSError as error:
            self._cannot_start(container, error)
            return
        self._event("Started", f"Container started: {container['name']}")
        last = self._last_state if self._restarts else None
        self._status.state(container, running(self._started), restarts=self._restarts, last=last)

    def _spawn(self, container: Object, image: Image, variables: dict[str, str]) -> AnyContainer:
        log = self.log_path(container["name"])
        seconds = (self.pod["metadata"].get("annotations") or {}).get(SIMULATE, self._tools.settings.simulate_s)
        if seconds is not None:
            code = int((self.pod["metadata"].get("annotations") or {}).get(SIMULATED_CODE, 0))
            return SimulatedContainer(seconds=float(seconds), exit_code=code, log=log, on_end=self._ended)
        settings = self._tools.settings
        rewrite = Rewriter(self.pod, container, self._folders, settings.keep_paths)
        environment = process_environment(
            self._current(), variables, image=image, folders=self._folders, rewrite=rewrite, cluster=settings.folder
        )
        words = [*(container.get("command") or image.command), *(container.get("args") or [])]
        command = [rewrite(expand(word, variables)) for word in words]
        if not command:
            raise FileNotFoundError("no command specified")
        program = shutil.which(command[0], path=environment["PATH"])
        if program is None:
            raise FileNotFoundError(f'exec: "{command[0]}": executable file not found in $PATH')
        folder = Path(rewrite(container["workingDir"])) if container.get("workingDir") else self._folders.home
        folder = folder if folder.is_dir() else self._folders.home
        command[0] = program
        return Container(command, environment=environment, folder=folder, log=log, on_end=self._ended)

    def _cannot_start(self, container: Object, error: OSError) -> None:
        text = (
            f"failed to create containerd task: failed to create shim task: OCI runtime create failed: {error}: unknown"
        )
        self._event("Failed", f"Error: {text}", warning=True)
        state = terminated(128, started=self._started, container="", reason="StartError", message=text)
        self._status.state(container, state)
        self._finish("Failed")

    # --- the end -----------------------------------------------------------------------------------------------

    def _ended(self, code: int) -> None:
        """The container ended. What cannot be reported now is reported when the node is back."""
        container = self._steps[self._at]
        said = termination_message(container, code, log=self.log_path(container["name"]), folder=self._root)
        place = f"containerd://{self.uid}"
        state = terminated(code, started=self._started, container=place, reason=self.cause, message=said)
        if (container.get("securityContext") or {}).get("readOnlyRootFilesystem"):
            self._tools.root_writes += _files_in(self._root / "rootfs", self._root / "tmp")
        self._report(lambda: self._after(container, state, code))

    def _report(self, report: Callable[[], None]) -> None:
        if self._status.silent():
            self._unreported.append(report)
        else:
            run_guarded(report)

    def resume(self) -> None:
        """The node is back, or the pod no longer stuck: say what has happened meanwhile."""
        reports, self._unreported = self._unreported, []
        for report in reports:
            run_guarded(report)
        if self._status.current() is None:
            self.kill()
        elif not reports and self.container is None and not self.finished:
            self._prepare()

    def _after(self, container: Object, state: dict[str, Any], code: int) -> None:
        self.container = None
        self._status.state(container, state, restarts=self._restarts)
        if code == 0 and self._at < len(self._initial) and not self.stopping:
            self._at += 1
            if self._at == len(self._initial):
                self._status.initialized()
            self._prepare()
            return
        policy = self.pod["spec"]["restartPolicy"]
        if not self.stopping and (policy == "Always" or (policy == "OnFailure" and code)):
            self._restart(container, state)
            return
        self._finish("Succeeded" if code == 0 and self._final == ("", "") else "Failed")

    def _restart(self, container: Object, state: dict[str, Any]) -> None:
        self._restarts += 1
        self._last_state = state
        text = f"back-off restarting failed container={container['name']} pod={self.pod['metadata']['name']}"
        self._event("BackOff", f"Back-{text[5:]}", warning=True)
        self._status.state(container, waiting("CrashLoopBackOff", text), restarts=self._restarts, last=state)
        self._later(self._tools.settings.restart_backoff_s, self._pull)

    def _finish(self, phase: str) -> None:
        reason, message = self._final
        self.finished = True
        if self._timer is not None:
            self._timer.cancel()
        self._report(lambda: self._status.end(self._main, phase, reason=reason, message=message))
        self._report(self._confirm)

    def _confirm(self) -> None:
        """A pod that was being deleted is gone, as far as the node is concerned."""
        current = self._status.current()
        if current is not None and current["metadata"].get("deletionTimestamp"):
            self._status.write(lambda pod: pod["metadata"].update(deletionGracePeriodSeconds=0))

    # --- being stopped -----------------------------------------------------------------------------------------

    def stop(self, grace_s: float, *, reason: str = "", message: str = "") -> None:
        """End the pod; with a reason (eviction) it fails whatever its exit code is."""
        if self.finished:
            self._report(self._confirm)
            return
        if reason:
            self._final = (reason, message)
        first = not self.stopping
        self.stopping = True
        if self.container is None:
            self._finish("Failed")
            return
        if first:
            self._event("Killing", f"Stopping container {self._steps[self._at]['name']}")
        self.container.stop(grace_s)

    def kill(self) -> None:
        """SIGKILL, without ado: the object is gone, or the machine is."""
        self.stopping = True
        if self._timer is not None:
            self._timer.cancel()
        if self.container is not None:
            self.container.kill()

    def _current(self) -> Object:
        return self._status.current() or self.pod

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, run_guarded, work)

    def _event(self, reason: str, message: str, *, warning: bool = False) -> None:
        current = self._status.current()
        if current is not None and not self._status.silent():
            self._tools.events.event(current, reason, message, warning=warning, node=self.node.name)


def _files_in(*folders: Path) -> list[str]:
    return [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]
