"""The Job controller: pods for Jobs, their judgement, conditions, suspension, deadlines and time to live."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.fakes.kubernetes import errors
from tests.fakes.kubernetes.admission import Admission
from tests.fakes.kubernetes.controller import Recorder, WorkQueue
from tests.fakes.kubernetes.deletion import condition_of, delete, remove_finalizer, set_condition
from tests.fakes.kubernetes.job_pods import TRACKING, completion_index, pod_of
from tests.fakes.kubernetes.job_policy import judge
from tests.fakes.kubernetes.job_state import (
    JobPods,
    add_counts,
    epoch,
    free_indexes,
    is_finished,
    is_ready,
    pods_of,
    verdict_on,
    write_counts,
)
from tests.fakes.kubernetes.kinds import JOBS, PODS, Object
from tests.fakes.kubernetes.storage import Change, Store, now, random_suffix

LONGEST_BACKOFF_S = 600.0
#: After a refused creation of a pod (quota), doubling; the real controller's queue begins at 1 s.
CREATE_RETRY_S = 1.0


@dataclass
class _Memory:
    """What the controller remembers of a Job between looks; the real one loses it as well when it restarts."""

    failures: int = 0
    last_failure: float = 0.0
    refused: int = 0
    counted: set[str] = field(default_factory=set)


class JobController:
    """Reconciles one Job at a time."""

    def __init__(self, store: Store, admission: Admission, *, backoff_s: float) -> None:
        self._store = store
        self._admission = admission
        self._backoff_s = backoff_s
        self._events = Recorder(store, "job-controller")
        self._queue = WorkQueue(self._reconcile)
        self._memory: dict[str, _Memory] = {}
        store.listen(self._on_change)

    def _on_change(self, change: Change) -> None:
        meta = change.object["metadata"]
        if change.kind is JOBS:
            self._queue.add((meta["namespace"], meta["name"]))
        elif change.kind is PODS:
            owner = next((one for one in meta.get("ownerReferences") or [] if one["kind"] == "Job"), None)
            if owner is not None:
                self._queue.add((meta["namespace"], owner["name"]))
            elif TRACKING in (meta.get("finalizers") or []) and change.type != "DELETED":
                remove_finalizer(self._store, PODS, change.object, TRACKING)  # orphaned: nobody counts it any more

    def _reconcile(self, key: tuple[str, str]) -> None:
        job = self._store.find(JOBS, *key)
        if job is None:
            self._release_pods_of_lost_job(*key)
            return
        if job["spec"].get("managedBy", "kubernetes.io/job-controller") != "kubernetes.io/job-controller":
            return
        memory = self._memory.setdefault(job["metadata"]["uid"], _Memory())
        pods = pods_of(self._store, job)
        if is_finished(job):
            self._after_the_end(job, pods)
        else:
            self._sync(job, pods, memory)

    def _release_pods_of_lost_job(self, namespace: str, name: str) -> None:
        for pod in self._store.all(PODS, namespace):
            owners = pod["metadata"].get("ownerReferences") or []
            if TRACKING in (pod["metadata"].get("finalizers") or []) and any(
                owner["kind"] == "Job" and owner["name"] == name for owner in owners
            ):
                remove_finalizer(self._store, PODS, pod, TRACKING)

    # --- one look ----------------------------------------------------------------------------------------------

    def _sync(self, job: Object, pods: JobPods, memory: _Memory) -> None:
        spec = job["spec"]
        suspended = bool(spec.get("suspend"))
        target = condition_of(job, "FailureTarget") or condition_of(job, "SuccessCriteriaMet")
        verdict = self._count(job, pods, memory)
        if job["metadata"].get("deletionTimestamp"):  # canRemoveFinalizer of the real one: nobody will ask for counts
            self._let_go(pods.terminating)
        job = self._store.get(JOBS, job["metadata"]["namespace"], job["metadata"]["name"])
        verdict = verdict or verdict_on(job)
        if target or verdict:
            self._wind_up(job, pods, verdict)
            return
        if suspended:
            self._suspend(job, pods)
            return
        self._resume_or_start(job)
        wanted = self._create_missing(job, pods, memory)
        self._write_status(job, pods, extra_active=wanted)
        deadline = spec.get("activeDeadlineSeconds")
        started = self._store.get(JOBS, job["metadata"]["namespace"], job["metadata"]["name"])["status"]["startTime"]
        if deadline is not None:
            key = (job["metadata"]["namespace"], job["metadata"]["name"])
            self._queue.add(key, after=epoch(started) + deadline - time.time())

    def _count(self, job: Object, pods: JobPods, memory: _Memory) -> tuple[str, str, str] | None:
        """Count pods that ended, let go of them, and see whether one of them fails the Job at once."""
        verdict = None
        succeeded = failed = 0
        fresh = [pod for pod in pods.succeeded + pods.failed if TRACKING in (pod["metadata"].get("finalizers") or [])]
        indexes: list[int] = []
        for pod in fresh:
            judgement = judge(job["spec"].get("podFailurePolicy"), pod)
            if pod["status"]["phase"] == "Succeeded":
                succeeded += 1
                indexes.append(completion_index(pod))
                memory.failures = 0
            else:
                failed += judgement.counts
                memory.failures += 1
                memory.last_failure = time.time()
            if judgement.fails_job and pod["status"]["phase"] == "Failed":
                verdict = verdict or ("FailureTarget", "PodFailurePolicy", judgement.fails_job)
        if fresh:
            self._update_status(job, lambda status: add_counts(status, succeeded, failed, indexes))
        for pod in fresh:
            remove_finalizer(self._store, PODS, pod, TRACKING)
        if job["spec"]["podReplacementPolicy"] == "TerminatingOrFailed":
            self._count_terminating(job, pods, memory)
        return verdict

    def _let_go(self, pods: list[Object]) -> None:
        for pod in pods:
            if TRACKING in (pod["metadata"].get("finalizers") or []):
                remove_finalizer(self._store, PODS, pod, TRACKING)

    def _count_terminating(self, job: Object, pods: JobPods, memory: _Memory) -> None:
        """Without a failure policy a pod counts as failed as soon as it is being deleted."""
        if job["spec"].get("podFailurePolicy") or job["spec"].get("suspend"):
            return
        for pod in pods.terminating:
            if TRACKING in (pod["metadata"].get("finalizers") or []):
                memory.failures += 1
                memory.last_failure = time.time()
                self._update_status(job, lambda status: add_counts(status, 0, 1, []))
                remove_finalizer(self._store, PODS, pod, TRACKING)

    def _wind_up(self, job: Object, pods: JobPods, verdict: tuple[str, str, str] | None) -> None:
        """First the target condition; the final one when every pod has ended."""
        present = condition_of(job, "FailureTarget") or condition_of(job, "SuccessCriteriaMet")
        if present:
            type_, reason, message = present["type"], present["reason"], present["message"]
        else:
            assert verdict is not None
            type_, reason, message = verdict
        for pod in pods.active:
            self._delete_pod(job, pod)
        left = pods.active + pods.terminating
        final = "Complete" if type_ == "SuccessCriteriaMet" else "Failed"

        def write(status: Object) -> None:
            set_condition(status, type_, "True", reason=reason, message=message, probe=True)
            write_counts(status, active=0, ready=0, terminating=len(left))
            if not left:
                set_condition(status, final, "True", reason=reason, message=message, probe=True)
                if final == "Complete":
                    status["completionTime"] = now()

        self._update_status(job, write)
        if not left:
            completed = ("Completed", "Job completed")
            self._events.event(
                job, *(completed if final == "Complete" else (reason, message)), warning=final == "Failed"
            )

    def _suspend(self, job: Object, pods: JobPods) -> None:
        for pod in pods.active:
            self._delete_pod(job, pod, counted=False)
        was = condition_of(job, "Suspended")

        def write(status: Object) -> None:
            set_condition(status, "Suspended", "True", reason="JobSuspended", message="Job suspended", probe=True)
            write_counts(status, active=0, ready=0, terminating=len(pods.active) + len(pods.terminating))

        self._update_status(job, write)
        if was is None:
            self._events.event(job, "Suspended", "Job suspended")

    def _resume_or_start(self, job: Object) -> None:
        resumed = condition_of(job, "Suspended") is not None

        def write(status: Object) -> None:
            if resumed:
                set_condition(status, "Suspended", "False", reason="JobResumed", message="Job resumed", probe=True)
                status["startTime"] = now()
            status.setdefault("startTime", now())

        self._update_status(job, write)
        if resumed:
            self._events.event(job, "Resumed", "Job resumed")

    # --- pods --------------------------------------------------------------------------------------------------

    def _create_missing(self, job: Object, pods: JobPods, memory: _Memory) -> int:
        spec = job["spec"]
        status = self._store.get(JOBS, job["metadata"]["namespace"], job["metadata"]["name"])["status"]
        occupied = len(pods.active)
        if spec["podReplacementPolicy"] == "Failed":
            occupied += len(pods.terminating)
        left = spec["parallelism"]
        if spec.get("completions") is not None:
            left = min(left, spec["completions"] - status.get("succeeded", 0))
        missing = left - occupied
        if job["metadata"].get("deletionTimestamp"):
            return 0
        if missing < 0:
            for pod in pods.active[missing:]:
                self._delete_pod(job, pod, counted=False)
        if missing <= 0 or not self._backoff_is_over(job, memory):
            return 0
        indexes = free_indexes(spec, status, pods) if spec["completionMode"] == "Indexed" else None
        return sum(self._create_pod(job, memory, indexes[n] if indexes else None) for n in range(missing))

    def _backoff_is_over(self, job: Object, memory: _Memory) -> bool:
        if not memory.failures:
            return True
        wait: float = min(self._backoff_s * 2 ** (memory.failures - 1), LONGEST_BACKOFF_S)
        left = memory.last_failure + wait - time.time()
        if left > 0:
            self._queue.add((job["metadata"]["namespace"], job["metadata"]["name"]), after=left)
        return left <= 0

    def _create_pod(self, job: Object, memory: _Memory, index: int | None) -> int:
        pod = pod_of(job, index=index, suffix=random_suffix())
        try:
            made = self._admission.create(PODS, pod)
        except errors.ApiError as refusal:
            self._events.event(job, "FailedCreate", f"Error creating: {refusal.message}", warning=True)
            memory.refused += 1
            wait = min(CREATE_RETRY_S * 2 ** min(memory.refused - 1, 6), LONGEST_BACKOFF_S)
            self._queue.add((job["metadata"]["namespace"], job["metadata"]["name"]), after=wait)
            return 0
        memory.refused = 0
        self._events.event(job, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return 1

    def _delete_pod(self, job: Object, pod: Object, *, counted: bool = True) -> None:
        meta = pod["metadata"]
        if not counted:  # suspended or superfluous: its end is no failure
            remove_finalizer(self._store, PODS, pod, TRACKING)
        delete(self._store, PODS, meta["namespace"], meta["name"], {"propagationPolicy": "Background"})
        self._events.event(job, "SuccessfulDelete", f"Deleted pod: {meta['name']}")

    # --- status and the end ------------------------------------------------------------------------------------

    def _write_status(self, job: Object, pods: JobPods, *, extra_active: int) -> None:
        ready = sum(is_ready(pod) for pod in pods.active)

        def write(status: Object) -> None:
            write_counts(status, active=len(pods.active) + extra_active, ready=ready, terminating=len(pods.terminating))

        self._update_status(job, write)

    def _update_status(self, job: Object, write: Callable[[Object], None]) -> None:
        def change(made: Object) -> None:
            made.setdefault("status", {}).setdefault("uncountedTerminatedPods", {})
            write(made["status"])

        self._store.update(JOBS, job["metadata"]["namespace"], job["metadata"]["name"], change)

    def _after_the_end(self, job: Object, pods: JobPods) -> None:
        for pod in pods.succeeded + pods.failed + pods.terminating:
            if TRACKING in (pod["metadata"].get("finalizers") or []):
                remove_finalizer(self._store, PODS, pod, TRACKING)
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None or job["metadata"].get("deletionTimestamp"):
            return
        ended = condition_of(job, "Complete") or condition_of(job, "Failed")
        assert ended is not None
        left = epoch(ended["lastTransitionTime"]) + ttl - time.time()
        key = (job["metadata"]["namespace"], job["metadata"]["name"])
        if left > 0:
            self._queue.add(key, after=left)
            return
        options = {"propagationPolicy": "Foreground", "preconditions": {"uid": job["metadata"]["uid"]}}
        delete(self._store, JOBS, *key, options)
