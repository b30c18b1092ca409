"""What was left in a cluster: objects of ours that nobody looks after any more.

Controllers and reconcilers remove what they know of. What they cannot know of is found here, by label: a Job that was
created by a request still on its way when its attempt was given up; one whose store was removed; pods that somebody
left without their Job; a finished TrainJob, which Kubeflow keeps for ever. Objects of another store's controller carry
another label and are never touched.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from genai_operators.compute.contract import Attempt
from genai_operators.compute.kubernetes import jobs, names, pods
from genai_operators.compute.kubernetes.api import KubernetesApi
from genai_operators.compute.kubernetes.paths import Paths
from genai_operators.compute.kubernetes.settings import DAY_S
from genai_operators.exceptions import ConfigurationError
from genai_operators.store import Store

Json = Mapping[str, Any]

#: A younger object may belong to something that is just being written down.
YOUNG_S = 600.0
#: An attempt's object may outlive its recorded end by this: its pods have a grace, and controllers their own pace.
LINGER_S = 600.0


@dataclass(frozen=True)
class Orphan:
    """An object that should not be there. :param path: in the API. :param why: a sentence for people."""

    path: str
    kind: str
    name: str
    uid: str
    why: str

    def describe(self) -> str:
        """In a line."""
        return f"{self.kind} {self.name}: {self.why}"


@dataclass(frozen=True)
class OrphanSearch:
    """Looks through one namespace for what belongs to ``store``.

    :param ttl_s: how long a finished TrainJob can be looked at; other objects have a time to live of their own.
    """

    api: KubernetesApi
    paths: Paths
    store: Store
    ttl_s: float = DAY_S

    def find(self, *, now: float | None = None) -> list[Orphan]:
        """All orphans. :param now: seconds since the epoch, for tests."""
        moment = time.time() if now is None else now
        return [*self._objects(moment), *self._pods(moment)]

    def remove(self, orphan: Orphan) -> bool:
        """Delete it with its pods. ``False``: it was gone already."""
        propagation = "Background" if orphan.kind == "Pod" else "Foreground"
        return self.api.delete(orphan.path, uid=orphan.uid, propagation=propagation)

    @property
    def _selector(self) -> str:
        return f"{names.MANAGED_SELECTOR},{names.STORE_LABEL}={names.store_label(self.store)}"

    def _objects(self, now: float) -> Iterator[Orphan]:
        for kind, path in (
            ("Job", self.paths.jobs),
            ("JobSet", self.paths.jobsets),
            ("TrainJob", self.paths.train_jobs),
        ):
            for found in self._list(path, optional=kind != "Job"):
                if found["metadata"].get("ownerReferences"):
                    continue  # a Job of a JobSet goes with that
                why = self._why_orphaned(found, now) or (self._why_stale(found, now) if kind == "TrainJob" else "")
                if why:
                    yield _orphan(found, kind=kind, path=path, why=why)

    def _pods(self, now: float) -> Iterator[Orphan]:
        for found in self._list(self.paths.pods, optional=False):
            owned, terminal = found["metadata"].get("ownerReferences"), pods.is_terminal(found)
            if not owned and not terminal and _age_s(found, now) > YOUNG_S:
                yield _orphan(found, kind="Pod", path=self.paths.pods, why="its Job is gone")

    def _list(self, path: str, *, optional: bool) -> list[Json]:
        """:param optional: a cluster need not have that kind, or let us read it."""
        try:
            return self.api.list(path, labels=self._selector).items
        except ConfigurationError:
            if optional:
                return []
            raise

    def _why_stale(self, found: Json, now: float) -> str:
        view = jobs.view(found)
        finished_s = now - view.since if (view.complete or view.failed) and view.since is not None else 0.0
        return f"it finished {finished_s / 3600:.0f} hours ago" if finished_s > self.ttl_s else ""

    def _why_orphaned(self, found: Json, now: float) -> str:
        view = jobs.view(found)
        if view.finished or _age_s(found, now) < YOUNG_S:
            return ""  # what has finished goes by its own time to live
        attempt = _attempt(found, self.store)
        if attempt is None or not self.store.exists(attempt.path("claim.json")):
            return f"{self.store.uri} has no claim for it"
        ended_at = _recorded_end(attempt)
        if ended_at is not None and now - ended_at > LINGER_S:
            return f"its attempt ended {(now - ended_at) / 60:.0f} minutes ago"
        if not self.store.list_names(f"{attempt.directory}/owners"):
            cancelled = self.store.find_json(attempt.path("cancel.json"))
            asked_at = None if cancelled is None else float(cancelled["at"])
            if asked_at is None or now - asked_at > LINGER_S:
                return "no task wants it any more"
        return ""


def _recorded_end(attempt: Attempt) -> float | None:
    """When it ended for good, in seconds since the epoch; ``None`` while it may go on."""
    record = attempt.store.find_json(attempt.path("exit.json"))
    if record is None:
        started = attempt.store.find_json(attempt.path("started.json"))
        record = started if started is not None and started["process"] is None else None
    return None if record is None else float(record.get("at") or 0.0)


def _attempt(found: Json, store: Store) -> Attempt | None:
    metadata = found["metadata"]
    directory = (metadata.get("annotations") or {}).get(names.DIRECTORY_ANNOTATION)
    number = str((metadata.get("labels") or {}).get(names.ATTEMPT_LABEL) or "")
    if not directory or not number.isdigit():
        return None
    return Attempt(store=store, directory=directory, number=int(number))


def _age_s(found: Json, now: float) -> float:
    return now - (pods.seconds(found["metadata"].get("creationTimestamp")) or now)


def _orphan(found: Json, *, kind: str, path: str, why: str) -> Orphan:
    metadata = found["metadata"]
    return Orphan(path=f"{path}/{metadata['name']}", kind=kind, name=metadata["name"], uid=metadata["uid"], why=why)
