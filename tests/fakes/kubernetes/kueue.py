"""Kueue, as far as Jobs, JobSets and TrainJobs with a queue name see it: suspend, reserve quota, admit, evict."""

from __future__ import annotations

import hashlib
import time
from decimal import Decimal

from tests.fakes.kubernetes.controller import Recorder, WorkQueue
from tests.fakes.kubernetes.deletion import condition_of, set_condition
from tests.fakes.kubernetes.kinds import (
    CLUSTER_QUEUES,
    FLAVORS,
    LOCAL_QUEUES,
    WORKLOAD_PRIORITIES,
    WORKLOADS,
    Kind,
    Object,
)
from tests.fakes.kubernetes.quantities import quantity, written
from tests.fakes.kubernetes.queueing import (
    LIMIT_LABEL,
    MANAGED,
    PRIORITY_LABEL,
    PodSet,
    flavor_for,
    is_quiet,
    outcome,
    place,
    pod_sets,
    queue_of,
    templates,
)
from tests.fakes.kubernetes.storage import Change, Store, copy_of

_GROUP = "kueue.x-k8s.io"
_EVICTIONS = {
    "Preempted": "Preempted to accommodate a workload (UID: 4c1f7f0e-8d7c-4c7e-a9e3-5a2b8f1d6c90) due to "
    "prioritization in the ClusterQueue",
    "PodsReadyTimeout": "Exceeded the PodsReady timeout",
    "ClusterQueueStopped": "The ClusterQueue is stopped",
    "Deactivated": "The workload is deactivated",
}
#: While something waits for quota it is looked at again this often.
RETRY_S = 0.2


class Kueue:
    """Suspends what names a queue, and admits it when there is quota."""

    def __init__(self, store: Store, without: set[str]) -> None:
        self._store = store
        self._without = without
        self._events = Recorder(store, "kueue-job-controller")
        self._queue = WorkQueue(self._reconcile)
        self._held = False
        #: Workload uid -> not to be admitted before this time.
        self._not_before: dict[str, float] = {}
        store.listen(self._on_change)

    def suspend_new(self, kind: Kind, made: Object) -> None:
        """The webhook: what names a queue is created suspended."""
        if kind in MANAGED and queue_of(made) and _GROUP not in self._without:
            made["spec"]["suspend"] = True

    def hold(self, held: bool) -> None:
        """While held, nothing is admitted."""
        self._held = held
        self._look_at_all()

    def evict(self, namespace: str, name: str, *, reason: str, message: str, requeue_after_s: float) -> None:
        """Take a workload's quota away; the name is its own or that of its job. Raises KeyError."""
        for workload in self._store.all(WORKLOADS, namespace):
            owner = workload["metadata"]["ownerReferences"][0]
            if name in (workload["metadata"]["name"], owner["name"]):
                self._not_before[workload["metadata"]["uid"]] = time.time() + requeue_after_s
                self._evict(workload, reason, message or _EVICTIONS.get(reason, reason))
                return
        raise KeyError(f"no workload {namespace}/{name}")

    def _on_change(self, change: Change) -> None:
        if change.kind in MANAGED and queue_of(change.object):
            meta = change.object["metadata"]
            self._queue.add((change.kind, meta["namespace"], meta["name"]))
            if change.type == "DELETED":
                self._look_at_all()
        elif change.kind in (LOCAL_QUEUES, CLUSTER_QUEUES, FLAVORS, WORKLOADS):
            self._look_at_all()

    def _look_at_all(self) -> None:
        for kind in MANAGED:
            for made in self._store.all(kind):
                if queue_of(made):
                    self._queue.add((kind, made["metadata"]["namespace"], made["metadata"]["name"]))

    def _reconcile(self, key: tuple[Kind, str, str]) -> None:
        kind, namespace, name = key
        job = self._store.find(kind, namespace, name)
        if job is None or _GROUP in self._without or job["metadata"].get("deletionTimestamp"):
            return
        workload = self._workload_of(kind, job) or self._create_workload(kind, job)
        if condition_of(workload, "Finished"):
            return
        if ended := outcome(kind, job):
            self._condition(workload, "Finished", "True", *ended)
        elif condition_of(workload, "Admitted"):
            self._enforce_limit(key, job, workload)
            self._set_suspended(kind, job, suspended=False)
        elif not job["spec"].get("suspend"):
            self._set_suspended(kind, job, suspended=True)
        elif is_quiet(kind, job):
            self._try_to_admit(key, job, workload)

    # --- workloads ---------------------------------------------------------------------------------------------

    def _workload_of(self, kind: Kind, job: Object) -> Object | None:
        return self._store.find(WORKLOADS, job["metadata"]["namespace"], _workload_name(kind, job))

    def _create_workload(self, kind: Kind, job: Object) -> Object:
        labels = job["metadata"].get("labels") or {}
        owner = {
            "apiVersion": kind.api_version, "kind": kind.name, "name": job["metadata"]["name"],
            "uid": job["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True,
        }  # fmt: skip
        priority = self._store.find(WORKLOAD_PRIORITIES, "", labels.get(PRIORITY_LABEL, ""))
        spec: Object = {
            "queueName": queue_of(job),
            "active": True,
            "priority": priority["value"] if priority else 0,
            "podSets": [
                {"name": one.name, "count": one.count, "template": copy_of(one.template)} for one in pod_sets(kind, job)
            ],
        }
        if labels.get(LIMIT_LABEL):
            spec["maximumExecutionTimeSeconds"] = int(labels[LIMIT_LABEL])
        meta = {
            "name": _workload_name(kind, job), "namespace": job["metadata"]["namespace"],
            "ownerReferences": [owner], "labels": {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]},
        }  # fmt: skip
        made = self._store.create(WORKLOADS, {"metadata": meta, "spec": spec, "status": {}})
        place = f"{meta['namespace']}/{meta['name']}"
        self._events.event(job, "CreatedWorkload", f"Created Workload: {place}")
        return made

    def _try_to_admit(self, key: tuple[Kind, str, str], job: Object, workload: Object) -> None:
        meta = workload["metadata"]
        wait = self._not_before.get(meta["uid"], 0.0) - time.time()
        if wait > 0:
            self._queue.add(key, after=wait)
            return
        if not workload["spec"].get("active", True):
            return
        if condition_of(workload, "Evicted"):
            self._condition(workload, "Requeued", "True", "BackoffFinished", "The workload backoff was finished")
        reason, message = self._reserve(workload)
        if reason:
            self._condition(workload, "QuotaReserved", "False", reason, message)
            self._queue.add(key, after=RETRY_S)
            return
        queue = self._store.get(WORKLOADS, meta["namespace"], meta["name"])["status"]["admission"]["clusterQueue"]
        self._events.event(job, "Started", f"Admitted by clusterQueue {queue}")

    def _reserve(self, workload: Object) -> tuple[str, str]:
        """Reserve quota and admit; or say why not (reason, message)."""
        namespace, name = workload["metadata"]["namespace"], workload["spec"]["queueName"]
        local = self._store.find(LOCAL_QUEUES, namespace, name)
        if local is None:
            return "Inadmissible", f"LocalQueue {name} doesn't exist"
        queue = self._store.find(CLUSTER_QUEUES, "", local["spec"]["clusterQueue"])
        if queue is None:
            return "Inadmissible", f"ClusterQueue {local['spec']['clusterQueue']} doesn't exist"
        if any(one["spec"].get("stopPolicy", "None") != "None" for one in (local, queue)):
            return "Inadmissible", f"ClusterQueue {queue['metadata']['name']} is inactive"
        if self._held:
            return "Pending", "couldn't assign flavors to pod set main: insufficient unused quota (held)"
        assignments, whys = self._assign(queue, workload)
        if whys:
            pod_set = workload["spec"]["podSets"][0]["name"]
            return "Pending", f"couldn't assign flavors to pod set {pod_set}: {', '.join(whys)}"
        self._admit(queue, workload, assignments)
        return "", ""

    def _assign(self, queue: Object, workload: Object) -> tuple[list[Object], list[str]]:
        flavors = {one["metadata"]["name"]: one for one in self._store.all(FLAVORS)}
        free = self._free(queue)
        assignments: list[Object] = []
        for pod_set in workload["spec"]["podSets"]:
            asked = PodSet(pod_set["name"], pod_set["count"], pod_set["template"]).requests()
            chosen: dict[str, str] = {}
            for group in queue["spec"].get("resourceGroups") or []:
                covered = [name for name in group["coveredResources"] if name in asked]
                name, whys = flavor_for(flavors, group["flavors"], free, asked, covered)
                if name is None:
                    return [], whys
                chosen |= dict.fromkeys(covered, name)
            missing = [name for name in asked if name not in chosen and name != "pods"]
            if missing:
                return [], [f"resource {name} unavailable in ClusterQueue" for name in missing]
            for resource, flavor in chosen.items():
                free[(flavor, resource)] -= asked[resource]
            usage = {resource: written(asked[resource]) for resource in chosen}
            assignments.append(
                {"name": pod_set["name"], "count": pod_set["count"], "flavors": chosen, "resourceUsage": usage}
            )
        return assignments, []

    def _free(self, queue: Object) -> dict[tuple[str, str], Decimal]:
        free: dict[tuple[str, str], Decimal] = {}
        for group in queue["spec"].get("resourceGroups") or []:
            for flavor in group["flavors"]:
                for resource in flavor["resources"]:
                    free[(flavor["name"], resource["name"])] = quantity(resource["nominalQuota"])
        for workload in self._store.all(WORKLOADS):
            admission = (workload.get("status") or {}).get("admission")
            if not admission or condition_of(workload, "Finished"):
                continue
            if admission["clusterQueue"] == queue["metadata"]["name"]:
                for one in admission["podSetAssignments"]:
                    for resource, flavor in one["flavors"].items():
                        free[(flavor, resource)] -= quantity(one["resourceUsage"][resource])
        return free

    def _admit(self, queue: Object, workload: Object, assignments: list[Object]) -> None:
        name = queue["metadata"]["name"]

        def write(made: Object) -> None:
            status = made.setdefault("status", {})
            status["admission"] = {"clusterQueue": name, "podSetAssignments": assignments}
            message = f"Quota reserved in ClusterQueue {name}"
            set_condition(status, "QuotaReserved", "True", reason="QuotaReserved", message=message)
            set_condition(status, "Admitted", "True", reason="Admitted", message="The workload is admitted")
            if condition_of(made, "Evicted"):
                set_condition(status, "Evicted", "False", reason="QuotaReserved", message=f"Previously: {message}")

        self._store.update(WORKLOADS, workload["metadata"]["namespace"], workload["metadata"]["name"], write)

    def _evict(self, workload: Object, reason: str, message: str) -> None:
        def write(made: Object) -> None:
            status = made["status"]
            status.pop("admission", None)
            set_condition(status, "Evicted", "True", reason=reason, message=message)
            set_condition(status, "QuotaReserved", "False", reason="Pending", message=message)
            text = "The workload has no reservation"
            set_condition(status, "Admitted", "False", reason="NoReservation", message=text)
            if reason == "Preempted":
                set_condition(status, "Preempted", "True", reason="InClusterQueue", message=message)
            if reason == "Deactivated":
                made["spec"]["active"] = False

        self._store.update(WORKLOADS, workload["metadata"]["namespace"], workload["metadata"]["name"], write)

    def _enforce_limit(self, key: tuple[Kind, str, str], job: Object, workload: Object) -> None:
        limit = workload["spec"].get("maximumExecutionTimeSeconds")
        if limit is None or job["spec"].get("suspend"):
            return
        uid = workload["metadata"]["uid"]
        began = self._not_before.setdefault(f"began {uid}", time.time())
        if time.time() < began + limit:
            self._queue.add(key, after=began + limit - time.time())
            return
        self._evict(workload, "Deactivated", "The workload is deactivated due to exceeding the maximum execution time")

    def _condition(self, workload: Object, type_: str, value: str, reason: str, message: str) -> None:
        def write(made: Object) -> None:
            set_condition(made.setdefault("status", {}), type_, value, reason=reason, message=message)

        self._store.update(WORKLOADS, workload["metadata"]["namespace"], workload["metadata"]["name"], write)

    # --- jobs --------------------------------------------------------------------------------------------------

    def _set_suspended(self, kind: Kind, job: Object, *, suspended: bool) -> None:
        if bool(job["spec"].get("suspend")) == suspended:
            return
        labels, tolerations = ({}, []) if suspended else self._placement(kind, job)

        def write(made: Object) -> None:
            made["spec"]["suspend"] = suspended
            if suspended:
                (made.get("status") or {}).pop("startTime", None)
            for template in templates(kind, made):
                place(template, labels, tolerations, remove=suspended)

        self._store.update(kind, job["metadata"]["namespace"], job["metadata"]["name"], write)
        if suspended:
            workload = self._workload_of(kind, job) or {}
            evicted = condition_of(workload, "Evicted") or {}
            self._events.event(job, "Stopped", evicted.get("message") or "Not admitted by cluster queue")

    def _placement(self, kind: Kind, job: Object) -> tuple[dict[str, str], list[Object]]:
        workload = self._workload_of(kind, job) or {}
        labels: dict[str, str] = {}
        tolerations: list[Object] = []
        for one in workload["status"]["admission"]["podSetAssignments"]:
            for name in one["flavors"].values():
                spec = (self._store.find(FLAVORS, "", name) or {}).get("spec") or {}
                labels |= spec.get("nodeLabels") or {}
                tolerations += [each for each in spec.get("tolerations") or [] if each not in tolerations]
        return labels, tolerations


def _workload_name(kind: Kind, job: Object) -> str:
    uid = job["metadata"]["uid"]
    return f"{kind.singular}-{job['metadata']['name']}-{hashlib.sha256(uid.encode()).hexdigest()[:5]}"
