"""The control client's eyes: figures, objects, logs and waiting. Talks over loopback, never over the API's port."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from typing import Any

WAIT_S = 30.0
POLL_S = 0.02


class ControlError(Exception):
    """The server refused a command."""


class Observer:
    """Sees a fake cluster from inside, also while its API is away."""

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

    def root_writes(self) -> list[str]:
        """Files that containers with ``readOnlyRootFilesystem`` wrote outside of their volumes (a real one fails)."""
        return list(self.call("root_writes"))

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
