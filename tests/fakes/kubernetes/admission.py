"""What happens to an object before it is stored: schema, defaults, mutating webhooks, validation, quota."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from tests.fakes.kubernetes import errors
from tests.fakes.kubernetes.defaults import set_defaults
from tests.fakes.kubernetes.deletion import is_terminal
from tests.fakes.kubernetes.job_pods import label_job
from tests.fakes.kubernetes.kinds import (
    JOBS,
    NAMESPACES,
    PODS,
    PRIORITY_CLASSES,
    QUOTAS,
    SERVICE_ACCOUNTS,
    Kind,
    Object,
)
from tests.fakes.kubernetes.quantities import add_up, pod_requests, quantity, written
from tests.fakes.kubernetes.schema import findings, prune
from tests.fakes.kubernetes.storage import Store, copy_of, random_suffix
from tests.fakes.kubernetes.validation import check, check_update

#: Changes an object before it is validated, e.g. suspends a Job with a queue name.
Mutator = Callable[[Kind, Object], None]


class Admission:
    """The way into the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.mutators: list[Mutator] = []

    def prepare(self, kind: Kind, namespace: str, given: Object, query: Mapping[str, str]) -> tuple[Object, list[str]]:
        """A new object as it will be stored, and warnings. Raises 400, 403, 404 and 422 (409 comes from the store)."""
        made = copy_of(given)
        meta = made.setdefault("metadata", {})
        if kind.namespaced:
            self._check_namespace(meta, namespace)
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"][:58] + random_suffix()
        warnings = _check_schema(kind, made, query.get("fieldValidation", "Warn"))
        self._fill_in(kind, made)
        if not meta.get("name"):
            raise errors.invalid(
                kind, "", [("metadata.name", "FieldValueRequired", "Required value: name or generateName is required")]
            )
        if causes := check(kind, made):
            raise errors.invalid(kind, meta["name"], causes)
        if kind is PODS:
            self._check_references(made)
        self._check_quota(kind, made)  # before the name is looked at: a full quota hides that it is taken
        return made, warnings

    def _fill_in(self, kind: Kind, made: Object) -> None:
        meta = made["metadata"]
        for name in ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "selfLink", "generation"):
            meta.pop(name, None)
        if kind.status:
            made.pop("status", None)
        meta["uid"] = str(uuid.uuid4())
        set_defaults(kind, made)
        if kind is JOBS:
            label_job(made)
        for mutate in self.mutators:
            mutate(kind, made)

    def create(self, kind: Kind, given: Object) -> Object:
        """How controllers create: through the same door. Raises as :meth:`prepare`."""
        made, _ = self.prepare(kind, given["metadata"].get("namespace", ""), given, {})
        return self._store.create(kind, made)

    def prepare_update(
        self, kind: Kind, current: Object, wanted: Object, query: Mapping[str, str]
    ) -> tuple[Object, list[str]]:
        """A changed object as it will be stored; status and what only the server sets stay as they are."""
        made = copy_of(wanted)
        meta = made.setdefault("metadata", {})
        if meta.get("uid") not in (None, current["metadata"]["uid"]):
            message = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: "
            raise errors.conflict(kind, current["metadata"]["name"], message + current["metadata"]["uid"])
        warnings = _check_schema(kind, made, query.get("fieldValidation", "Warn"))
        for name in (
            "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ):  # fmt: skip
            meta.pop(name, None)
            if name in current["metadata"]:
                meta[name] = current["metadata"][name]
        made |= {"apiVersion": kind.api_version, "kind": kind.name}
        if kind.status:
            made.pop("status", None)
            if "status" in current:
                made["status"] = copy_of(current["status"])
        if causes := check_update(kind, current, made):
            raise errors.invalid(kind, meta["name"], causes)
        return made, warnings

    def _check_namespace(self, meta: Object, namespace: str) -> None:
        if meta.setdefault("namespace", namespace) != namespace:
            message = "the namespace of the provided object does not match the namespace sent on the request"
            raise errors.bad_request(message)
        if self._store.find(NAMESPACES, "", namespace) is None:
            raise errors.not_found(NAMESPACES, namespace)

    def _check_references(self, pod: Object) -> None:
        """What a pod names must exist already: its service account and its priority."""
        spec, meta = pod["spec"], pod["metadata"]
        account = spec.setdefault("serviceAccountName", "default")
        spec["serviceAccount"] = account
        if self._store.find(SERVICE_ACCOUNTS, meta["namespace"], account) is None:
            where = f"error looking up service account {meta['namespace']}/{account}"
            raise errors.forbidden(PODS, meta["name"], f'{where}: serviceaccount "{account}" not found')
        priority = spec.get("priorityClassName")
        if priority:
            found = self._store.find(PRIORITY_CLASSES, "", priority)
            if found is None:
                why = f"no PriorityClass with name {priority} was found"
                raise errors.forbidden(PODS, meta["name"], why)
            spec["priority"] = found["value"]

    # --- quota -------------------------------------------------------------------------------------------------

    def _check_quota(self, kind: Kind, made: Object) -> None:
        asked = {f"count/{kind.resource}": Decimal(1)}
        if kind is PODS:
            amounts = pod_requests(made["spec"])
            asked |= {f"requests.{name}": amount for name, amount in amounts.items() if name != "pods"}
            asked |= {name: amounts[name] for name in ("cpu", "memory") if name in amounts} | {"pods": Decimal(1)}
        elif kind is not JOBS:
            return
        namespace = made["metadata"]["namespace"]
        for quota in self._store.all(QUOTAS, namespace):
            hard = {name: quantity(value) for name, value in (quota["spec"].get("hard") or {}).items()}
            used = self._used(kind, namespace)
            over = [name for name, limit in hard.items() if name in asked and used.get(name, 0) + asked[name] > limit]
            if over:
                raise errors.forbidden(kind, made["metadata"]["name"], _exceeded(quota, over, asked, used, hard))

    def _used(self, kind: Kind, namespace: str) -> dict[str, Decimal]:
        present = self._store.all(kind, namespace)
        used = {f"count/{kind.resource}": Decimal(len(present))}
        if kind is PODS:
            amounts = add_up(pod for pod in present if not is_terminal(pod))
            used |= {f"requests.{name}": amount for name, amount in amounts.items() if name != "pods"}
            used |= {name: amounts[name] for name in ("cpu", "memory", "pods") if name in amounts}
        return used


def _exceeded(
    quota: Object,
    over: list[str],
    asked: Mapping[str, Decimal],
    used: Mapping[str, Decimal],
    hard: Mapping[str, Decimal],
) -> str:
    def listed(amounts: Mapping[str, Any]) -> str:
        return ",".join(f"{name}={written(Decimal(amounts.get(name, 0)))}" for name in sorted(over))

    name = quota["metadata"]["name"]
    return f"exceeded quota: {name}, requested: {listed(asked)}, used: {listed(used)}, limited: {listed(hard)}"


def _check_schema(kind: Kind, made: Object, mode: str) -> list[str]:
    """Refuse wrong types; refuse, report or silently drop unknown fields by ``fieldValidation``."""
    found = findings(kind, made)
    cannot = f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: '
    for one in found:
        if one.problem == "type":
            raise errors.bad_request(f"{cannot}json: {one.detail} ({one.path})")
    missing = [(one.path, "FieldValueRequired", "Required value") for one in found if one.problem == "required"]
    if missing:
        raise errors.invalid(kind, made["metadata"].get("name", ""), missing)
    unknown = [one for one in found if one.problem == "unknown"]
    texts = [f'unknown field "{one.path}"' for one in unknown]
    if unknown and mode == "Strict":
        raise errors.bad_request(f"{cannot}strict decoding error: {', '.join(texts)}")
    prune(made, unknown)
    return [text.replace('"', '\\"') for text in texts] if mode == "Warn" else []
