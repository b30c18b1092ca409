"""Deleting: preconditions, grace, propagation and the garbage collector."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.kubernetes import errors
from tests.fakes.kubernetes.kinds import EVENTS, JOBS, KINDS, PODS, Kind, Object
from tests.fakes.kubernetes.storage import Change, Store, now, timestamp

#: Events are many, own nothing and belong to nobody.
_OWNABLE = tuple(kind for kind in KINDS if kind is not EVENTS)
FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
ORPHANED_PODS_WARNING = (
    '299 - "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove '
    'them or set propagationPolicy=Orphan to suppress this warning"'
)


def is_terminal(pod: Object) -> bool:
    """Whether the pod has ended."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def delete(store: Store, kind: Kind, namespace: str, name: str, options: Mapping[str, Any]) -> Object:
    """Begin to delete, or delete. Returns the last version; raises 404 and 409."""
    current = store.get(kind, namespace, name)
    _check_preconditions(kind, current, options.get("preconditions") or {})
    finalizer = _propagation_finalizer(kind, options)
    grace = _grace_s(kind, current, options)

    def mark(made: Object) -> None:
        meta = made["metadata"]
        if finalizer and not meta.get("deletionTimestamp"):
            meta["finalizers"] = sorted({*(meta.get("finalizers") or []), finalizer})
        if not meta.get("deletionTimestamp") or grace < (meta.get("deletionGracePeriodSeconds") or 0):
            meta["deletionTimestamp"] = timestamp(time.time() + grace)
            meta["deletionGracePeriodSeconds"] = grace

    already = bool(current["metadata"].get("deletionTimestamp"))
    if already and grace >= (current["metadata"].get("deletionGracePeriodSeconds") or 0) and grace:
        return current
    return store.update(kind, namespace, name, mark)


def _check_preconditions(kind: Kind, current: Object, wanted: Mapping[str, Any]) -> None:
    meta = current["metadata"]
    name = meta["name"]
    uid, version = wanted.get("uid"), wanted.get("resourceVersion")
    if uid and uid != meta["uid"]:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {meta['uid']}"
        raise errors.conflict(kind, name, why)
    if version and version != meta["resourceVersion"]:
        why = (
            f"Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: "
            f"{meta['resourceVersion']}"
        )
        raise errors.conflict(kind, name, why)


def default_propagation(kind: Kind) -> str:
    """A Job's pods are orphaned unless the caller says otherwise (the real API's compatibility rule)."""
    return "Orphan" if kind is JOBS else "Background"


def _propagation_finalizer(kind: Kind, options: Mapping[str, Any]) -> str | None:
    policy = options.get("propagationPolicy") or default_propagation(kind)
    if options.get("orphanDependents") is not None:
        policy = "Orphan" if options["orphanDependents"] else "Background"
    if policy not in ("Foreground", "Background", "Orphan"):
        cause = ("propagationPolicy", "FieldValueInvalid", f'Invalid value: "{policy}"')
        raise errors.invalid(Kind("meta.k8s.io", "v1", "DeleteOptions", ""), "", [cause])
    return {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(policy)


def _grace_s(kind: Kind, current: Object, options: Mapping[str, Any]) -> int:
    """Only pods are deleted gracefully; one that ended, or that no node has, needs none."""
    if kind is not PODS or is_terminal(current) or not current["spec"].get("nodeName"):
        return 0
    asked = options.get("gracePeriodSeconds")
    default = current["spec"].get("terminationGracePeriodSeconds", 30)
    return max(0, int(default if asked is None else asked))


class GarbageCollector:
    """Deletes what has lost its last owner; carries out foreground and orphan deletion."""

    def __init__(self, store: Store, later: Callable[[Callable[[], None]], None]) -> None:
        self._store = store
        self._later = later
        store.listen(self._on_change)

    def _on_change(self, change: Change) -> None:
        meta = change.object["metadata"]
        if change.type == "DELETED":
            self._later(lambda: self._owner_gone(meta["uid"]))
            for owner in meta.get("ownerReferences") or []:
                self._later(lambda uid=owner["uid"]: self._dependent_gone(uid))  # type: ignore[misc]
        elif meta.get("deletionTimestamp") and (finalizers := meta.get("finalizers")):
            if ORPHAN in finalizers:
                self._later(lambda: self._orphan(change.kind, meta))
            elif FOREGROUND in finalizers:
                self._later(lambda: self._foreground(change.kind, meta))
        elif change.type == "ADDED" and meta.get("ownerReferences"):
            self._later(lambda: self._check_owners(change.kind, meta))

    def _dependents(self, uid: str) -> list[tuple[Kind, Object]]:
        return [
            (kind, made)
            for kind in _OWNABLE
            for made in self._store.all(kind)
            if any(owner["uid"] == uid for owner in made["metadata"].get("ownerReferences") or [])
        ]

    def _uids(self) -> set[str]:
        return {made["metadata"]["uid"] for kind in _OWNABLE for made in self._store.all(kind)}

    def _check_owners(self, kind: Kind, meta: Mapping[str, Any]) -> None:
        alive = self._uids()
        if not any(owner["uid"] in alive for owner in meta["ownerReferences"]):
            self._delete(kind, meta, "Background")

    def _owner_gone(self, uid: str) -> None:
        for kind, made in self._dependents(uid):
            owners = made["metadata"]["ownerReferences"]
            if len(owners) == 1:
                self._delete(kind, made["metadata"], "Background")
            else:
                self._drop_owner(kind, made, uid)

    def _dependent_gone(self, uid: str) -> None:
        for kind in _OWNABLE:
            for made in self._store.all(kind):
                meta = made["metadata"]
                if meta["uid"] == uid and FOREGROUND in (meta.get("finalizers") or []):
                    self._foreground(kind, meta)
                    return

    def _orphan(self, kind: Kind, meta: Mapping[str, Any]) -> None:
        for dependent_kind, made in self._dependents(meta["uid"]):
            self._drop_owner(dependent_kind, made, meta["uid"])
        self._drop_finalizer(kind, meta, ORPHAN)

    def _foreground(self, kind: Kind, meta: Mapping[str, Any]) -> None:
        waiting = [
            (dependent_kind, made)
            for dependent_kind, made in self._dependents(meta["uid"])
            if any(
                owner["uid"] == meta["uid"] and owner.get("blockOwnerDeletion")
                for owner in made["metadata"]["ownerReferences"]
            )
        ]
        for dependent_kind, made in waiting:
            if not made["metadata"].get("deletionTimestamp"):
                self._delete(dependent_kind, made["metadata"], "Foreground")
        if not waiting:
            self._drop_finalizer(kind, meta, FOREGROUND)

    def _delete(self, kind: Kind, meta: Mapping[str, Any], policy: str) -> None:
        options = {"propagationPolicy": policy, "preconditions": {"uid": meta["uid"]}}
        try:
            delete(self._store, kind, meta.get("namespace", ""), meta["name"], options)
        except errors.ApiError:
            return  # gone, or another object of that name by now

    def _drop_owner(self, kind: Kind, made: Object, uid: str) -> None:
        def drop(changed: Object) -> None:
            owners = changed["metadata"].get("ownerReferences") or []
            changed["metadata"]["ownerReferences"] = [owner for owner in owners if owner["uid"] != uid]
            if not changed["metadata"]["ownerReferences"]:
                del changed["metadata"]["ownerReferences"]

        self._store.update(kind, made["metadata"].get("namespace", ""), made["metadata"]["name"], drop)

    def _drop_finalizer(self, kind: Kind, meta: Mapping[str, Any], finalizer: str) -> None:
        current = self._store.find(kind, meta.get("namespace", ""), meta["name"])
        if current is not None and current["metadata"]["uid"] == meta["uid"]:
            remove_finalizer(self._store, kind, current, finalizer)


def remove_finalizer(store: Store, kind: Kind, made: Object, finalizer: str) -> None:
    """Let go of an object; it disappears when it was being deleted and this was the last hold."""

    def drop(changed: Object) -> None:
        kept = [one for one in changed["metadata"].get("finalizers") or [] if one != finalizer]
        changed["metadata"].pop("finalizers", None)
        if kept:
            changed["metadata"]["finalizers"] = kept

    store.update(kind, made["metadata"].get("namespace", ""), made["metadata"]["name"], drop)


def set_condition(
    status: Object, type_: str, value: str, *, reason: str = "", message: str = "", probe: bool = False
) -> None:
    """Set one condition; the transition time changes with the value only."""
    conditions = status.setdefault("conditions", [])
    moment = now()
    entry = next((one for one in conditions if one["type"] == type_), None)
    if entry is None:
        entry = {"type": type_, "lastTransitionTime": moment}
        conditions.append(entry)
    if entry.get("status") != value:
        entry["lastTransitionTime"] = moment
    entry["status"] = value
    if probe:
        entry["lastProbeTime"] = moment
    for field, text in (("reason", reason), ("message", message)):
        entry.pop(field, None)
        if text:
            entry[field] = text


def condition_of(made: Object, type_: str) -> Object | None:
    """A condition that is True, if it is there."""
    for one in (made.get("status") or {}).get("conditions") or []:
        if one["type"] == type_ and one["status"] == "True":
            return dict(one)
    return None
