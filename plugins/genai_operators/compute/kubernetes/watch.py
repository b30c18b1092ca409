"""One shared watch of our Jobs and pods in a namespace, so that looking at 200 attempts costs no 200 requests.

A process that looks at a namespace again and again gets two daemon threads, each a list followed by a watch; whoever
probes reads what they have gathered. They end by themselves when nobody has looked for a while. Nothing relies on them:
while one is not connected, whoever probes asks the cluster directly.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from genai_operators.compute.kubernetes.api import Expired, KubernetesApi
from genai_operators.compute.kubernetes.names import DIRECTORY_ANNOTATION, MANAGED_SELECTOR, NAME_LABEL
from genai_operators.exceptions import ClusterUnavailable, GenaiError

Json = Mapping[str, Any]

#: The server ends a watch after this long; so a connection that died unnoticed is noticed.
WATCH_S = 60
#: Nobody has looked for this long: the threads end.
IDLE_S = 180.0
#: So many looks within so many seconds make a watch worth its two connections.
LOOKS, WITHIN_S = 3, 30.0
#: A pod that was removed is remembered for this long: what it cost, and why it went.
REMEMBER_S = 1800.0
#: A connection that is cut is made anew at once; a cluster that is away is given time.
BACKOFF_S = (0.1, 15.0)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sight:
    """What the watch has of an attempt: its Job, its pods, and pods that were removed a while ago."""

    job: Json | None
    pods: tuple[Json, ...]
    departed: tuple[Json, ...]


class Collection:
    """Objects of one kind, kept up to date by a thread of its own. Safe for several threads."""

    def __init__(self, api: KubernetesApi, path: str, *, wanted: Callable[[], bool]) -> None:
        """:param wanted: whether anybody still looks; the thread ends when not."""
        self._api = api
        self._path = path
        self._wanted = wanted
        self._lock = threading.Lock()
        self._objects: dict[str, dict[str, Json]] = {}
        self._departed: dict[str, dict[str, tuple[float, Json]]] = {}
        self._version = ""
        self.fresh = False
        self._thread = threading.Thread(target=self._run, name=f"watch {path}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread goes on."""
        return self._thread.is_alive()

    def named(self, name: str) -> tuple[Json, ...]:
        """The objects of an attempt."""
        with self._lock:
            return tuple(self._objects.get(name, {}).values())

    def departed(self, name: str) -> tuple[Json, ...]:
        """Its objects that were removed, as they were last seen."""
        with self._lock:
            return tuple(found for _, found in self._departed.get(name, {}).values())

    def _run(self) -> None:
        try:
            self._follow()
        finally:  # however it ended: what nobody updates must not be believed
            self.fresh = False

    def _follow(self) -> None:
        """Until nobody looks any more. The connection may break as often as it likes."""
        pause_s = BACKOFF_S[0]
        while self._wanted():
            try:
                self._connect()
                pause_s = BACKOFF_S[0]
            except Expired:
                self.fresh, self._version = False, ""
            except GenaiError as error:
                self.fresh = False
                level = logging.INFO if isinstance(error, ClusterUnavailable) else logging.WARNING
                _log.log(level, "watch of %s: %s; looking again in %.1f s", self._path, error, pause_s)
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, BACKOFF_S[1])

    def _connect(self) -> None:
        """List unless a version is known to go on from, then apply events until the server ends the watch."""
        if not self._version:
            listing = self._api.list(self._path, labels=MANAGED_SELECTOR)
            self._replace(listing.items)
            self._version = listing.version
        events = self._api.watch(self._path, labels=MANAGED_SELECTOR, version=self._version, timeout_s=WATCH_S)
        self.fresh = True
        for event in events:
            self._apply(event)
            if not self._wanted():
                break

    def _replace(self, items: list[Json]) -> None:
        with self._lock:
            before, self._objects = self._objects, {}
            for found in items:
                self._keep(found)
            for name, found_before in before.items():
                for uid, found in found_before.items():
                    if uid not in self._objects.get(name, {}):
                        self._depart(name, uid, found)

    def _apply(self, event: Json) -> None:
        found = event["object"]
        self._version = str(found["metadata"].get("resourceVersion") or self._version)
        if event["type"] == "BOOKMARK":
            return
        name, uid = attempt_name(found), found["metadata"]["uid"]
        with self._lock:
            if event["type"] == "DELETED":
                self._objects.get(name, {}).pop(uid, None)
                if not self._objects.get(name):
                    self._objects.pop(name, None)
                self._depart(name, uid, trim(found))
            else:
                self._keep(found)

    def _keep(self, found: Json) -> None:
        self._objects.setdefault(attempt_name(found), {})[found["metadata"]["uid"]] = trim(found)

    def _depart(self, name: str, uid: str, found: Json) -> None:
        now = time.monotonic()
        self._departed.setdefault(name, {})[uid] = (now, found)
        stale = [each for each, gone in self._departed.items() if all(now - at > REMEMBER_S for at, _ in gone.values())]
        for each in stale:
            del self._departed[each]


class NamespaceWatch:
    """Our Jobs and pods of one namespace."""

    def __init__(self, api: KubernetesApi, namespace: str) -> None:
        self._looked = time.monotonic()
        self._ended = False
        self._jobs = Collection(api, f"/apis/batch/v1/namespaces/{namespace}/jobs", wanted=self._wanted)
        self._pods = Collection(api, f"/api/v1/namespaces/{namespace}/pods", wanted=self._wanted)

    def look(self, name: str) -> Sight | None:
        """What is known of an attempt; ``None`` while that may be out of date."""
        self._looked = time.monotonic()
        if not (self._jobs.fresh and self._pods.fresh):
            return None
        job = next(iter(self._jobs.named(name)), None)
        return Sight(job=job, pods=self._pods.named(name), departed=self._pods.departed(name))

    @property
    def alive(self) -> bool:
        """Whether its threads go on."""
        return self._wanted() and self._jobs.alive and self._pods.alive

    def departed(self, name: str) -> tuple[Json, ...]:
        """Pods of an attempt that were removed."""
        return self._pods.departed(name)

    def end(self) -> None:
        """Let the threads end as soon as their connections do."""
        self._ended = True

    def _wanted(self) -> bool:
        return not self._ended and time.monotonic() - self._looked < IDLE_S


_Key = tuple[int, KubernetesApi, str]
_watches: dict[_Key, NamespaceWatch] = {}
_looks: dict[_Key, list[float]] = {}
_lock = threading.Lock()


def shared_watch(api: KubernetesApi, namespace: str) -> NamespaceWatch | None:
    """The watch of this process; ``None`` until it pays to have one. To be called once a look."""
    key, now = (os.getpid(), api, namespace), time.monotonic()
    with _lock:
        watch = _watches.get(key)
        if watch is not None and watch.alive:
            return watch
        looks = [at for at in _looks.get(key, []) if now - at < WITHIN_S] + [now]
        _looks[key] = looks[-LOOKS:]
        if len(looks) < LOOKS:
            return None
        _watches[key] = NamespaceWatch(api, namespace)
        return _watches[key]


def end_watches() -> None:
    """End all watches of this process: for tests and benchmarks that begin anew."""
    with _lock:
        for watch in _watches.values():
            watch.end()
        _watches.clear()
        _looks.clear()


def attempt_name(found: Json) -> str:
    """Which attempt an object of ours belongs to."""
    metadata = found["metadata"]
    return str((metadata.get("labels") or {}).get(NAME_LABEL) or metadata["name"])


_METADATA = ("name", "uid", "labels", "resourceVersion", "creationTimestamp", "deletionTimestamp")
_STATUS = (
    "phase",
    "reason",
    "message",
    "conditions",
    "containerStatuses",
    "startTime",
    "active",
    "failed",
    "succeeded",
)
_CONTAINER = ("name", "state", "restartCount")


def trim(found: Json) -> Json:
    """What we read of an object: a fifth of it. 200 of them stay in memory."""
    metadata, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
    annotations = metadata.get("annotations") or {}
    kept = {each: status[each] for each in _STATUS if each in status}
    if "containerStatuses" in kept:
        kept["containerStatuses"] = [
            {each: told[each] for each in _CONTAINER if each in told} for told in kept["containerStatuses"]
        ]
    return {
        "kind": found.get("kind"),
        "metadata": {
            **{each: metadata[each] for each in _METADATA if each in metadata},
            "annotations": {name: annotations[name] for name in (DIRECTORY_ANNOTATION,) if name in annotations},
        },
        "spec": {each: spec[each] for each in ("suspend", "nodeName", "terminationGracePeriodSeconds") if each in spec},
        "status": kept,
    }
