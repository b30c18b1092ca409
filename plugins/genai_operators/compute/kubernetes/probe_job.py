"""A short Job with the workload image: can it be pulled, and does a pod reach the object store?

The same pod that a training gets, restrictions and credentials included, but for its command. Nothing of it stays.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genai_operators.compute.contract import Attempt, Phase
from genai_operators.compute.kubernetes import jobs, pods, waiting
from genai_operators.compute.kubernetes.api import KubernetesApi
from genai_operators.compute.kubernetes.findings import Finding, State
from genai_operators.compute.kubernetes.manifest import manifest
from genai_operators.compute.kubernetes.observe import Observer
from genai_operators.compute.kubernetes.paths import Paths
from genai_operators.compute.kubernetes.phases import Observation, classify
from genai_operators.compute.kubernetes.pod import PodRequest, pod_template
from genai_operators.compute.kubernetes.settings import KubernetesSettings
from genai_operators.compute.resources import GIB, Resources
from genai_operators.compute.store_probe import CONTENT
from genai_operators.exceptions import GenaiError
from genai_operators.store import Store

IMAGE, STORE = "image pull", "object store, from a pod"
POLL_S = 0.5
#: A large image on a new node takes minutes.
TIMEOUT_S = 600.0
GRACE_S = 5.0
#: Kept so long where nobody lived to delete it.
TTL_S = 600
RESOURCES = Resources(cpu=0.25, memory_bytes=GIB)
LOG_LINES = 5
#: Reasons of a probe by which the Job cannot make its pod.
NO_POD = frozenset({"FailedCreate", "quota"})
PULL_FIX = """\
# Is the name right, and did you push it? For a private registry, in the namespace of the jobs:
#   kubectl create secret docker-registry registry --docker-server=... --docker-username=... --docker-password=...
# and in the settings of compute: image_pull_secrets: [registry]"""
STORE_FIX = """\
# The pod's credentials: a service account with workload identity, or a Secret that the settings of compute name:
#   kubectl create secret generic object-store --from-env-file=FILE-WITH-AWS_ACCESS_KEY_ID-AND-SO-ON
#   env_from_secrets: [object-store]
# Another address inside the cluster: env: {AWS_ENDPOINT_URL: ...}, or store_in_pod. A NetworkPolicy must let it out
# (docker/kubernetes/network.yaml lets HTTPS out to the internet, and nothing else)."""


@dataclass(frozen=True)
class ProbeJob:
    """:param store: as Airflow sees it. :param timeout_s: from its creation to its end, image pull included."""

    api: KubernetesApi
    settings: KubernetesSettings
    store: Store
    timeout_s: float = TIMEOUT_S

    def run(self) -> list[Finding]:
        """One finding for the image, one for the store."""
        token = secrets.token_hex(8)
        attempt = Attempt(
            store=self.store,
            directory=f"workloads/check/{token}",
            number=1,
            claim={"resources": RESOURCES.to_json()},
        )
        path = f"check/{token}"
        collection = self._paths.jobs
        try:
            self.api.create(collection, self._manifest(attempt, path))
            try:
                return self._judge(self._ended(attempt), path)
            finally:
                self._remove(f"{collection}/{attempt.name}")
        except GenaiError as error:
            return [Finding(State.MISSING, IMAGE, f"the check's Job cannot run: {error}")]

    @property
    def _paths(self) -> Paths:
        return Paths(self.settings.namespace)

    def _manifest(self, attempt: Attempt, path: str) -> dict[str, Any]:
        settings = replace(self.settings, queue=None, ttl_s=TTL_S)
        request = PodRequest(attempt=attempt, settings=settings, grace_s=GRACE_S)
        uri = settings.store_in_pod or self.store.uri
        command = [settings.python, "-m", "genai_operators.compute.store_probe", "--store", uri, "--path", path]
        made = manifest(request)
        return {**made, "spec": {**made["spec"], "template": pod_template(request, command)}}

    def _ended(self, attempt: Attempt) -> Observation:
        """The last look: at its end, when it waits for what will not come, or when time is up."""
        observer = Observer(self.api, self._paths)
        deadline = time.monotonic() + self.timeout_s
        while True:
            seen = observer.look(attempt)
            finished = seen.job is None or jobs.view(seen.job).finished
            if (finished and not seen.alive) or _is_hopeless(seen) or time.monotonic() > deadline:
                return seen
            time.sleep(POLL_S)

    def _judge(self, seen: Observation, path: str) -> list[Finding]:
        probe = classify(seen, now=time.time())
        pulled = any(pods.container_state(pod)[0] in ("running", "terminated") for pod in seen.pods)
        if _refused(seen):
            return [
                Finding(State.MISSING, IMAGE, f"{self.settings.image}: {_refused(seen)}", PULL_FIX),
                Finding(State.SKIPPED, STORE, "no pod could be started"),
            ]
        if not pulled:
            told = probe.detail or probe.reason or probe.phase.value
            return [
                Finding(State.MISSING, IMAGE, f"no pod has started: {told}"),
                Finding(State.SKIPPED, STORE, "no pod could be started"),
            ]
        image = Finding(State.FINE, IMAGE, self.settings.image)
        if probe.phase is not Phase.SUCCEEDED:
            return [image, Finding(State.MISSING, STORE, self._last_words(seen.pods) or probe.detail, STORE_FIX)]
        return [image, self._seen_from_here(path)]

    def _seen_from_here(self, path: str) -> Finding:
        """What the pod wrote must be there for Airflow, too: they may have been told of two stores."""
        uri = self.store.uri_of(path)
        if not self.store.exists(path) or self.store.get(path) != CONTENT:
            told = self.settings.store_in_pod or self.store.uri
            return Finding(
                State.MISSING, STORE, f"a pod wrote to {told}, but {uri} is not there: these are two stores", STORE_FIX
            )
        self.store.delete(path)
        return Finding(State.FINE, STORE, f"{self.store.uri}: written by a pod, read here; create-only writes hold")

    def _last_words(self, found: Sequence[Mapping[str, Any]]) -> str:
        if not found:
            return ""
        log = self.api.text(f"{self._paths.pods}/{pods.name(found[-1])}/log", tailLines=LOG_LINES)
        return log.strip() or pods.last_words(pods.container_state(found[-1])[1])

    def _remove(self, path: str) -> None:
        found = self.api.find(path)
        if found is not None:
            self.api.delete(path, uid=found["metadata"]["uid"])


def _is_hopeless(seen: Observation) -> bool:
    """Whether a person has to do something before it can start."""
    if _refused(seen):
        return True
    probe = classify(seen, now=time.time())
    return probe.error is not None or (not seen.pods and probe.reason in NO_POD)


def _refused(seen: Observation) -> str:
    """What the registry, or the kubelet, said of the image; empty while nothing is wrong with it."""
    for pod in seen.alive:
        kind, told = pods.container_state(pod)
        if kind == "waiting" and told.get("reason") in waiting.IMAGE_TROUBLE | waiting.NO_SUCH_IMAGE:
            return f"{told['reason']}: {told.get('message') or ''}".rstrip(": ")
    return ""
