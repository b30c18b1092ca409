"""Jobs, pods, nodes and processes of the fake cluster."""

from __future__ import annotations

import os
from typing import ClassVar

import pytest

from tests.fakes.kubernetes.fixture import IMAGE
from tests.fakes.kubernetes.settings import gpu_node

NAMESPACE = "genai"
QUICK = "print('done')"


def log_of(core, pod: str, **options) -> str:
    """The client decodes logs wrongly (kubernetes-client/python#2596), hence the raw answer."""
    return core.read_namespaced_pod_log(pod, NAMESPACE, _preload_content=False, **options).data.decode()


def events_of(cluster, name: str) -> dict[str, str]:
    return {
        event["reason"]: event["message"]
        for event in cluster.faults.objects("events")
        if event["involvedObject"]["name"].startswith(name)
    }


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class TestJob:
    def test_runs_to_the_end(self, cluster, batch, core, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("simple", QUICK))
        job = cluster.faults.wait_for_job("simple")
        assert job["status"]["succeeded"] == 1
        assert [one["type"] for one in job["status"]["conditions"]] == ["SuccessCriteriaMet", "Complete"]
        pod = core.list_namespaced_pod(NAMESPACE, label_selector="job-name=simple").items[0]
        ended = pod.status.container_statuses[0].state.terminated
        assert (pod.status.phase, ended.exit_code, ended.reason) == ("Succeeded", 0, "Completed")
        assert pod.metadata.finalizers is None
        assert log_of(core, pod.metadata.name) == "done\n"

    def test_fails_by_its_backoff_limit(self, cluster, batch, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("failing", "raise SystemExit(3)", backoffLimit=1))
        job = cluster.faults.wait_for_job("failing", "Failed")
        assert job["status"]["failed"] == 2
        assert job["status"]["conditions"][-1]["reason"] == "BackoffLimitExceeded"
        assert len(cluster.faults.pods("failing")) == 2

    def test_a_rule_on_the_exit_code_fails_it_at_once(self, cluster, batch, make_job):
        rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 78]}}
        job = make_job("ruled", "raise SystemExit(78)", backoffLimit=5, podFailurePolicy={"rules": [rule]})
        batch.create_namespaced_job(NAMESPACE, job)
        last = cluster.faults.wait_for_job("ruled", "Failed")["status"]["conditions"][-1]
        assert last["reason"] == "PodFailurePolicy"
        assert "failed with exit code 78 matching FailJob rule at index 0" in last["message"]

    def test_suspension_takes_the_pod_and_resuming_brings_another(self, cluster, batch, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("paused"))
        first = cluster.faults.wait_for_pod("paused")
        batch.patch_namespaced_job("paused", NAMESPACE, {"spec": {"suspend": True}})
        cluster.faults.wait_for_job("paused", "Suspended")
        cluster.faults.wait(lambda: not cluster.faults.pods("paused"), "no pods")
        batch.patch_namespaced_job("paused", NAMESPACE, {"spec": {"suspend": False}})
        cluster.faults.wait_for_pod("paused", other_than=first)
        assert batch.read_namespaced_job("paused", NAMESPACE).status.failed is None

    def test_a_deadline_ends_it(self, cluster, batch, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("late", activeDeadlineSeconds=1))
        job = cluster.faults.wait_for_job("late", "Failed")
        assert job["status"]["conditions"][-1]["reason"] == "DeadlineExceeded"

    def test_it_goes_when_its_time_to_live_is_over(self, cluster, batch, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("brief", QUICK, ttlSecondsAfterFinished=0))
        cluster.faults.wait(lambda: not cluster.faults.objects("jobs"), "the job is gone")
        cluster.faults.wait(lambda: not cluster.faults.pods(), "its pods are gone")

    def test_indexed_pods_know_their_number(self, cluster, batch, core, make_job):
        code = "import os;print(os.environ['JOB_COMPLETION_INDEX'])"
        job = make_job("indexed", code, completions=3, parallelism=3, completionMode="Indexed")
        batch.create_namespaced_job(NAMESPACE, job)
        assert cluster.faults.wait_for_job("indexed")["status"]["completedIndexes"] == "0,1,2"
        logs = {log_of(core, pod["metadata"]["name"]) for pod in cluster.faults.pods("indexed")}
        assert logs == {"0\n", "1\n", "2\n"}

    def test_without_a_failure_policy_a_replacement_does_not_wait(self, cluster, batch, make_job):
        job = make_job("overlapping", backoffLimit=3, podFailurePolicy=None)
        batch.create_namespaced_job(NAMESPACE, job)
        first = cluster.faults.wait_for_pod("overlapping")
        cluster.faults.stick(first)
        cluster.delete_pod(first)
        cluster.faults.wait_for_pod("overlapping", other_than=first)
        assert len(cluster.faults.pods("overlapping")) == 2


class TestContainer:
    def test_environment_by_value_and_by_reference(self, cluster, batch, core, make_job):
        core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": "keys"}, "stringData": {"token": "s3cret"}})
        env = [
            {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
            {"name": "TWICE", "value": "$(POD_UID)/$$(POD_UID)"},
        ]
        code = "import os,sys;print(*[os.environ[n] for n in ('POD_UID','NODE','TOKEN','TWICE')],sys.argv[1])"
        container = {"env": env, "envFrom": [{"secretRef": {"name": "keys"}}], "args": ["$(POD_UID)"]}
        batch.create_namespaced_job(NAMESPACE, make_job("env", code, pod={"container": container}))
        cluster.faults.wait_for_job("env")
        pod = cluster.faults.pods("env")[0]["metadata"]
        uid = pod["uid"]
        expected = f"{uid} {cluster.faults.pods('env')[0]['spec']['nodeName']} s3cret {uid}/$(POD_UID) {uid}\n"
        assert log_of(core, pod["name"]) == expected

    def test_nothing_of_the_test_gets_in(self, cluster, batch, core, make_job, monkeypatch):
        code = "import os;print('AIRFLOW_HOME' in os.environ, 'PYTEST_CURRENT_TEST' in os.environ)"
        batch.create_namespaced_job(NAMESPACE, make_job("clean", code))
        cluster.faults.wait_for_job("clean")
        assert log_of(core, cluster.faults.pods("clean")[0]["metadata"]["name"]) == "False False\n"

    def test_volumes_are_folders(self, cluster, batch, core, make_job):
        code = "import os,pathlib;p=pathlib.Path(os.environ['PLACE']);p.mkdir();print(p.parent.name, p.is_dir())"
        container = {
            "env": [{"name": "PLACE", "value": "/scratch/deep"}],
            "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
        }
        pod = {"container": container, "volumes": [{"name": "scratch", "emptyDir": {}}]}
        batch.create_namespaced_job(NAMESPACE, make_job("volumes", code, pod=pod))
        cluster.faults.wait_for_job("volumes")
        assert log_of(core, cluster.faults.pods("volumes")[0]["metadata"]["name"]) == "scratch True\n"

    def test_writing_beside_the_volumes_is_noted(self, cluster, batch, make_job):
        """A read-only root cannot be had without privileges; who writes there is found out instead."""
        container = {"securityContext": {"readOnlyRootFilesystem": True}}
        job = make_job("writer", "open('beside.txt','w').write('x')", pod={"container": container})
        batch.create_namespaced_job(NAMESPACE, job)
        cluster.faults.wait_for_job("writer")
        assert [path.rsplit("/", 1)[1] for path in cluster.faults.root_writes()] == ["beside.txt"]

    def test_a_missing_secret_keeps_it_waiting(self, cluster, batch, core, make_job):
        container = {"envFrom": [{"secretRef": {"name": "absent"}}]}
        batch.create_namespaced_job(NAMESPACE, make_job("secretless", QUICK, pod={"container": container}))

        def reason() -> bool:
            statuses = cluster.faults.pods("secretless")
            states = [
                one["state"].get("waiting", {})
                for pod in statuses
                for one in pod["status"].get("containerStatuses", [])
            ]
            return any(state.get("reason") == "CreateContainerConfigError" for state in states)

        cluster.faults.wait(reason, "CreateContainerConfigError")
        core.create_namespaced_secret(NAMESPACE, {"metadata": {"name": "absent"}, "stringData": {"a": "b"}})
        cluster.faults.wait_for_job("secretless")

    def test_a_program_that_does_not_exist(self, cluster, batch, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("typo", pod={"container": {"command": ["pyhton"]}}))
        cluster.faults.wait_for_job("typo", "Failed")
        ended = cluster.faults.pods("typo")[0]["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (128, "StartError")

    def test_children_end_with_the_container(self, cluster, batch, core, make_job):
        code = "import subprocess,sys;print(subprocess.Popen(['sleep','60'],start_new_session=True).pid,flush=True)"
        batch.create_namespaced_job(NAMESPACE, make_job("parent", code))
        cluster.faults.wait_for_job("parent")
        child = int(log_of(core, cluster.faults.pods("parent")[0]["metadata"]["name"]))
        cluster.faults.wait(lambda: not exists(child), "the child is gone")

    def test_logs_by_time_and_tail(self, cluster, batch, core, make_job):
        code = "import time\nfor n in range(4): print(n, flush=True); time.sleep(0.05)"
        batch.create_namespaced_job(NAMESPACE, make_job("talking", code))
        cluster.faults.wait_for_job("talking")
        pod = cluster.faults.pods("talking")[0]["metadata"]["name"]
        stamped = log_of(core, pod, timestamps=True).splitlines()
        assert [line.split(" ")[1] for line in stamped] == ["0", "1", "2", "3"]
        assert log_of(core, pod, tail_lines=2) == "2\n3\n"
        assert log_of(core, pod, since_seconds=3600) == "0\n1\n2\n3\n"

    def test_a_log_can_be_followed(self, cluster, batch, core, make_job):
        code = "import time\nfor n in range(3): print(n, flush=True); time.sleep(0.2)"
        batch.create_namespaced_job(NAMESPACE, make_job("followed", code))
        pod = cluster.faults.wait_for_pod("followed")
        assert log_of(core, pod, follow=True) == "0\n1\n2\n"

    def test_last_words(self, cluster, batch, make_job):
        code = "import sys;print('CUDA out of memory');sys.exit(1)"
        container = {"terminationMessagePolicy": "FallbackToLogsOnError"}
        batch.create_namespaced_job(NAMESPACE, make_job("logged", code, pod={"container": container}))
        code = "import sys;open(sys.argv[1],'w').write('by file')"
        container = {"args": ["/dev/termination-log"]}
        batch.create_namespaced_job(NAMESPACE, make_job("filed", code, pod={"container": container}))
        cluster.faults.wait_for_job("logged", "Failed")
        cluster.faults.wait_for_job("filed")

        def last_words(job: str) -> str:
            return cluster.faults.pods(job)[0]["status"]["containerStatuses"][0]["state"]["terminated"]["message"]

        assert [last_words("logged"), last_words("filed")] == ["CUDA out of memory\n", "by file"]

    def test_init_containers_come_first(self, cluster, batch, core, make_job):
        mounts = [{"name": "shared", "mountPath": "/shared"}]
        write = "import sys;open(sys.argv[1],'w').write('prepared')"
        first = {
            "name": "first", "image": IMAGE, "command": ["python", "-c", write, "/shared/x"], "volumeMounts": mounts,
        }  # fmt: skip
        container = {"args": ["/shared/x"], "volumeMounts": mounts}
        volumes = [{"name": "shared", "emptyDir": {}}]
        pod = {"container": container, "initContainers": [first], "volumes": volumes}
        code = "import sys;print(open(sys.argv[1]).read())"
        batch.create_namespaced_job(NAMESPACE, make_job("prepared", code, pod=pod))
        cluster.faults.wait_for_job("prepared")
        assert log_of(core, cluster.faults.pods("prepared")[0]["metadata"]["name"]) == "prepared\n"

    def test_restarts_keep_the_former_log(self, cluster, batch, core, make_job):
        code = "import os,sys;n=len(os.listdir('.'));open(str(n),'w');print('run',n);sys.exit(n<1)"
        job = make_job("again", code, pod={"restartPolicy": "OnFailure"}, podFailurePolicy=None)
        batch.create_namespaced_job(NAMESPACE, job)
        cluster.faults.wait_for_job("again")
        pod = cluster.faults.pods("again")[0]
        status = pod["status"]["containerStatuses"][0]
        assert (status["restartCount"], status["lastState"]["terminated"]["exitCode"]) == (1, 1)
        assert log_of(core, pod["metadata"]["name"], previous=True) == "run 0\n"
        assert log_of(core, pod["metadata"]["name"]) == "run 1\n"


class TestScheduling:
    GPU: ClassVar = {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
    TOLERATION: ClassVar = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}

    def test_a_taint_must_be_tolerated(self, cluster, batch, make_job):
        batch.create_namespaced_job(NAMESPACE, make_job("intolerant", pod={"container": self.GPU}))
        cluster.faults.wait(lambda: "FailedScheduling" in events_of(cluster, "intolerant"), "FailedScheduling")
        message = events_of(cluster, "intolerant")["FailedScheduling"]
        assert message.startswith("0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated")
        pod = cluster.faults.pods("intolerant")[0]
        assert pod["status"]["conditions"][0]["reason"] == "Unschedulable"

    def test_labels_are_compared_as_numbers(self, cluster, batch, make_job):
        def wanting(name: str, memory: str) -> dict:
            expression = {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": [memory]}
            required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
            affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
            return make_job(name, pod={"container": self.GPU, "tolerations": [self.TOLERATION], "affinity": affinity})

        batch.create_namespaced_job(NAMESPACE, wanting("fits", "79999"))
        batch.create_namespaced_job(NAMESPACE, wanting("does-not", "90000"))
        cluster.faults.wait_for_pod("fits")
        assert cluster.faults.pods("fits")[0]["spec"]["nodeName"] == "gpu-1"
        cluster.faults.wait(lambda: "FailedScheduling" in events_of(cluster, "does-not"), "FailedScheduling")
        assert "didn't match Pod's node affinity/selector" in events_of(cluster, "does-not")["FailedScheduling"]

    def test_a_preference_decides_between_nodes_that_fit(self, cluster, batch, make_job):
        term = {"matchExpressions": [{"key": "nvidia.com/gpu.present", "operator": "Exists"}]}
        preferred = [{"weight": 10, "preference": term}]
        affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
        pod = {"tolerations": [self.TOLERATION], "affinity": affinity}
        batch.create_namespaced_job(NAMESPACE, make_job("preferring", pod=pod))
        cluster.faults.wait_for_pod("preferring")
        assert cluster.faults.pods("preferring")[0]["spec"]["nodeName"].startswith("gpu-")

    def test_devices_are_counted_and_given_back(self, cluster, batch, make_job):
        eight = {"resources": {"limits": {"nvidia.com/gpu": "8"}}}
        pod = {"container": eight, "tolerations": [self.TOLERATION]}
        batch.create_namespaced_job(NAMESPACE, make_job("first", pod=dict(pod)))
        cluster.faults.wait_for_pod("first")
        batch.create_namespaced_job(NAMESPACE, make_job("second", pod=dict(pod)))
        cluster.faults.wait(lambda: "FailedScheduling" in events_of(cluster, "second"), "FailedScheduling")
        cluster.faults.delete("jobs", "first")
        cluster.faults.wait_for_pod("second")

    def test_scheduling_can_be_held(self, cluster, batch, make_job):
        cluster.faults.hold_scheduling()
        batch.create_namespaced_job(NAMESPACE, make_job("held", QUICK))
        cluster.faults.wait(lambda: cluster.faults.pods("held"), "a pod")
        assert "nodeName" not in cluster.faults.pods("held")[0]["spec"]
        cluster.faults.hold_scheduling(False)
        cluster.faults.wait_for_job("held")

    def test_an_autoscaler_brings_a_node(self, cluster, batch, make_job):
        sixteen = {"resources": {"limits": {"nvidia.com/gpu": "16"}}}
        pod = {"container": sixteen, "tolerations": [self.TOLERATION]}
        batch.create_namespaced_job(NAMESPACE, make_job("scaled", pod=pod))
        cluster.faults.wait(lambda: "FailedScheduling" in events_of(cluster, "scaled"), "FailedScheduling")
        cluster.faults.scale_up(gpu_node("gpu-16", count=16), after_s=0.3)
        cluster.faults.wait_for_pod("scaled")
        assert "pod triggered scale-up" in events_of(cluster, "scaled")["TriggeredScaleUp"]

    @pytest.mark.parametrize(
        ("name", "pod", "message"),
        [
            ("of-nobody", {"serviceAccountName": "nobody"}, 'serviceaccount "nobody" not found'),
            ("urgent", {"priorityClassName": "urgent"}, "no PriorityClass with name urgent was found"),
        ],
    )
    def test_what_a_pod_names_must_exist(self, cluster, batch, make_job, name, pod, message):
        batch.create_namespaced_job(NAMESPACE, make_job(name, pod=dict(pod)))
        cluster.faults.wait(lambda: message in events_of(cluster, name).get("FailedCreate", ""), message)

    def test_claims_follow_their_template(self, cluster, batch, make_job):
        from kubernetes import client

        devices = client.ResourceV1Api(cluster.api_client())
        exactly = {"deviceClassName": "gpu.nvidia.com"}
        spec = {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}}
        devices.create_namespaced_resource_claim_template(NAMESPACE, {"metadata": {"name": "one-gpu"}, "spec": spec})
        pod = {
            "container": {"resources": {"claims": [{"name": "gpu"}]}},
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
            "tolerations": [self.TOLERATION],
        }
        batch.create_namespaced_job(NAMESPACE, make_job("claiming", pod=pod))
        cluster.faults.wait_for_pod("claiming")
        assert cluster.faults.pods("claiming")[0]["spec"]["nodeName"].startswith("gpu-")
        assert len(cluster.faults.objects("resourceclaims")) == 1


class TestSimulatedPods:
    def test_many_jobs_at_once(self, cluster, batch, make_job):
        count = 50
        for number in range(count):
            job = make_job(f"many-{number}", QUICK)
            job["spec"]["template"]["metadata"] = {"annotations": {"fake.kubernetes/run-seconds": "0.1"}}
            batch.create_namespaced_job(NAMESPACE, job)
        for number in range(count):
            cluster.faults.wait_for_job(f"many-{number}")

    @pytest.mark.parametrize("code", [0, 7])
    def test_with_an_exit_code(self, cluster, batch, make_job, code):
        job = make_job(f"simulated-{code}")
        annotations = {"fake.kubernetes/run-seconds": "0", "fake.kubernetes/exit-code": str(code)}
        job["spec"]["template"]["metadata"] = {"annotations": annotations}
        batch.create_namespaced_job(NAMESPACE, job)
        cluster.faults.wait_for_job(f"simulated-{code}", "Failed" if code else "Complete")
