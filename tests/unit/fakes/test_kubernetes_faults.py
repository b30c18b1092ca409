"""What the fake cluster does on command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import pytest
import urllib3
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from tests.fakes.kubernetes.fixture import IMAGE, ROOT, FakeCluster, cluster_from_environment
from tests.fakes.kubernetes.settings import Image, NodeShape

NAMESPACE = "genai"
STUBBORN = "import signal,time;signal.signal(signal.SIGTERM,signal.SIG_IGN);print('up',flush=True);time.sleep(60)"


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def running(cluster: FakeCluster, batch: Any, job: dict[str, Any]) -> str:
    """Create a Job, and wait until its process has said that it is up; returns the pod's name."""
    batch.create_namespaced_job(NAMESPACE, job)
    pod = cluster.faults.wait_for_pod(job["metadata"]["name"])
    uid = next(one["metadata"]["uid"] for one in cluster.faults.pods() if one["metadata"]["name"] == pod)
    cluster.faults.wait(lambda: "up" in cluster.faults.container_log(uid), f"{pod} is up")
    return pod


def pod_of(cluster: FakeCluster, name: str) -> dict[str, Any] | None:
    return next((pod for pod in cluster.faults.pods() if pod["metadata"]["name"] == name), None)


def condition(pod: dict[str, Any], type_: str) -> dict[str, Any]:
    return next((one for one in pod["status"].get("conditions", []) if one["type"] == type_), {})


class Recorded:
    """Every state of the pods of a Job, as a watch would have seen it."""

    def __init__(self, cluster: FakeCluster, batch: Any) -> None:
        self._core = client.CoreV1Api(batch.api_client)
        self._version = self._core.list_namespaced_pod(NAMESPACE).metadata.resource_version

    def states(self, pod: str) -> list[dict[str, Any]]:
        answer = self._core.list_namespaced_pod(
            NAMESPACE, watch=True, resource_version=self._version, timeout_seconds=1, _preload_content=False
        )
        events = [json.loads(line) for line in answer.data.splitlines()]
        return [event["object"] for event in events if event["object"]["metadata"]["name"] == pod]


class TestDisruption:
    def test_a_preempted_pod_is_replaced_and_costs_no_backoff(self, cluster, batch, make_job):
        first = running(cluster, batch, make_job("preempted"))
        record = Recorded(cluster, batch)
        cluster.faults.preempt(first)
        second = cluster.faults.wait_for_pod("preempted", other_than=first)
        last = record.states(first)[-1]
        assert last["status"]["phase"] == "Failed"
        assert condition(last, "DisruptionTarget")["reason"] == "PreemptionByScheduler"
        assert last["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 75
        assert pod_of(cluster, first) is None
        job = batch.read_namespaced_job("preempted", NAMESPACE)
        assert (job.status.failed, job.status.conditions, second != first) == (None, None, True)

    def test_the_replacement_waits_for_the_end_of_the_first(self, cluster, batch, make_job):
        first = running(cluster, batch, make_job("slow-to-stop", STUBBORN))
        cluster.faults.preempt(first, grace_s=1)
        states = set()

        def replaced() -> bool:
            pods = cluster.faults.pods("slow-to-stop")
            active = [pod for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]
            states.add(len(active))
            return bool(active) and active[0]["metadata"]["name"] != first

        cluster.faults.wait(replaced, "a replacement")
        assert max(states) == 1

    def test_an_evicted_pod_stays_as_a_record(self, cluster, batch, make_job):
        first = running(cluster, batch, make_job("evicted"))
        cluster.faults.evict(first)
        cluster.faults.wait_for_pod("evicted", other_than=first)
        pod = pod_of(cluster, first)
        assert pod is not None
        assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "Evicted")
        assert condition(pod, "DisruptionTarget")["reason"] == "TerminationByKubelet"

    def test_the_eviction_api(self, cluster, batch, make_job):
        first = running(cluster, batch, make_job("drained"))
        record = Recorded(cluster, batch)
        cluster.evict_pod(first)
        cluster.faults.wait_for_pod("drained", other_than=first)
        assert condition(record.states(first)[-1], "DisruptionTarget")["reason"] == "EvictionByEvictionAPI"

    def test_out_of_memory(self, cluster, batch, make_job):
        pod = running(cluster, batch, make_job("hungry"))
        process = cluster.faults.process_of(pod)
        cluster.faults.out_of_memory(pod)
        job = cluster.faults.wait_for_job("hungry", "Failed")
        ended = pod_of(cluster, pod)["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")
        assert job["status"]["conditions"][-1]["reason"] == "BackoffLimitExceeded"
        assert not exists(process)

    def test_a_pod_deleted_by_hand_counts_as_failed(self, cluster, batch, make_job):
        pod = running(cluster, batch, make_job("deleted"))
        cluster.delete_pod(pod)
        assert cluster.faults.wait_for_job("deleted", "Failed")["status"]["failed"] == 1


class TestLostNode:
    def test_its_pods_are_replaced_when_they_are_collected(self, cluster, batch, make_job):
        node = {"nodeSelector": {"kubernetes.io/os": "linux"}}
        first = running(cluster, batch, make_job("moved", pod=dict(node)))
        where = pod_of(cluster, first)["spec"]["nodeName"]
        cluster.faults.add_node(_spare())
        record = Recorded(cluster, batch)
        cluster.faults.lose_node(where)
        second = cluster.faults.wait_for_pod("moved", other_than=first)
        assert pod_of(cluster, second)["spec"]["nodeName"] != where
        last = record.states(first)[-1]
        assert condition(last, "DisruptionTarget")["reason"] == "DeletionByTaintManager"
        ready = condition(
            next(one for one in cluster.faults.objects("nodes") if one["metadata"]["name"] == where), "Ready"
        )
        assert (ready["status"], ready["reason"]) == ("Unknown", "NodeStatusUnknown")

    def test_a_zombie_runs_until_the_node_is_back(self, cluster, batch, make_job):
        first = running(cluster, batch, make_job("zombie"))
        process = cluster.faults.process_of(first)
        where = pod_of(cluster, first)["spec"]["nodeName"]
        cluster.faults.add_node(_spare("spare-2"))
        cluster.faults.lose_node(where, kill=False)
        cluster.faults.wait_for_pod("zombie", other_than=first)
        assert exists(process)
        cluster.faults.heal_node(where)
        cluster.faults.wait(lambda: not exists(process), "the zombie is gone")

    def test_spot_capacity_is_taken_away(self, cluster, batch, make_job):
        """The machine and its object go; the Job gets another pod elsewhere, and nothing counts as failed."""
        cluster.faults.add_node(_spare("spot-1"))
        job = make_job("spot", pod={"nodeSelector": {"kubernetes.io/hostname": "spot-1"}})
        first = running(cluster, batch, job)
        record = Recorded(cluster, batch)
        cluster.faults.remove_node("spot-1")
        cluster.faults.wait(lambda: pod_of(cluster, first) is None, "it is gone")
        assert condition(record.states(first)[-1], "DisruptionTarget")["reason"] == "DeletionByPodGC"
        cluster.faults.wait(lambda: cluster.faults.pods("spot"), "another pod")
        assert batch.read_namespaced_job("spot", NAMESPACE).status.failed is None

    def test_a_pod_without_a_node_can_be_deleted(self, cluster, batch, make_job):
        cluster.faults.hold_scheduling()
        batch.create_namespaced_job(NAMESPACE, make_job("nodeless"))
        cluster.faults.wait(lambda: cluster.faults.pods("nodeless"), "a pod")
        cluster.delete_pod(cluster.faults.pods("nodeless")[0]["metadata"]["name"])
        assert cluster.faults.wait_for_job("nodeless", "Failed")["status"]["failed"] == 1

    def test_without_collection_they_stay_terminating(self, cluster, batch, make_job):
        first = running(cluster, batch, make_job("unknown"))
        where = pod_of(cluster, first)["spec"]["nodeName"]
        cluster.faults.lose_node(where, collect_after_s=None)
        cluster.faults.wait(lambda: pod_of(cluster, first)["metadata"].get("deletionTimestamp"), "marked for deletion")
        assert pod_of(cluster, first)["status"]["phase"] == "Running"
        cluster.faults.heal_node(where)
        cluster.faults.wait(lambda: pod_of(cluster, first) is None, "it is gone")


def _spare(name: str = "spare-1") -> Any:
    return NodeShape(name)


class TestStuck:
    def test_a_stuck_pod_blocks_its_replacement(self, cluster, batch, make_job):
        first = running(cluster, batch, make_job("stuck"))
        process = cluster.faults.process_of(first)
        cluster.faults.stick(first)
        cluster.faults.preempt(first)
        cluster.faults.wait(lambda: not exists(process), "its process ends")
        assert [pod["metadata"]["name"] for pod in cluster.faults.pods("stuck")] == [first]
        cluster.faults.unstick(first)
        cluster.faults.wait_for_pod("stuck", other_than=first)


class TestImages:
    def test_a_refused_image(self, cluster, batch, make_job):
        cluster.faults.refuse_image(IMAGE)
        batch.create_namespaced_job(NAMESPACE, make_job("pulling", "print('ok')"))
        seen: set[str] = set()

        def both() -> bool:
            for pod in cluster.faults.pods("pulling"):
                for status in pod["status"].get("containerStatuses", []):
                    seen.add(status["state"].get("waiting", {}).get("reason", ""))
            return {"ErrImagePull", "ImagePullBackOff"} <= seen

        cluster.faults.wait(both, "ErrImagePull and ImagePullBackOff")
        cluster.faults.allow_image(IMAGE)
        cluster.faults.wait_for_job("pulling")

    def test_an_unknown_one(self, cluster, batch, core, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("unknown", pod={"container": {"image": "nobody/knows:1"}}))

        def said() -> bool:
            events = core.list_namespaced_event(NAMESPACE, field_selector="involvedObject.kind=Pod,reason=Failed").items
            return any('Failed to pull image "nobody/knows:1"' in event.message for event in events)

        cluster.faults.wait(said, "an event about the image")

    def test_a_pushed_one(self, cluster, batch, make_job):
        cluster.faults.add_image("registry.example/own", Image(("/bin",), command=("sh", "-c", "echo from the image")))
        job = make_job("pushed", pod={"container": {"image": "registry.example/own:7", "command": []}})
        batch.create_namespaced_job(NAMESPACE, job)
        cluster.faults.wait_for_job("pushed")
        assert "from the image" in cluster.faults.container_log(cluster.faults.pods("pushed")[0]["metadata"]["uid"])


class TestQuota:
    def test_no_pods(self, cluster, batch, make_job):
        cluster.faults.set_quota({"pods": "0"})
        batch.create_namespaced_job(NAMESPACE, make_job("poor", "print('ok')"))

        def message() -> str:
            events = cluster.faults.objects("events")
            return next((event["message"] for event in events if event["reason"] == "FailedCreate"), "")

        said = cluster.faults.wait(message, "FailedCreate")
        assert "is forbidden: exceeded quota: compute, requested: pods=1, used: pods=0, limited: pods=0" in said
        cluster.faults.set_quota(None)
        cluster.faults.wait_for_job("poor")

    def test_no_jobs(self, cluster, batch, make_job):
        cluster.faults.set_quota({"count/jobs.batch": "0"})
        with pytest.raises(ApiException) as refused:
            batch.create_namespaced_job(NAMESPACE, make_job("none"))
        assert refused.value.status == 403
        assert "exceeded quota" in refused.value.body


class TestApiServer:
    def test_an_outage_ends(self, cluster, batch, make_job):
        pod = running(cluster, batch, make_job("through-the-outage"))
        cluster.faults.outage(0.5)
        with pytest.raises(urllib3.exceptions.HTTPError):
            patient(cluster, retries=False).list_namespaced_job(NAMESPACE)
        assert cluster.faults.process_of(pod)
        cluster.faults.wait(lambda: answers(cluster), "the API is back")

    def test_an_answer_can_be_lost_after_the_object_was_stored(self, cluster, make_job):
        cluster.faults.lose_answers()
        with pytest.raises(urllib3.exceptions.HTTPError):
            patient(cluster, retries=False).create_namespaced_job(NAMESPACE, make_job("lost-answer", "print('ok')"))
        cluster.faults.wait_for_job("lost-answer")

    def test_throttling_says_when_to_come_back(self, cluster):
        cluster.faults.fail_requests(429, verb="list", resource="jobs", retry_after_s=3)
        with pytest.raises(ApiException) as refused:
            patient(cluster, retries=False).list_namespaced_job(NAMESPACE)
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "3")
        assert answers(cluster)

    @pytest.mark.parametrize("code", [500, 503, 504])
    def test_errors_as_many_as_asked_for(self, cluster, code):
        cluster.faults.fail_requests(code, count=2, verb="list", resource="jobs")
        seen = []
        for _ in range(3):
            try:
                patient(cluster, retries=False).list_namespaced_job(NAMESPACE)
            except ApiException as refused:
                seen.append(refused.status)
        assert seen == [code, code]

    def test_slow_answers(self, cluster):
        cluster.faults.slow(0.2)
        began = time.monotonic()
        assert answers(cluster)
        assert time.monotonic() - began >= 0.2

    def test_requests_and_objects_are_counted(self, cluster, batch, make_job):
        cluster.faults.reset_figures()
        batch.create_namespaced_job(NAMESPACE, make_job("counted", "print('ok')"))
        cluster.faults.wait_for_job("counted")
        batch.read_namespaced_job("counted", NAMESPACE)
        assert [cluster.faults.created("jobs"), cluster.faults.created("pods")] == [1, 1]
        assert cluster.faults.requests("create", "jobs") == 1
        assert cluster.faults.requests() == 2


def patient(cluster: FakeCluster, *, retries: bool) -> client.BatchV1Api:
    configuration = client.Configuration()
    from kubernetes import config

    config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)
    configuration.retries = retries
    return client.BatchV1Api(client.ApiClient(configuration))


def answers(cluster: FakeCluster) -> bool:
    try:
        patient(cluster, retries=False).list_namespaced_job(NAMESPACE)
    except urllib3.exceptions.HTTPError:
        return False
    return True


class TestRealCluster:
    def test_the_environment_names_one(self, cluster, monkeypatch, batch, make_job):
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        monkeypatch.setenv("GENAI_TEST_KUBERNETES_NAMESPACE", NAMESPACE)
        monkeypatch.setenv("GENAI_TEST_KUBERNETES_IMAGE", IMAGE)
        with cluster_from_environment() as named:
            assert (named.real, named.namespace, named.image) == (True, NAMESPACE, IMAGE)
            with pytest.raises(pytest.skip.Exception):
                named.faults  # noqa: B018
            with pytest.raises(pytest.skip.Exception, match="product=NVIDIA-None"):
                named.require_gpu("NVIDIA-None")
            before = named.created("jobs")
            batch.create_namespaced_job(NAMESPACE, make_job("anywhere"))
            assert named.created("jobs") == before + 1
            first = named.wait_for_pod("anywhere")
            named.evict_pod(first)
            assert named.wait_for_pod("anywhere", other_than=first) != first
            named.delete_job("anywhere")
            named.wait(lambda: "anywhere" not in [job["metadata"]["name"] for job in named.objects("jobs")], "its end")
            assert named.created("jobs") == before + 1, "what was seen counts for good"


class TestNothingIsLeft:
    @pytest.mark.parametrize("victim", ["test", "server"])
    def test_when_somebody_is_killed(self, victim, tmp_path):
        """SIGKILL to the test's process, or to the server: the pods' processes end as well."""
        script = textwrap.dedent(
            """
            import json, sys, time
            from pathlib import Path
            from kubernetes import client
            from tests.fakes.kubernetes.fixture import fake_cluster
            from tests.unit.fakes.conftest import job_named
            with fake_cluster(folder=Path(sys.argv[1]) / "cluster") as cluster:
                batch = client.BatchV1Api(cluster.api_client())
                code = "import subprocess;p=subprocess.Popen(['sleep','60'],start_new_session=True);"
                code += "print('up',p.pid,flush=True);p.wait()"
                batch.create_namespaced_job("genai", job_named("left", code))
                pod = cluster.faults.wait_for_pod("left")
                uid = cluster.faults.pods()[0]["metadata"]["uid"]
                cluster.faults.wait(lambda: "up" in cluster.faults.container_log(uid), "it is up")
                child = cluster.faults.container_log(uid).split()[-1]
                print(cluster.server.pid, cluster.faults.process_of(pod), child, flush=True)
                time.sleep(60)
            """
        )
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT}"}
        test = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, env=environment, cwd=ROOT
        )
        assert test.stdout is not None
        server, *processes = (int(word) for word in test.stdout.readline().split())
        os.kill(test.pid if victim == "test" else server, signal.SIGKILL)
        try:
            deadline = time.monotonic() + 20
            while any(map(exists, processes)) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not any(map(exists, processes))
        finally:
            test.kill()
            test.wait()
            test.stdout.close()
