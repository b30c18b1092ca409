"""What etcd and its watch cache do: objects, one growing resource version, a bounded history, listeners."""

from __future__ import annotations

import json
import secrets
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tests.fakes.kubernetes import errors
from tests.fakes.kubernetes.kinds import JOBS, PODS, Kind, Object

#: Changes kept for watches; older resource versions answer 410.
HISTORY = 20_000
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
Key = tuple[str, str]


def now() -> str:
    """This second, as Kubernetes writes it."""
    return timestamp(time.time())


def timestamp(moment: float) -> str:
    """RFC 3339 in seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def micro_now() -> str:
    """RFC 3339 in microseconds (``MicroTime``)."""
    moment = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{int(moment % 1 * 1e6):06d}Z"


def copy_of(value: Any) -> Any:
    """A deep copy of JSON, several times quicker than :func:`copy.deepcopy`."""
    return json.loads(json.dumps(value))


def random_suffix(length: int = 5) -> str:
    """What ``generateName`` appends."""
    return "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(length))


@dataclass(frozen=True)
class Change:
    """One write. The objects are shared: nobody may change them."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    kind: Kind
    object: Object
    previous: Object | None
    revision: int


class Store:
    """All objects. Stored ones are never changed in place; :meth:`update` writes a new version."""

    def __init__(self) -> None:
        self.revision = 1000
        #: Watches from before this revision answer 410.
        self.compacted = 0
        self.created: Counter[str] = Counter()
        self._objects: dict[Kind, dict[Key, Object]] = {}
        self._history: deque[Change] = deque()
        self._listeners: list[Callable[[Change], None]] = []

    def listen(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Call ``listener`` on every change; returns how to stop it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, shared, or None."""
        return self._objects.get(kind, {}).get((namespace, name))

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """The object, shared. Raises 404."""
        found = self.find(kind, namespace, name)
        if found is None:
            raise errors.not_found(kind, name)
        return found

    def all(self, kind: Kind, namespace: str | None = None) -> list[Object]:
        """Every object of a kind, shared, ordered by name; ``None`` means every namespace."""
        keyed = self._objects.get(kind, {})
        return [keyed[key] for key in sorted(keyed) if namespace is None or key[0] == namespace]

    def since(self, revision: int) -> Iterator[Change]:
        """Changes after a revision. Raises 410 when they are no longer known."""
        if revision < self.compacted:
            raise errors.expired(f"too old resource version: {revision} ({self.revision})")
        return (change for change in list(self._history) if change.revision > revision)

    def compact(self) -> None:
        """Forget the history, as etcd does every five minutes."""
        self._history.clear()
        self.compacted = self.revision

    def create(self, kind: Kind, given: Object) -> Object:
        """Store a new object. The caller has validated and defaulted it. Raises 409."""
        made = copy_of(given)
        meta = made.setdefault("metadata", {})
        if not meta.get("name"):
            meta["name"] = meta.get("generateName", "") + random_suffix()
        key = (meta.get("namespace", ""), meta["name"])
        if key in self._objects.setdefault(kind, {}):
            raise errors.already_exists(kind, meta["name"])
        meta.setdefault("uid", str(uuid.uuid4()))
        meta["creationTimestamp"] = now()
        if kind in (JOBS, PODS) or kind.custom:
            meta["generation"] = 1
        made.update(apiVersion=kind.api_version, kind=kind.name)
        self.created[kind.plural] += 1
        return self._write("ADDED", kind, made, None)

    def update(
        self, kind: Kind, namespace: str, name: str, change: Callable[[Object], None], *, version: str | None = None
    ) -> Object:
        """Apply ``change`` to a copy and store it; an unchanged object keeps its version. Raises 404, 409."""
        current = self.get(kind, namespace, name)
        if version and version != current["metadata"]["resourceVersion"]:
            raise errors.stale(kind, name)
        changed = copy_of(current)
        change(changed)
        if changed == current:
            return current
        if "generation" in current["metadata"] and changed.get("spec") != current.get("spec"):
            changed["metadata"]["generation"] = current["metadata"]["generation"] + 1
        if _is_finally_gone(kind, changed):
            return self._remove(kind, changed, current)
        return self._write("MODIFIED", kind, changed, current)

    def remove(self, kind: Kind, namespace: str, name: str) -> Object:
        """Take the object away at once."""
        current = self.get(kind, namespace, name)
        return self._remove(kind, copy_of(current), current)

    def _remove(self, kind: Kind, last: Object, previous: Object) -> Object:
        del self._objects[kind][(last["metadata"].get("namespace", ""), last["metadata"]["name"])]
        return self._publish("DELETED", kind, last, previous)

    def _write(self, type_: Literal["ADDED", "MODIFIED"], kind: Kind, made: Object, previous: Object | None) -> Object:
        meta = made["metadata"]
        self._objects.setdefault(kind, {})[(meta.get("namespace", ""), meta["name"])] = made
        return self._publish(type_, kind, made, previous)

    def _publish(
        self, type_: Literal["ADDED", "MODIFIED", "DELETED"], kind: Kind, made: Object, previous: Object | None
    ) -> Object:
        self.revision += 1
        made["metadata"]["resourceVersion"] = str(self.revision)
        change = Change(type_, kind, made, previous, self.revision)
        self._history.append(change)
        if len(self._history) > HISTORY:
            self.compacted = self._history.popleft().revision
        for listener in list(self._listeners):
            listener(change)
        return made


def _is_finally_gone(kind: Kind, made: Object) -> bool:
    meta = made["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    return kind is not PODS or not meta.get("deletionGracePeriodSeconds")
