"""Jobs in a Kueue queue and GPUs by claim, against controllers that behave like theirs."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest

from genai_operators.compute import attempts
from genai_operators.compute.contract import Phase, Workload
from genai_operators.compute.driver import Driver
from genai_operators.compute.kubernetes import pods
from genai_operators.compute.owners import Owner
from genai_operators.compute.resources import GIB, Resources
from genai_operators.store import Store
from tests.fakes import checkpointing
from tests.unit.compute.kubernetes.test_backend import begin
from tests.unit.compute.kubernetes.workloads import claimed, probe_until

H100 = "NVIDIA-H100-80GB-HBM3"
KUEUE = "/apis/kueue.x-k8s.io/v1beta2"
ONE_GPU = Resources(gpu="h100", gpu_count=1, gpu_memory_bytes=60 * GIB, cpu=0.1, memory_bytes=GIB)


@pytest.fixture
def queued(cluster, backend):
    """A backend whose jobs go through a queue with room for one GPU."""
    cluster.require_gpu(H100)
    api, name = backend.api, f"research-{secrets.token_hex(4)}"
    amounts = [("cpu", "16"), ("memory", "64Gi"), ("nvidia.com/gpu", "1")]
    resources = [{"name": each, "nominalQuota": quota} for each, quota in amounts]
    groups = [{"coveredResources": [n for n, _ in amounts], "flavors": [{"name": name, "resources": resources}]}]
    spec = {"resourceGroups": groups, "namespaceSelector": {}}
    local = f"{KUEUE}/namespaces/{backend.namespace}/localqueues"
    made = [(f"{KUEUE}/resourceflavors", {}), (f"{KUEUE}/clusterqueues", spec), (local, {"clusterQueue": name})]
    for path, each in made:
        api.create(path, {"metadata": {"name": name}, "spec": each})
    yield replace(backend, queue=name)
    for path, _ in reversed(made):
        api.delete(f"{path}/{name}", uid=api.find(f"{path}/{name}")["metadata"]["uid"])


class TestQueue:
    def test_the_second_waits_for_the_first_and_says_what_for(self, cluster, queued, tmp_path):
        first = claimed(tmp_path, name="first", resources=ONE_GPU, steps=2000, step_s=0.05)
        second = claimed(tmp_path, name="second", resources=ONE_GPU)
        begin(cluster, queued, first)
        queued.launch(second)
        waits = cluster.wait(
            lambda: (probe := queued.probe(second)) and "quota" in probe.detail and probe,
            "the queue's words",
            seconds=30,
        )
        assert waits.phase is Phase.QUEUED
        assert f"queue {queued.queue}" in waits.detail
        assert "nvidia.com/gpu" in waits.detail
        queued.stop(first)
        assert probe_until(queued, second, "succeeded", "failed")[-1].phase is Phase.SUCCEEDED

    def test_one_that_lost_its_place_is_not_over(self, cluster, queued, tmp_path):
        attempt = claimed(tmp_path, resources=ONE_GPU, steps=60, step_s=0.05)
        begin(cluster, queued, attempt)
        cluster.faults.hold_queue()
        cluster.faults.evict_workload(attempt.name)
        cluster.wait(lambda: f"queue {queued.queue} again" in queued.probe(attempt).detail, "its place in the queue")
        last = queued.probe(attempt)
        cluster.faults.hold_queue(False)
        assert last.phase is Phase.PREEMPTED
        probe_until(queued, attempt, "succeeded", "failed")

    def test_it_can_be_taken_out_of_the_queue(self, cluster, queued, tmp_path):
        cluster.faults.hold_queue()
        attempt = claimed(tmp_path, resources=ONE_GPU)
        queued.launch(attempt)
        probe_until(queued, attempt, "queued")
        attempts.abandon(attempt, reason="the next rung is tried")
        queued.stop(attempt)
        probe_until(queued, attempt, "abandoned")
        cluster.faults.hold_queue(False)


class TestClaimedDevices:
    def test_the_claim_is_made_beside_the_job_and_goes_with_it(self, cluster, backend, tmp_path):
        cluster.require_gpu(H100)
        attempt = claimed(tmp_path, resources=ONE_GPU, steps=2000, step_s=0.05)
        by_claim = replace(backend, device_class="gpu.nvidia.com")
        begin(cluster, by_claim, attempt)
        by_claim.launch(attempt)

        def owners():
            templates = cluster.objects("resourceclaimtemplates")
            return [template["metadata"]["ownerReferences"][0]["name"] for template in templates]

        assert owners().count(attempt.name) == 1
        by_claim.stop(attempt)
        cluster.wait(lambda: attempt.name not in owners(), "the claim to go")

    def test_one_whose_claim_is_refused_leaves_no_job_that_waits_for_it(self, cluster, backend, tmp_path):
        workload = Workload(kind=checkpointing.KIND, params={"name": "refused"})
        owner = Owner(dag_id="dag", run_id="run", task_id="task")
        store = Store.open(tmp_path.as_uri())
        attempts.join(store, workload, owner)
        cluster.faults.deny("create", "resourceclaimtemplates")
        driver = Driver(
            store=store,
            directory=workload.directory,
            backend=replace(backend, device_class="gpu.nvidia.com"),
            owner=owner,
            ladder=[ONE_GPU],
        )
        settled = driver.advance().settled
        assert settled is not None
        assert settled.error == "ConfigurationError"
        name = attempts.find_attempt(store, workload.directory, 1).name
        cluster.faults.wait(lambda: name not in map(pods.name, cluster.faults.objects("jobs")), "its Job to go")

    def test_a_crash_between_the_two_is_made_up_for(self, cluster, backend, tmp_path):
        attempt = claimed(tmp_path, resources=ONE_GPU)
        by_claim = replace(backend, device_class="gpu.nvidia.com")
        cluster.faults.deny("create", "resourceclaimtemplates")
        with pytest.raises(Exception, match="resourceclaimtemplates"):
            by_claim.launch(attempt)
        cluster.wait(lambda: cluster.pods(attempt.name), "its pod")
        cluster.faults.well()
        probe_until(by_claim, attempt, "succeeded")
