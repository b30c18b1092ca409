"""Kueue, JobSet and TrainJob in the fake cluster."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.kubernetes.fixture import IMAGE
from tests.unit.fakes.conftest import SLEEPER

NAMESPACE = "genai"
KUEUE = {"group": "kueue.x-k8s.io", "version": "v1beta2"}
JOB_SET = {"group": "jobset.x-k8s.io", "version": "v1alpha2", "plural": "jobsets", "namespace": NAMESPACE}
TRAIN_JOB = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "plural": "trainjobs", "namespace": NAMESPACE}
LABEL = {"kueue.x-k8s.io/queue-name": "research"}
GPU = {"resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "1", "memory": "1Gi"}}}
TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


@pytest.fixture(autouse=True)
def _queues(custom: Any) -> None:
    """One queue with one flavour: two GPUs."""
    covered = ["cpu", "memory", "nvidia.com/gpu"]
    amounts = [{"name": "cpu", "nominalQuota": "16"}, {"name": "memory", "nominalQuota": "64Gi"}]
    amounts.append({"name": "nvidia.com/gpu", "nominalQuota": "2"})
    groups = [{"coveredResources": covered, "flavors": [{"name": "h100", "resources": amounts}]}]
    for plural, name, spec in (
        ("resourceflavors", "h100", {"nodeLabels": {"nvidia.com/gpu.present": "true"}, "tolerations": [TOLERATION]}),
        ("clusterqueues", "research", {"resourceGroups": groups, "namespaceSelector": {}}),
    ):
        _ensure(custom, plural, {"metadata": {"name": name}, "spec": spec})
    _ensure(custom, "localqueues", {"metadata": {"name": "research"}, "spec": {"clusterQueue": "research"}})


def _ensure(custom: Any, plural: str, body: dict[str, Any]) -> None:
    where = {"namespace": NAMESPACE} if plural == "localqueues" else {}
    listing = custom.list_namespaced_custom_object if where else custom.list_cluster_custom_object
    if not listing(**KUEUE, **where, plural=plural)["items"]:
        create = custom.create_namespaced_custom_object if where else custom.create_cluster_custom_object
        create(**KUEUE, **where, plural=plural, body=body)


def conditions(cluster: Any, plural: str, name: str) -> dict[str, str]:
    """Condition -> reason, of those that are True."""
    for made in cluster.faults.objects(plural):
        if made["metadata"]["name"].startswith(name):
            listed = made.get("status", {}).get("conditions", [])
            return {one["type"]: one.get("reason", "") for one in listed if one["status"] == "True"}
    return {}


def message(cluster: Any, name: str, type_: str) -> str:
    for made in cluster.faults.objects("workloads"):
        if made["metadata"]["name"].startswith(f"job-{name}"):
            listed = made.get("status", {}).get("conditions", [])
            return next((one["message"] for one in listed if one["type"] == type_), "")
    return ""


class TestQueue:
    def test_a_job_runs_when_it_is_admitted(self, cluster, batch, make_job):
        made = batch.create_namespaced_job(
            NAMESPACE, make_job("admitted", "print(1)", labels=LABEL, pod={"container": dict(GPU)})
        )
        assert made.spec.suspend is True
        job = cluster.faults.wait_for_job("admitted")
        assert job["spec"]["template"]["spec"]["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
        assert conditions(cluster, "workloads", "job-admitted")["Finished"] == "Succeeded"

    def test_quota_is_counted_and_given_back(self, cluster, batch, make_job):
        for name in ("a", "b", "c"):
            pod = {"container": dict(GPU)}
            batch.create_namespaced_job(NAMESPACE, make_job(f"quota-{name}", labels=LABEL, pod=pod))
        cluster.faults.wait_for_pod("quota-a")
        cluster.faults.wait_for_pod("quota-b")
        why = cluster.faults.wait(lambda: message(cluster, "quota-c", "QuotaReserved"), "a reason")
        assert "insufficient unused quota for nvidia.com/gpu in flavor h100, 1 more needed" in why
        assert cluster.faults.pods("quota-c") == []
        cluster.faults.delete("jobs", "quota-a")
        cluster.faults.wait_for_pod("quota-c")

    def test_eviction_suspends_and_requeues(self, cluster, batch, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("bumped", labels=LABEL))
        first = cluster.faults.wait_for_pod("bumped")
        cluster.faults.evict_workload("bumped", requeue_after_s=0.3)
        assert conditions(cluster, "workloads", "job-bumped")["Evicted"] == "Preempted"
        cluster.faults.wait_for_job("bumped", "Suspended")
        second = cluster.faults.wait_for_pod("bumped", other_than=first)
        assert second != first
        assert batch.read_namespaced_job("bumped", NAMESPACE).status.failed is None

    def test_a_queue_that_does_not_exist(self, cluster, batch, make_job):
        job = make_job("nowhere", labels={"kueue.x-k8s.io/queue-name": "nobody"})
        batch.create_namespaced_job(NAMESPACE, job)
        why = cluster.faults.wait(lambda: message(cluster, "nowhere", "QuotaReserved"), "a reason")
        assert why == "LocalQueue nobody doesn't exist"

    def test_it_can_be_held(self, cluster, batch, make_job):
        cluster.faults.hold_queue()
        batch.create_namespaced_job(NAMESPACE, make_job("waiting", "print(1)", labels=LABEL))
        cluster.faults.wait(lambda: message(cluster, "waiting", "QuotaReserved"), "a reason")
        assert cluster.faults.pods("waiting") == []
        cluster.faults.hold_queue(False)
        cluster.faults.wait_for_job("waiting")

    def test_without_kueue_the_label_means_nothing(self, cluster, batch, make_job):
        cluster.faults.set_group("kueue.x-k8s.io", installed=False)
        batch.create_namespaced_job(NAMESPACE, make_job("unqueued", "print(1)", labels=LABEL))
        cluster.faults.wait_for_job("unqueued")


def job_set(name: str, code: str, *, pods: int = 2, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": IMAGE, "command": ["python", "-c", code]}
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [container]}
    policy = {"rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
    job = {
        "completionMode": "Indexed", "completions": pods, "parallelism": pods, "backoffLimit": 0,
        "podFailurePolicy": policy, "template": {"spec": pod},
    }  # fmt: skip
    replicated = [{"name": "node", "replicas": 1, "template": {"spec": job}}]
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": {"name": name},
        "spec": {"replicatedJobs": replicated, **spec},
    }  # fmt: skip


RESTART_ON_MAINTENANCE = {
    "maxRestarts": 0,
    "rules": [
        {
            "name": "maintenance",
            "action": "RestartJobSetAndIgnoreMaxRestarts",
            "onJobFailureReasons": ["PodFailurePolicy"],
        }
    ],
}


class TestJobSet:
    def test_runs_every_pod(self, cluster, custom):
        custom.create_namespaced_custom_object(**JOB_SET, body=job_set("pair", "print(1)"))
        cluster.faults.wait(lambda: "Completed" in conditions(cluster, "jobsets", "pair"), "Completed")
        pods = cluster.faults.pods("pair-node-0")
        assert len(pods) == 2
        assert pods[0]["metadata"]["labels"]["jobset.sigs.k8s.io/jobset-name"] == "pair"
        assert pods[0]["spec"]["subdomain"] == "pair"

    def test_a_failed_job_fails_it(self, cluster, custom):
        custom.create_namespaced_custom_object(**JOB_SET, body=job_set("broken", "raise SystemExit(1)"))
        cluster.faults.wait(lambda: "Failed" in conditions(cluster, "jobsets", "broken"), "Failed")
        assert conditions(cluster, "jobsets", "broken")["Failed"] == "FailedJobs"

    def test_maintenance_restarts_it_for_free(self, cluster, custom):
        body = job_set("moved", SLEEPER, failurePolicy=RESTART_ON_MAINTENANCE)
        custom.create_namespaced_custom_object(**JOB_SET, body=body)
        first = cluster.faults.wait_for_pod("moved-node-0")
        uid = cluster.faults.pods("moved-node-0")[0]["metadata"]["uid"]
        cluster.faults.preempt(first)

        def again() -> bool:
            pods = cluster.faults.pods("moved-node-0")
            return len(pods) == 2 and all(
                pod["metadata"]["labels"]["jobset.sigs.k8s.io/restart-attempt"] == "1"
                and pod["status"]["phase"] == "Running"
                for pod in pods
            )

        cluster.faults.wait(again, "both pods of the second attempt")
        status = cluster.faults.objects("jobsets")[0]["status"]
        assert (status["restarts"], status["restartsCountTowardsMax"]) == (1, 0)
        assert uid not in {pod["metadata"]["uid"] for pod in cluster.faults.pods()}

    def test_deleting_it_takes_everything(self, cluster, custom):
        custom.create_namespaced_custom_object(**JOB_SET, body=job_set("gone", SLEEPER))
        cluster.faults.wait_for_pod("gone-node-0")
        custom.delete_namespaced_custom_object(**JOB_SET, name="gone", propagation_policy="Foreground")
        cluster.faults.wait(lambda: not cluster.faults.objects("jobsets"), "the JobSet is gone")
        assert cluster.faults.objects("jobs") == []

    def test_kueue_queues_it_as_a_whole(self, cluster, custom):
        body = job_set("queued", "print(1)")
        body["metadata"]["labels"] = LABEL
        cluster.faults.hold_queue()
        made = custom.create_namespaced_custom_object(**JOB_SET, body=body)
        assert made["spec"]["suspend"] is True
        cluster.faults.wait(lambda: "Suspended" in conditions(cluster, "jobsets", "queued"), "Suspended")
        cluster.faults.hold_queue(False)
        cluster.faults.wait(lambda: "Completed" in conditions(cluster, "jobsets", "queued"), "Completed")


class TestTrainJob:
    def test_makes_a_job_set_and_follows_it(self, cluster, custom):
        code = "import os;print(os.environ['PET_NODE_RANK'], os.environ['PET_NNODES'], os.environ['PET_MASTER_ADDR'])"
        patch = {"metadata": {"name": "node"}}
        pod_patch = {"terminationGracePeriodSeconds": 7, "containers": [{"name": "node", "volumeMounts": []}]}
        node = {"name": "node", "template": {"spec": {"template": {"spec": pod_patch}}}}
        patch = {"manager": "genai", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [node]}}}}
        body = {
            "apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": "train"},
            "spec": {
                "runtimeRef": {"name": "torch-distributed"},
                "trainer": {"image": IMAGE, "command": ["python", "-c", code], "numNodes": 2},
                "runtimePatches": [patch],
            },
        }  # fmt: skip
        custom.create_namespaced_custom_object(**TRAIN_JOB, body=body, field_validation="Strict")
        cluster.faults.wait(lambda: "Complete" in conditions(cluster, "trainjobs", "train"), "Complete")
        pods = cluster.faults.pods("train-node-0")
        assert {pod["spec"]["terminationGracePeriodSeconds"] for pod in pods} == {7}
        logs = sorted(cluster.faults.container_log(pod["metadata"]["uid"]).split(" ", 1)[1] for pod in pods)
        assert logs == ["0 2 127.0.0.1\n", "1 2 127.0.0.1\n"]
