"""The JobSet controller: one Job per replica, restarts by the failure policy, suspension, the end."""

from __future__ import annotations

from collections.abc import Callable

from tests.fakes.kubernetes import errors
from tests.fakes.kubernetes.admission import Admission
from tests.fakes.kubernetes.controller import Recorder, WorkQueue
from tests.fakes.kubernetes.deletion import condition_of, delete, set_condition
from tests.fakes.kubernetes.job_state import is_finished
from tests.fakes.kubernetes.kinds import JOB_SETS, JOBS, SERVICES, Object
from tests.fakes.kubernetes.storage import Change, Store, copy_of

_PREFIX = "jobset.sigs.k8s.io"
_NAME = f"{_PREFIX}/jobset-name"
_ATTEMPT = f"{_PREFIX}/restart-attempt"


class JobSetController:
    """Reconciles one JobSet at a time."""

    def __init__(self, store: Store, admission: Admission) -> None:
        self._store = store
        self._admission = admission
        self._events = Recorder(store, "jobset")
        self._queue = WorkQueue(self._reconcile)
        store.listen(self._on_change)

    def _on_change(self, change: Change) -> None:
        meta = change.object["metadata"]
        if change.kind is JOB_SETS and change.type != "DELETED":
            self._queue.add((meta["namespace"], meta["name"]))
        elif change.kind is JOBS and _NAME in (meta.get("labels") or {}):
            self._queue.add((meta["namespace"], meta["labels"][_NAME]))

    def _reconcile(self, key: tuple[str, str]) -> None:
        job_set = self._store.find(JOB_SETS, *key)
        if job_set is None or job_set["metadata"].get("deletionTimestamp"):
            return
        jobs = self._jobs(job_set)
        self._write(job_set, lambda status: _write_figures(status, job_set, jobs))
        if condition_of(job_set, "Completed") or condition_of(job_set, "Failed"):
            self._clean_up(jobs)
            return
        attempt = str((job_set.get("status") or {}).get("restarts", 0))
        current = [job for job in jobs if job["metadata"]["labels"][_ATTEMPT] == attempt]
        for job in jobs:
            if job not in current and not job["metadata"].get("deletionTimestamp"):
                self._delete(job)
        failed = [job for job in current if condition_of(job, "Failed")]
        if failed:
            self._on_failure(job_set, failed[0])
        elif self._succeeded(job_set, current):
            self._finish(job_set, "Completed", "AllJobsCompleted", "jobset completed successfully")
        else:
            self._follow_suspension(job_set, current)
            self._create_missing(job_set, jobs, attempt)

    def _jobs(self, job_set: Object) -> list[Object]:
        uid = job_set["metadata"]["uid"]
        return [
            job
            for job in self._store.all(JOBS, job_set["metadata"]["namespace"])
            if any(owner["uid"] == uid for owner in job["metadata"].get("ownerReferences") or [])
        ]

    def _succeeded(self, job_set: Object, current: list[Object]) -> bool:
        policy = job_set["spec"].get("successPolicy") or {}
        targets = policy.get("targetReplicatedJobs") or []
        wanted = [
            (one["name"], index)
            for one in job_set["spec"].get("replicatedJobs") or []
            for index in range(one.get("replicas", 1))
            if not targets or one["name"] in targets
        ]
        done = {
            (
                job["metadata"]["labels"][f"{_PREFIX}/replicatedjob-name"],
                int(job["metadata"]["labels"][f"{_PREFIX}/job-index"]),
            )
            for job in current
            if condition_of(job, "Complete")
        }
        if policy.get("operator") == "Any":
            return bool(done.intersection(wanted))
        return bool(wanted) and set(wanted) <= done

    # --- failure -----------------------------------------------------------------------------------------------

    def _on_failure(self, job_set: Object, job: Object) -> None:
        policy = job_set["spec"].get("failurePolicy")
        name = job["metadata"]["name"]
        if policy is None:
            message = f"jobset failed due to one or more job failures (first failed job: {name})"
            self._finish(job_set, "Failed", "FailedJobs", message)
            return
        action = _action(policy, job)
        if action == "FailJobSet":
            message = f"jobset failed due to FailJobSet failure policy action (first failed job: {name})"
            self._finish(job_set, "Failed", "FailJobSetFailurePolicyAction", message)
            return
        status = job_set.get("status") or {}
        counted = status.get("restartsCountTowardsMax", 0)
        free = action == "RestartJobSetAndIgnoreMaxRestarts"
        if not free and counted >= policy.get("maxRestarts", 0):
            message = f"jobset failed due to reaching max number of restarts (first failed job: {name})"
            self._finish(job_set, "Failed", "ReachedMaxRestarts", message)
            return

        def write(made: Object) -> None:
            made["restarts"] = made.get("restarts", 0) + 1
            made["restartsCountTowardsMax"] = counted + (not free)

        self._write(job_set, write)
        attempt = status.get("restarts", 0) + 1
        self._events.event(job_set, "Restarting", f"restarting jobset, attempt {attempt} (first failed job: {name})")

    def _finish(self, job_set: Object, type_: str, reason: str, message: str) -> None:
        def write(status: Object) -> None:
            set_condition(status, type_, "True", reason=reason, message=message)
            status["terminalState"] = type_

        self._write(job_set, write)
        self._events.event(job_set, reason, message, warning=type_ == "Failed")

    def _clean_up(self, jobs: list[Object]) -> None:
        for job in jobs:
            if not is_finished(job) and not job["metadata"].get("deletionTimestamp"):
                self._delete(job)

    def _delete(self, job: Object) -> None:
        meta = job["metadata"]
        options = {"propagationPolicy": "Foreground", "preconditions": {"uid": meta["uid"]}}
        delete(self._store, JOBS, meta["namespace"], meta["name"], options)

    # --- children ----------------------------------------------------------------------------------------------

    def _follow_suspension(self, job_set: Object, current: list[Object]) -> None:
        suspended = bool(job_set["spec"].get("suspend"))
        known = condition_of(job_set, "Suspended") is not None
        if suspended and not known:
            self._suspended(job_set, "True", "SuspendedJobs", "jobset is suspended")
        elif known and not suspended:
            self._suspended(job_set, "False", "ResumeJobs", "jobset is resumed")
        for job in current:
            if bool(job["spec"].get("suspend")) != suspended and not is_finished(job):
                self._set_suspended(job_set, job, suspended)

    def _suspended(self, job_set: Object, value: str, reason: str, message: str) -> None:
        self._write(job_set, lambda status: set_condition(status, "Suspended", value, reason=reason, message=message))

    def _set_suspended(self, job_set: Object, job: Object, suspended: bool) -> None:
        label = job["metadata"]["labels"][f"{_PREFIX}/replicatedjob-name"]
        template = next(one for one in job_set["spec"]["replicatedJobs"] if one["name"] == label)["template"]

        def write(made: Object) -> None:
            made["spec"]["suspend"] = suspended
            pod, wanted = made["spec"]["template"]["spec"], template["spec"]["template"]["spec"]
            for name in ("nodeSelector", "tolerations", "affinity"):
                if name in wanted:
                    pod[name] = copy_of(wanted[name])

        self._store.update(JOBS, job["metadata"]["namespace"], job["metadata"]["name"], write)

    def _create_missing(self, job_set: Object, jobs: list[Object], attempt: str) -> None:
        present = {job["metadata"]["name"] for job in jobs}
        total = 0
        for replicated in job_set["spec"].get("replicatedJobs") or []:
            for index in range(replicated.get("replicas", 1)):
                name = f"{job_set['metadata']['name']}-{replicated['name']}-{index}"
                if name not in present:
                    self._create(_job_of(job_set, replicated, index, total, attempt), job_set)
                total += 1
        self._create_service(job_set)

    def _create(self, job: Object, job_set: Object) -> None:
        try:
            self._admission.create(JOBS, job)
        except errors.ApiError as refusal:
            self._events.event(job_set, "JobCreationFailed", refusal.message, warning=True)

    def _create_service(self, job_set: Object) -> None:
        network = job_set["spec"].get("network") or {}
        name = network.get("subdomain") or job_set["metadata"]["name"]
        namespace = job_set["metadata"]["namespace"]
        if network.get("enableDNSHostnames", True) and self._store.find(SERVICES, namespace, name) is None:
            meta = {"name": name, "namespace": namespace, "ownerReferences": [_owner(job_set)]}
            spec = {"clusterIP": "None", "selector": {_NAME: job_set["metadata"]["name"]}}
            self._store.create(SERVICES, {"metadata": meta, "spec": spec})

    def _write(self, job_set: Object, write: Callable[[Object], None]) -> None:
        meta = job_set["metadata"]
        self._store.update(JOB_SETS, meta["namespace"], meta["name"], lambda made: write(made.setdefault("status", {})))


def _action(policy: Object, job: Object) -> str:
    failed = condition_of(job, "Failed") or {}
    name = job["metadata"]["labels"][f"{_PREFIX}/replicatedjob-name"]
    for rule in policy.get("rules") or []:
        reasons, targets = rule.get("onJobFailureReasons") or [], rule.get("targetReplicatedJobs") or []
        if (not reasons or failed.get("reason") in reasons) and (not targets or name in targets):
            return str(rule["action"])
    return "RestartJobSet"


def _owner(job_set: Object) -> Object:
    return {
        "apiVersion": JOB_SETS.api_version, "kind": "JobSet", "name": job_set["metadata"]["name"],
        "uid": job_set["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


def _job_of(job_set: Object, replicated: Object, index: int, total: int, attempt: str) -> Object:
    template = copy_of(replicated["template"])
    meta, spec = template.get("metadata") or {}, template["spec"]
    name = job_set["metadata"]["name"]
    labels = {
        _NAME: name, f"{_PREFIX}/jobset-uid": job_set["metadata"]["uid"],
        f"{_PREFIX}/replicatedjob-name": replicated["name"],
        f"{_PREFIX}/replicatedjob-replicas": str(replicated.get("replicas", 1)), f"{_PREFIX}/job-index": str(index),
        f"{_PREFIX}/job-global-index": str(total), _ATTEMPT: attempt,
    }  # fmt: skip
    pod_meta = spec["template"].setdefault("metadata", {})
    for holder in (meta, pod_meta):
        holder["labels"] = {**(holder.get("labels") or {}), **labels}
        holder["annotations"] = {**(holder.get("annotations") or {}), **labels}
    network = job_set["spec"].get("network") or {}
    if network.get("enableDNSHostnames", True):
        spec["template"]["spec"]["subdomain"] = network.get("subdomain") or name
    spec["suspend"] = bool(job_set["spec"].get("suspend"))
    meta |= {
        "name": f"{name}-{replicated['name']}-{index}", "namespace": job_set["metadata"]["namespace"],
        "ownerReferences": [_owner(job_set)],
    }  # fmt: skip
    return {"metadata": meta, "spec": spec}


def _write_figures(status: Object, job_set: Object, jobs: list[Object]) -> None:
    status.setdefault("restarts", 0)
    figures = []
    for replicated in job_set["spec"].get("replicatedJobs") or []:
        own = [job for job in jobs if job["metadata"]["labels"][f"{_PREFIX}/replicatedjob-name"] == replicated["name"]]
        done, failed = (sum(condition_of(job, one) is not None for job in own) for one in ("Complete", "Failed"))
        open_ones = [job for job in own if not is_finished(job)]
        wanted = [job["spec"].get("parallelism") or 1 for job in open_ones]
        ready = sum(
            (job["status"].get("ready") or 0) >= pods for job, pods in zip(open_ones, wanted, strict=True) if pods
        )
        figures.append(
            {
                "name": replicated["name"], "ready": ready + done, "succeeded": done, "failed": failed,
                "active": sum(bool(job["status"].get("active")) for job in open_ones),
                "suspended": sum(bool(job["spec"].get("suspend")) for job in open_ones),
            }
        )  # fmt: skip
    status["replicatedJobsStatus"] = figures
