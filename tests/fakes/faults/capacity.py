"""Too little of something: memory of a host or a GPU, quota, room in a queue, an image, money."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any

from genai_operators.compute.resources import GIB, Resources
from tests.fakes.faults.table import ROWS
from tests.fakes.kubernetes.settings import gpu_node
from tests.fakes.kubernetes_run import ClusterRun

Settled = dict[str, Any]
WAITS: dict[str, Any] = {"waits": True}
GPUS = (
    gpu_node("gpu-small", product="NVIDIA-L4", memory_mib=23034, count=1, instance_type="g6.2xlarge"),
    gpu_node("gpu-large", count=1),
)
GPU_LADDER = [
    Resources(gpu="l4", gpu_count=1, memory_bytes=4 * GIB),
    Resources(gpu="h100", gpu_count=1, memory_bytes=8 * GIB),
]
LADDER = [Resources(memory_bytes=2 * GIB), Resources(memory_bytes=3 * GIB)]
#: Of one pod: a currency unit each second.
PRICE_PER_HOUR = 3600.0


def claims(run: ClusterRun) -> list[dict[str, Any]]:
    return [run.store.get_json(run.attempt(number).path("claim.json")) for number in range(1, run.newest() + 1)]


def asked(run: ClusterRun, name: str) -> list[Any]:
    """What each attempt asked for."""
    return [claim["resources"][name] for claim in claims(run)]


# --- memory ----------------------------------------------------------------------------------------------------------


@ROWS.row("out of memory, host", "running", params=WAITS, jobs=2, begun=2)
def host_memory(run: ClusterRun) -> Settled:
    """The next attempt has twice as much, and resumes."""
    run.ladder = LADDER
    subject = run.submit()
    run.drive(subject, until=lambda: run.checkpoint() >= 5)
    run.cluster.faults.out_of_memory(run.pod())
    run.drive(subject, until=lambda: run.began(2))
    settled = run.finish(subject)
    assert asked(run, "memory_bytes") == [2 * GIB, 4 * GIB]
    return settled


@ROWS.row("out of memory, host", "twice", params=WAITS, jobs=2, begun=2, ends="OutOfMemory")
def host_memory_twice(run: ClusterRun) -> Settled:
    """The limit is raised once; then a person has to look."""
    run.ladder = LADDER
    subject = run.submit()
    for number in (1, 2):
        run.drive(subject, until=lambda number=number: run.began(number))  # type: ignore[misc]
        run.cluster.faults.out_of_memory(run.pod())
    return run.drive(subject)


@ROWS.row(
    "out of memory, GPU",
    "until half the rows fit",
    nodes=GPUS,
    jobs=2,
    begun=2,
    params={"batch": 4, "trouble": {"at": 7, "kind": "gpu memory", "before": 2}},
)
def gpu_memory(run: ClusterRun) -> Settled:
    run.ladder = GPU_LADDER
    settled = run.drive(run.submit())
    assert asked(run, "micro_batch") == [None, 2]
    return settled


@ROWS.row(
    "out of memory, GPU",
    "until the next GPU fits",
    nodes=GPUS,
    jobs=4,
    begun=4,
    params={"batch": 4, "trouble": {"at": 7, "kind": "gpu memory", "before": 4}},
)
def gpu_memory_again(run: ClusterRun) -> Settled:
    """All rows, a half, a quarter; then the next GPU of the ladder, with all rows again."""
    run.ladder = GPU_LADDER
    settled = run.drive(run.submit())
    assert asked(run, "micro_batch") == [None, 2, 1, None]
    assert asked(run, "gpu") == ["l4", "l4", "l4", "h100"]
    return settled


# --- image, quota, queue ---------------------------------------------------------------------------------------------


@ROWS.row("image misspelt", "starting", ends="ImagePullFailed", begun=0)
def image_typo(run: ClusterRun) -> Settled:
    run.backend["image"] = run.backend["image"].replace("/", "/x", 1)
    return run.drive(run.submit())


@ROWS.row("quota of Jobs used up", "and then given back", params=WAITS)
def job_quota(run: ClusterRun) -> Settled:
    """It waits as in a queue."""
    run.cluster.faults.set_quota({"count/jobs.batch": "0"})
    subject = run.submit(starting_s=2.0)
    run.drive(subject, until=lambda: any("queued" in line and "quota" in line for line in run.lines))
    run.cluster.faults.set_quota(None)
    return run.finish(subject)


@ROWS.row("quota of Jobs used up", "longer than the limit", ends="QuotaExceeded", jobs=0, begun=0)
def job_quota_for_good(run: ClusterRun) -> Settled:
    """The next rung of the ladder is asked for in vain as well."""
    run.ladder = LADDER
    run.cluster.faults.set_quota({"count/jobs.batch": "0"})
    settled = run.drive(run.submit(queued_s=2.0))
    assert asked(run, "memory_bytes") == [rung.memory_bytes for rung in LADDER]
    return settled


@ROWS.row("quota of pods used up", "and then given back", params=WAITS)
def pod_quota(run: ClusterRun) -> Settled:
    run.cluster.faults.set_quota({"pods": "0"})
    subject = run.submit()
    run.drive(subject, until=lambda: any("quota" in line for line in run.lines))
    run.cluster.faults.set_quota(None)
    return run.finish(subject)


@ROWS.row("quota of pods used up", "longer than the limit", ends="QuotaExceeded", begun=0)
def pod_quota_for_good(run: ClusterRun) -> Settled:
    run.cluster.faults.set_quota({"pods": "0"})
    return run.drive(run.submit(queued_s=2.0))


@ROWS.row("queue (Kueue)", "longer than the limit", params=WAITS, jobs=2)
def queue(run: ClusterRun) -> Settled:
    """The next rung of the ladder is asked for, and the first is taken out of the queue."""
    run.ladder = LADDER
    in_queue(run)
    run.cluster.faults.hold_queue()
    subject = run.submit(queued_s=2.0)
    run.drive(subject, until=lambda: run.newest() == 2)
    run.cluster.faults.hold_queue(held=False)
    settled = run.finish(subject)
    assert asked(run, "memory_bytes") == [rung.memory_bytes for rung in LADDER]
    return settled


@ROWS.row("queue (Kueue)", "takes its quota away", params=WAITS, begun=2)
def queue_preempts(run: ClusterRun) -> Settled:
    """The Job is suspended, its pod stopped; admitted again, it goes on."""
    in_queue(run)
    subject = run.submit()
    run.drive(subject, until=lambda: run.checkpoint() >= 5)
    run.cluster.faults.evict_workload(run.attempt().name)
    run.drive(subject, until=lambda: run.starts() == 2)
    return run.finish(subject)


def in_queue(run: ClusterRun) -> None:
    """The run goes through a queue of its own with room for a large machine or two; it is removed after the run."""
    from kubernetes import client

    custom = client.CustomObjectsApi(run.cluster.api_client())
    kueue, name = {"group": "kueue.x-k8s.io", "version": "v1beta2"}, f"research-{secrets.token_hex(4)}"
    amounts = [{"name": "cpu", "nominalQuota": "16"}, {"name": "memory", "nominalQuota": "64Gi"}]
    flavors = [{"name": name, "resources": amounts}]
    groups = [{"coveredResources": ["cpu", "memory"], "flavors": flavors}]
    for plural, spec in (
        ("resourceflavors", {}),
        ("clusterqueues", {"resourceGroups": groups, "namespaceSelector": {}}),
    ):
        custom.create_cluster_custom_object(**kueue, plural=plural, body={"metadata": {"name": name}, "spec": spec})
        run.when_over(partial(custom.delete_cluster_custom_object, **kueue, plural=plural, name=name))
    body, local = {"metadata": {"name": name}, "spec": {"clusterQueue": name}}, {"plural": "localqueues"}
    local["namespace"] = run.cluster.namespace
    custom.create_namespaced_custom_object(**kueue, **local, body=body)
    run.when_over(partial(custom.delete_namespaced_custom_object, **kueue, **local, name=name))
    run.backend["queue"] = name


# --- money -----------------------------------------------------------------------------------------------------------


@ROWS.row("budget reached", "running", ends="BudgetExceeded", params=WAITS)
def budget(run: ClusterRun) -> Settled:
    """It is asked to checkpoint and stop, and the failure says what was spent and how far it got."""
    spend(run, at_most=2.0)
    settled = run.drive(run.submit())
    assert "EUR" in settled["message"]
    assert "of 20" in settled["message"]
    assert run.cluster.real or len(run.witnessed("stop")) == 1
    return settled


@ROWS.row("budget reached", "and then raised", params=WAITS, jobs=2, begun=2)
def budget_raised(run: ClusterRun) -> Settled:
    """The task is run again with a higher limit: it goes on from its checkpoint."""
    spend(run, at_most=2.0)
    assert run.drive(run.submit())["error"] == "BudgetExceeded"
    run.settle()
    spend(run, at_most=1e6)
    subject = run.submit()
    run.drive(subject, until=lambda: run.starts(2))
    assert claims(run)[1]["step"] > 0
    return run.finish(subject)


def spend(run: ClusterRun, *, at_most: float) -> None:
    run.ladder = [Resources(memory_bytes=2 * GIB, price_per_hour=PRICE_PER_HOUR, currency="EUR")]
    run.budget = {"max_cost": at_most, "currency": "EUR"}
