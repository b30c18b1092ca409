"""The scheduler: filters by selector, affinity, taints and room; prefers by affinity; says why a pod must wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tests.fakes.kubernetes.controller import Recorder, WorkQueue
from tests.fakes.kubernetes.deletion import is_terminal, set_condition
from tests.fakes.kubernetes.devices import Devices
from tests.fakes.kubernetes.kinds import CLAIM_TEMPLATES, NODES, PODS, Object
from tests.fakes.kubernetes.quantities import add_up, pod_requests, quantity
from tests.fakes.kubernetes.selectors import expression_holds
from tests.fakes.kubernetes.storage import Change, Store

#: A pod that does not fit is looked at again when something changed, at most this often.
RETRY_S = 0.2


class Scheduler:
    """Binds pods to nodes."""

    def __init__(self, store: Store, devices: Devices) -> None:
        self._store = store
        self._devices = devices
        self._events = Recorder(store, "default-scheduler")
        self._queue = WorkQueue(self._schedule)
        self._waiting: set[tuple[str, str]] = set()
        #: What the pods of a node take; forgotten when one of them changes.
        self._used: dict[str, dict[str, Decimal]] = {}
        #: Seconds between a pod's creation and its first look (a busy scheduler).
        self.delay_s = 0.0
        #: While true nothing is scheduled.
        self.held = False
        store.listen(self._on_change)

    def look_again(self) -> None:
        """Something outside of the store changed."""
        for key in list(self._waiting):
            self._queue.add(key)

    def _on_change(self, change: Change) -> None:
        meta = change.object["metadata"]
        if change.kind is PODS:
            self._used.pop(change.object["spec"].get("nodeName", ""), None)
            key = (meta["namespace"], meta["name"])
            if change.type == "ADDED":
                self._waiting.add(key)
                self._queue.add(key, after=self.delay_s)
            elif change.type == "DELETED" or is_terminal(change.object):
                self._waiting.discard(key)
                self._retry_waiting()
        elif change.kind in (NODES, CLAIM_TEMPLATES):
            self._retry_waiting()

    def _retry_waiting(self) -> None:
        for key in self._waiting:
            self._queue.add(key, after=RETRY_S)

    def _schedule(self, key: tuple[str, str]) -> None:
        pod = self._store.find(PODS, *key)
        if pod is None or pod["spec"].get("nodeName") or is_terminal(pod) or pod["metadata"].get("deletionTimestamp"):
            self._waiting.discard(key)
            return
        if self.held:
            return
        if pod["spec"].get("schedulingGates"):
            self._unscheduled(pod, "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates")
            return
        if trouble := self._devices.trouble(pod):
            self._refuse(pod, trouble)
            return
        fitting, reasons = self._filter(pod)
        if not fitting:
            self._refuse(pod, self._explanation(reasons))
            return
        self._bind(pod, max(fitting, key=lambda node: (_preference(pod["spec"], node), _free_name(node))))

    def _filter(self, pod: Object) -> tuple[list[Object], Counter[str]]:
        fitting: list[Object] = []
        reasons: Counter[str] = Counter()
        for node in self._store.all(NODES):
            why = _misfits(pod, node, self._used_of(node["metadata"]["name"])) or self._devices.misfit(pod, node)
            if why:
                reasons.update(why)
            else:
                fitting.append(node)
        return fitting, reasons

    def _used_of(self, node: str) -> dict[str, Decimal]:
        if node not in self._used:
            pods = self._store.all(PODS)
            self._used[node] = add_up(
                pod for pod in pods if pod["spec"].get("nodeName") == node and not is_terminal(pod)
            )
        return self._used[node]

    def _explanation(self, reasons: Counter[str]) -> str:
        nodes = len(self._store.all(NODES))
        if not nodes:
            return "no nodes available to schedule pods"
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        helpless = f"{nodes} Preemption is not helpful for scheduling"
        full = sum(count for reason, count in reasons.items() if reason.startswith("Insufficient"))
        if full >= nodes:
            helpless = f"{nodes} No preemption victims found for incoming pod"
        return f"0/{nodes} nodes are available: {listed}. preemption: 0/{nodes} nodes are available: {helpless}."

    def _refuse(self, pod: Object, message: str) -> None:
        known = condition_of_any(pod, "PodScheduled")
        if known is None or known.get("message") != message:
            self._events.event(pod, "FailedScheduling", message, warning=True)
        self._unscheduled(pod, "Unschedulable", message)

    def _unscheduled(self, pod: Object, reason: str, message: str) -> None:
        def write(made: Object) -> None:
            set_condition(made["status"], "PodScheduled", "False", reason=reason, message=message)

        self._store.update(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], write)

    def _bind(self, pod: Object, node: Object) -> None:
        meta = pod["metadata"]
        self._waiting.discard((meta["namespace"], meta["name"]))
        self._devices.allocate(pod, node)

        def write(made: Object) -> None:
            made["spec"]["nodeName"] = node["metadata"]["name"]
            set_condition(made["status"], "PodScheduled", "True")

        self._store.update(PODS, meta["namespace"], meta["name"], write)
        where = f"{meta['namespace']}/{meta['name']} to {node['metadata']['name']}"
        self._events.event(pod, "Scheduled", f"Successfully assigned {where}")


def condition_of_any(made: Object, type_: str) -> Object | None:
    """A condition with whatever value."""
    return next((one for one in (made.get("status") or {}).get("conditions") or [] if one["type"] == type_), None)


def _free_name(node: Object) -> str:
    return str(node["metadata"]["name"])


def _misfits(pod: Object, node: Object, used: Mapping[str, Decimal]) -> list[str]:
    """Why a pod cannot go onto a node: the first filter that objects; of resources, all that are short."""
    spec = pod["spec"]
    if node["spec"].get("unschedulable"):
        return ["node(s) were unschedulable"]
    if (taint := _untolerated(spec.get("tolerations") or [], node)) is not None:
        return [f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"]
    if not _selected(spec, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    return _short(pod_requests(spec), node, used)


def _short(asked: Mapping[str, Decimal], node: Object, used: Mapping[str, Decimal]) -> list[str]:
    allocatable = node["status"]["allocatable"]
    return [
        "Too many pods" if name == "pods" else f"Insufficient {name}"
        for name, amount in asked.items()
        if amount and amount + used.get(name, Decimal(0)) > quantity(allocatable.get(name, "0"))
    ]


def _untolerated(tolerations: list[Object], node: Object) -> Object | None:
    for taint in node["spec"].get("taints") or []:
        if taint["effect"] != "PreferNoSchedule" and not any(_tolerates(one, taint) for one in tolerations):
            return dict(taint)
    return None


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("key") in (None, ""):
        return bool(toleration.get("operator") == "Exists")
    if toleration["key"] != taint["key"]:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")


def _selected(spec: Mapping[str, Any], node: Object) -> bool:
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(_term_holds(term, node) for term in required.get("nodeSelectorTerms") or [])


def _term_holds(term: Mapping[str, Any], node: Object) -> bool:
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    names = {"metadata.name": node["metadata"]["name"]}
    return bool(expressions or fields) and (
        all(expression_holds(one, node["metadata"].get("labels") or {}) for one in expressions)
        and all(expression_holds(one, names) for one in fields)
    )


def _preference(spec: Mapping[str, Any], node: Object) -> int:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or []
    return sum(one["weight"] for one in preferred if _term_holds(one["preference"], node))
