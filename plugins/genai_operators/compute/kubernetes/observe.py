"""One look at an attempt: from the shared watch where that is connected, else by asking the cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genai_operators.compute.contract import Attempt
from genai_operators.compute.kubernetes import jobs, names, waiting
from genai_operators.compute.kubernetes.api import KubernetesApi
from genai_operators.compute.kubernetes.paths import Paths
from genai_operators.compute.kubernetes.phases import Observation, awaited_object
from genai_operators.compute.kubernetes.remembered import Remembered
from genai_operators.compute.kubernetes.watch import shared_watch
from genai_operators.exceptions import ConfigurationError

Json = Mapping[str, Any]

#: Events and the queue's words are for people: this old is new enough.
NEWS_AGE_S = 20.0
KUEUE_JOB_LABEL = "kueue.x-k8s.io/job-uid"

_events: Remembered[list[Json]] = Remembered(seconds=NEWS_AGE_S)
_workloads: Remembered[Json | None] = Remembered(seconds=NEWS_AGE_S)
_pending: Remembered[Sequence[Json]] = Remembered(seconds=NEWS_AGE_S)


@dataclass(frozen=True)
class Observer:
    """Looks at attempts of one namespace."""

    api: KubernetesApi
    paths: Paths

    def glance(self, attempt: Attempt) -> Observation | None:
        """What the shared watch has; ``None`` where it does not know enough, as of JobSets and TrainJobs."""
        watch = shared_watch(self.api, self.paths.namespace) if attempt.resources.nodes == 1 else None
        sight = watch.look(attempt.name) if watch is not None else None
        if sight is None or sight.job is None or not names.is_ours(sight.job, attempt):
            return None
        seen = Observation(job=sight.job, pods=sight.pods, departed=sight.departed)
        return self._with_news(self._with_start(seen, attempt))

    def look(self, attempt: Attempt) -> Observation:
        """What the cluster says now. A foreign object with the attempt's name is none of its."""
        path = self.paths.collection(attempt.resources)
        job = self.api.find(f"{path}/{attempt.name}")
        found = self.api.list(self.paths.pods, labels=names.selector(attempt)).items
        watch = shared_watch(self.api, self.paths.namespace)
        departed = watch.departed(attempt.name) if watch is not None else ()
        ours = job if job is not None and names.is_ours(job, attempt) else None
        return self._with_news(self._with_start(Observation(job=ours, pods=found, departed=departed), attempt))

    def _with_start(self, seen: Observation, attempt: Attempt) -> Observation:
        """Whether it has begun: asked only where the answer depends on it."""
        if seen.running or (seen.pods and seen.job is not None and jobs.view(seen.job).finished):
            return seen
        started = attempt.store.find_json(attempt.path("started.json"))
        return replace(seen, begun=started is not None, given_up=started is not None and started["process"] is None)

    def _with_news(self, seen: Observation) -> Observation:
        """Why it waits: events of what is pending, or the queue's view of a suspended Job."""
        awaited = awaited_object(seen)
        if awaited is not None:
            return replace(seen, events=self.events(awaited))
        if seen.job is not None and not seen.alive and jobs.view(seen.job).suspended:
            workload = self._workload(seen.job)
            return replace(seen, workload=workload, ahead=self._ahead(seen.job, workload))
        return seen

    def events(self, found: Json) -> Sequence[Json]:
        """Events of an object; none where we may not read them."""
        uid = found["metadata"]["uid"]
        return _events.get((self.api, uid), lambda: self._read(self.paths.events, fields=f"involvedObject.uid={uid}"))

    def _workload(self, job: Json) -> Json | None:
        uid = job["metadata"]["uid"]
        labels = f"{KUEUE_JOB_LABEL}={uid}"
        return _workloads.get(
            (self.api, uid), lambda: next(iter(self._read(self.paths.workloads, labels=labels)), None)
        )

    def _ahead(self, job: Json, workload: Json | None) -> int | None:
        """How many wait before it in the cluster's queue; ``None`` where that is not told."""
        queue = waiting.queue_of(job)
        if queue is None or workload is None:
            return None
        path, name = self.paths.pending(queue), workload["metadata"]["name"]
        listed = _pending.get((self.api, path), lambda: self._pending_in(path))
        positions = (each["positionInClusterQueue"] for each in listed if each["metadata"]["name"] == name)
        return next(positions, None)

    def _pending_in(self, path: str) -> Sequence[Json]:
        try:
            return (self.api.find(path) or {}).get("items") or []
        except ConfigurationError:
            return []

    def _read(self, path: str, *, labels: str = "", fields: str = "") -> list[Json]:
        """For people only: where it is not allowed, or there is no such API, the probe says less."""
        try:
            return self.api.list(path, labels=labels, fields=fields).items
        except ConfigurationError:
            return []
