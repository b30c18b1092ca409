"""What Kueue asks of the kinds that it manages: their pods, how to suspend them, whether they have ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tests.fakes.kubernetes.deletion import condition_of
from tests.fakes.kubernetes.kinds import JOB_SETS, JOBS, TRAIN_JOBS, Kind, Object
from tests.fakes.kubernetes.quantities import pod_requests

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
LIMIT_LABEL = "kueue.x-k8s.io/max-exec-time-seconds"
#: Which node labels Kueue put into a template, so that it can take them out again.
_PLACED = "kueue.fake/placed"
MANAGED = (JOBS, JOB_SETS, TRAIN_JOBS)
_FINAL = {JOBS: ("Complete", "Failed"), JOB_SETS: ("Completed", "Failed"), TRAIN_JOBS: ("Complete", "Failed")}


@dataclass(frozen=True)
class PodSet:
    """So many equal pods."""

    name: str
    count: int
    template: Object

    def requests(self) -> dict[str, Decimal]:
        """What all of them ask for together."""
        each = pod_requests(self.template["spec"])
        return {name: amount * self.count for name, amount in each.items()}


def queue_of(made: Object) -> str:
    """The LocalQueue that an object names, or nothing."""
    return str((made["metadata"].get("labels") or {}).get(QUEUE_LABEL, ""))


def pod_sets(kind: Kind, made: Object) -> list[PodSet]:
    """The pods that an object will have."""
    spec = made["spec"]
    if kind is JOBS:
        return [PodSet("main", spec["parallelism"], spec["template"])]
    if kind is JOB_SETS:
        return [
            PodSet(
                one["name"],
                one.get("replicas", 1) * (one["template"]["spec"].get("parallelism") or 1),
                one["template"]["spec"]["template"],
            )
            for one in spec.get("replicatedJobs") or []
        ]
    trainer = spec.get("trainer") or {}
    container = {"name": "node", "resources": trainer.get("resourcesPerNode") or {}}
    return [PodSet("node", trainer.get("numNodes", 1), {"spec": {"containers": [container]}})]


def templates(kind: Kind, made: Object) -> list[Object]:
    """The pod templates inside an object, to be changed in place. A TrainJob has none: its runtime does."""
    if kind is JOBS:
        return [made["spec"]["template"]]
    if kind is JOB_SETS:
        return [one["template"]["spec"]["template"] for one in made["spec"].get("replicatedJobs") or []]
    return []


def outcome(kind: Kind, made: Object) -> tuple[str, str] | None:
    """Reason and message for the Workload when the object has ended."""
    good, bad = _FINAL[kind]
    if found := condition_of(made, good):
        return "Succeeded", found.get("message") or "Job finished successfully"
    if found := condition_of(made, bad):
        return "Failed", found.get("message") or "Job failed"
    return None


def is_quiet(kind: Kind, made: Object) -> bool:
    """Whether no pod of it is active any more."""
    status = made.get("status") or {}
    if kind is JOBS:
        return not status.get("active") and not status.get("terminating")
    return all(not one.get("active") for one in status.get("replicatedJobsStatus") or status.get("jobsStatus") or [])


def flavor_for(
    flavors: Mapping[str, Object], resources: list[Mapping[str, Any]], free: Mapping[tuple[str, str], Decimal],
    asked: Mapping[str, Decimal], covered: list[str],
) -> tuple[str | None, list[str]]:  # fmt: skip
    """The first flavour of a resource group with room, and why the others have none."""
    whys: list[str] = []
    for quotas in resources:
        name = quotas["name"]
        if name not in flavors:
            whys.append(f"flavor {name} not found")
            continue
        short = [
            f"insufficient unused quota for {resource} in flavor {name}, {more} more needed"
            for resource in covered
            if (more := asked.get(resource, Decimal(0)) - free.get((name, resource), Decimal(0))) > 0
        ]
        if not short:
            return name, []
        whys += short
    return None, whys


def place(template: Object, labels: Mapping[str, str], tolerations: list[Object], *, remove: bool) -> None:
    """Put a flavour's node labels and tolerations into a template; take them out again on suspension."""
    spec = template["spec"]
    annotations = template.setdefault("metadata", {}).setdefault("annotations", {})
    if remove:
        for key in filter(None, annotations.pop(_PLACED, "").split(",")):
            (spec.get("nodeSelector") or {}).pop(key, None)
        return
    fresh = [key for key in labels if key not in (spec.get("nodeSelector") or {})]
    if fresh:
        annotations[_PLACED] = ",".join(fresh)
    if labels:
        spec["nodeSelector"] = {**(spec.get("nodeSelector") or {}), **labels}
    if tolerations:
        present = spec.setdefault("tolerations", [])
        present += [one for one in tolerations if one not in present]
