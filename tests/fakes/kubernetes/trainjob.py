"""The TrainJob controller: makes a JobSet out of a runtime, the trainer's settings and the patches."""

from __future__ import annotations

from collections.abc import Callable

from tests.fakes.kubernetes import errors
from tests.fakes.kubernetes.admission import Admission
from tests.fakes.kubernetes.controller import Recorder, WorkQueue
from tests.fakes.kubernetes.deletion import condition_of, set_condition
from tests.fakes.kubernetes.kinds import CLUSTER_RUNTIMES, JOB_SETS, TRAIN_JOBS, Kind, Object
from tests.fakes.kubernetes.patch import apply_patch
from tests.fakes.kubernetes.storage import Change, Store, copy_of

#: The port on which the first node waits for the others.
MASTER_PORT = "29500"
#: Merges templates by the lists' keys; custom kinds have no strategic merge, so it is done as for a built-in one.
_AS_BUILT_IN = Kind("batch", "v1", "JobSetTemplate", "jobsettemplates")


class TrainJobController:
    """Reconciles one TrainJob at a time."""

    def __init__(self, store: Store, admission: Admission) -> None:
        self._store = store
        self._admission = admission
        self._events = Recorder(store, "trainjob-controller")
        self._queue = WorkQueue(self._reconcile)
        store.listen(self._on_change)

    def add_runtime(self, name: str) -> None:
        """A ``torch`` runtime as the project's own manifests install it: one replicated job named node."""
        container = {"name": "node", "image": "pytorch/pytorch:2"}
        job = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
        node = {"name": "node", "template": {"spec": job}}
        spec = {"mlPolicy": {"numNodes": 1, "torch": {}}, "template": {"spec": {"replicatedJobs": [node]}}}
        self._store.create(CLUSTER_RUNTIMES, {"metadata": {"name": name}, "spec": spec})

    def _on_change(self, change: Change) -> None:
        meta = change.object["metadata"]
        if (change.kind is TRAIN_JOBS and change.type != "DELETED") or change.kind is JOB_SETS:
            self._queue.add((meta["namespace"], meta["name"]))

    def _reconcile(self, key: tuple[str, str]) -> None:
        train_job = self._store.find(TRAIN_JOBS, *key)
        if train_job is None or train_job["metadata"].get("deletionTimestamp"):
            return
        if condition_of(train_job, "Complete") or condition_of(train_job, "Failed"):
            return
        job_set = self._store.find(JOB_SETS, *key)
        if job_set is None:
            job_set = self._create(train_job)
        if job_set is not None:
            self._follow(train_job, job_set)

    def _create(self, train_job: Object) -> Object | None:
        name = train_job["spec"]["runtimeRef"]["name"]
        runtime = self._store.find(CLUSTER_RUNTIMES, "", name)
        if runtime is None:
            message = f'ClusterTrainingRuntime.trainer.kubeflow.org "{name}" not found'
            set_ = _condition("Failed", "True", "TrainingRuntimeNotSupported", message)
            self._write(train_job, set_)
            return None
        try:
            return self._admission.create(JOB_SETS, _job_set_of(train_job, runtime))
        except errors.ApiError as refusal:
            self._events.event(train_job, "TrainJobResourcesCreationFailed", refusal.message, warning=True)
            return None

    def _follow(self, train_job: Object, job_set: Object) -> None:
        suspended = bool(train_job["spec"].get("suspend"))
        if bool(job_set["spec"].get("suspend")) != suspended:
            meta = job_set["metadata"]
            self._store.update(
                JOB_SETS, meta["namespace"], meta["name"], lambda made: made["spec"].update(suspend=suspended)
            )
        status = job_set.get("status") or {}
        names = ("name", "ready", "succeeded", "failed", "active", "suspended")
        figures = [{name: one[name] for name in names} for one in status.get("replicatedJobsStatus") or []]
        self._write(train_job, lambda made: made.update(jobsStatus=figures))
        if suspended:
            self._write(train_job, _condition("Suspended", "True", "Suspended", "TrainJob is suspended"))
        elif condition_of(train_job, "Suspended"):
            self._write(train_job, _condition("Suspended", "False", "Resumed", "TrainJob is resumed"))
        for type_, final in (("Completed", "Complete"), ("Failed", "Failed")):
            if ended := condition_of(job_set, type_):
                self._write(train_job, _condition(final, "True", ended["reason"], ended["message"]))

    def _write(self, train_job: Object, write: Callable[[Object], None]) -> None:
        meta = train_job["metadata"]
        self._store.update(
            TRAIN_JOBS, meta["namespace"], meta["name"], lambda made: write(made.setdefault("status", {}))
        )


def _condition(type_: str, value: str, reason: str, message: str) -> Callable[[Object], None]:
    return lambda status: set_condition(status, type_, value, reason=reason, message=message)


def _job_set_of(train_job: Object, runtime: Object) -> Object:
    meta, spec = train_job["metadata"], train_job["spec"]
    template = copy_of(runtime["spec"]["template"])
    trainer = spec.get("trainer") or {}
    for replicated in template["spec"]["replicatedJobs"]:
        if replicated["name"] == "node":
            _apply_trainer(meta["name"], trainer, replicated["template"]["spec"])
    for one in spec.get("runtimePatches") or []:
        wanted = (one.get("trainingRuntimeSpec") or {}).get("template") or {}
        template = _patched(template, wanted)
    owner = {
        "apiVersion": TRAIN_JOBS.api_version, "kind": "TrainJob", "name": meta["name"], "uid": meta["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    labels = {**((template.get("metadata") or {}).get("labels") or {}), **(spec.get("labels") or {})}
    annotations = {**((template.get("metadata") or {}).get("annotations") or {}), **(spec.get("annotations") or {})}
    return {
        "metadata": {
            "name": meta["name"], "namespace": meta["namespace"], "labels": labels, "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": {**template["spec"], "suspend": bool(spec.get("suspend"))},
    }  # fmt: skip


def _apply_trainer(name: str, trainer: Object, job: Object) -> None:
    nodes = trainer.get("numNodes", 1)
    job |= {"parallelism": nodes, "completions": nodes, "completionMode": "Indexed"}
    container = next(one for one in job["template"]["spec"]["containers"] if one["name"] == "node")
    for field in ("image", "command", "args"):
        if field in trainer:
            container[field] = trainer[field]
    if trainer.get("resourcesPerNode"):
        container["resources"] = trainer["resourcesPerNode"]
    index = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
    container["env"] = [
        *(container.get("env") or []), *(trainer.get("env") or []),
        {"name": "PET_NNODES", "value": str(nodes)},
        {"name": "PET_NPROC_PER_NODE", "value": str(trainer.get("numProcPerNode", 1))},
        {"name": "PET_NODE_RANK", "valueFrom": index},
        {"name": "PET_MASTER_ADDR", "value": f"{name}-node-0-0.{name}"},
        {"name": "PET_MASTER_PORT", "value": MASTER_PORT},
    ]  # fmt: skip


def _patched(template: Object, patch: Object) -> Object:
    """Metadata and the named replicated jobs of a patch, merged by the lists' keys."""
    jobs = {one["name"]: one for one in (patch.get("spec") or {}).get("replicatedJobs") or []}
    merged: Object = copy_of(template)
    strategic = "application/strategic-merge-patch+json"
    if patch.get("metadata"):
        merged["metadata"] = apply_patch(_AS_BUILT_IN, merged.get("metadata") or {}, patch["metadata"], strategic)
    merged["spec"]["replicatedJobs"] = [
        apply_patch(_AS_BUILT_IN, one, jobs[one["name"]], strategic) if one["name"] in jobs else one
        for one in merged["spec"]["replicatedJobs"]
    ]
    return merged
