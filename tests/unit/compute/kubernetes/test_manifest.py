"""The objects that we create: valid by the schemas of Kubernetes, strictly, and made as we promise."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import pytest

from genai_operators.compute.checkpoint_time import CHECKPOINT_FIGURE
from genai_operators.compute.kubernetes.backend import KubernetesCompute
from genai_operators.compute.kubernetes.grace import grace_s
from genai_operators.compute.kubernetes.manifest import companions, manifest
from genai_operators.compute.kubernetes.names import is_ours
from genai_operators.compute.kubernetes.paths import Paths
from genai_operators.compute.kubernetes.placement import gpu_of_node, is_spot
from genai_operators.compute.kubernetes.settings import DEFAULT_GRACE_S
from genai_operators.compute.resources import GIB
from genai_operators.exceptions import ConfigurationError
from tests.fakes.kubernetes.kinds import find_kind
from tests.fakes.kubernetes.schema import findings
from tests.unit.compute.kubernetes.clusters import DIGEST, attempt_of, request_for

VERSIONS = ("1.31", "1.34", "1.37")
H100 = {"gpu": "h100", "gpu_count": 4, "gpu_memory_bytes": 60 * GIB, "memory_bytes": 200 * GIB, "cpu": 16.0}


def job_of(folder, *, settings: dict[str, Any] | None = None, **resources: Any) -> Any:
    return manifest(request_for(attempt_of(folder, **resources), **(settings or {})))


def pod_of(made: Any) -> Any:
    return made["spec"]["template"]["spec"]


def requirements(made: Any) -> list[Any]:
    """Expressions of the first required term."""
    affinity = pod_of(made)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return affinity["nodeSelectorTerms"][0]["matchExpressions"]


ALL_SETTINGS = {
    "queue": "research",
    "workload_priority": "batch",
    "max_execution_s": 3600,
    "topology": {"required": "cloud.example/rack"},
    "priority_class": "training",
    "runtime_class": "nvidia",
    "node_selector": {"pool": "gpu"},
    "tolerations": [{"key": "team", "operator": "Exists", "effect": "NoSchedule"}],
    "labels": {"team": "support"},
    "annotations": {"team/contact": "support"},
    "env": {"LOG_LEVEL": "info"},
    "env_from_secrets": ["object-store"],
    "secret_env": {"HF_TOKEN": "hugging-face/token"},
    "image_pull_secrets": ["registry"],
    "volume_claims": {"models": "/models"},
    "run_as_user": 1000,
}


class TestStrictValidation:
    @pytest.mark.parametrize("version", VERSIONS)
    @pytest.mark.parametrize(
        "settings", [{}, ALL_SETTINGS, {"mig_profile": "1g.10gb"}, {"device_class": "gpu.nvidia.com"}]
    )
    @pytest.mark.parametrize("resources", [{}, {**H100, "shared_memory_bytes": GIB}, {**H100, "spot": True}])
    def test_jobs(self, tmp_path, version, settings, resources):
        kubernetes_validate.validate(job_of(tmp_path, settings=settings, **resources), version, strict=True)

    def test_the_validation_would_notice_a_typo(self, tmp_path):
        made = job_of(tmp_path)
        made["spec"]["podReplacementPolice"] = "Failed"
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(made, VERSIONS[-1], strict=True)

    @pytest.mark.parametrize(
        "settings",
        [
            *({**settings, "multi_node": kind} for kind in ("jobset", "trainjob") for settings in ({}, ALL_SETTINGS)),
            {"device_class": "gpu.nvidia.com"},
        ],
    )
    def test_several_nodes(self, tmp_path, settings):
        attempt = attempt_of(tmp_path, nodes=2, **H100)
        made = manifest(request_for(attempt, **settings))
        group, version = made["apiVersion"].split("/")
        kind = find_kind(group, version, made["kind"].lower() + "s")
        assert kind is not None
        assert findings(kind, made) == []

    @pytest.mark.parametrize("gpu", ["h100", None])
    def test_device_claims(self, tmp_path, gpu):
        request = request_for(attempt_of(tmp_path, **{**H100, "gpu": gpu}), device_class="gpu.nvidia.com")
        ((collection, template),) = companions(request, uid="job-uid", paths=Paths("genai"))
        kubernetes_validate.validate(template, VERSIONS[-1], strict=True)
        assert collection.endswith("/namespaces/genai/resourceclaimtemplates")
        assert template["metadata"]["ownerReferences"][0]["uid"] == "job-uid"
        assert (
            template["metadata"]["name"] == pod_of(manifest(request))["resourceClaims"][0]["resourceClaimTemplateName"]
        )


class TestPreemptionCostsNothing:
    def test_a_disrupted_pod_is_replaced_once_it_is_gone_and_any_other_failure_is_the_end(self, tmp_path):
        spec = job_of(tmp_path)["spec"]
        assert spec["backoffLimit"] == 0
        assert spec["podReplacementPolicy"] == "Failed"
        (rule,) = spec["podFailurePolicy"]["rules"]
        assert rule == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}

    def test_a_job_set_restarts_for_maintenance_without_counting(self, tmp_path):
        spec = job_of(tmp_path, nodes=2, **H100)["spec"]
        assert spec["failurePolicy"]["maxRestarts"] == 0
        assert spec["failurePolicy"]["rules"][0]["action"] == "RestartJobSetAndIgnoreMaxRestarts"
        job = spec["replicatedJobs"][0]["template"]["spec"]
        assert job["podFailurePolicy"]["rules"][0]["action"] == "FailJob"


class TestThePodIsConfined:
    def test_it_may_do_nothing_that_it_need_not(self, tmp_path):
        pod = pod_of(job_of(tmp_path))
        (container,) = pod["containers"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "privileged": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }

    def test_it_writes_to_scratch_only(self, tmp_path):
        pod = pod_of(job_of(tmp_path, settings={"scratch_bytes": 5 * GIB}))
        assert pod["volumes"] == [{"name": "scratch", "emptyDir": {"sizeLimit": str(5 * GIB)}}]
        told = {each["name"]: each.get("value", "") for each in pod["containers"][0]["env"]}
        for name in ("HOME", "TMPDIR", "HF_HOME", "GENAI_SCRATCH_ROOT"):
            assert told[name].startswith("/scratch")

    @pytest.mark.parametrize(("needed", "room"), [(0, 20), (4 * GIB, 20), (90 * GIB, 90)])
    def test_scratch_has_room_for_the_model_that_was_planned(self, tmp_path, needed, room):
        (volume,) = pod_of(job_of(tmp_path, scratch_bytes=needed))["volumes"]
        assert volume["emptyDir"]["sizeLimit"] == str(room * GIB)

    def test_shared_memory_is_part_of_the_limit(self, tmp_path):
        pod = pod_of(job_of(tmp_path, memory_bytes=8 * GIB, shared_memory_bytes=2 * GIB))
        assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": str(2 * GIB)}} in pod["volumes"]
        assert pod["containers"][0]["resources"]["limits"]["memory"] == str(8 * GIB)

    def test_secrets_are_named_and_never_told(self, tmp_path):
        settings = {"secret_env": {"HF_TOKEN": "hugging-face/token"}, "env_from_secrets": ["object-store"]}
        container = pod_of(job_of(tmp_path, settings=settings))["containers"][0]
        token = next(each for each in container["env"] if each["name"] == "HF_TOKEN")
        assert token["valueFrom"] == {"secretKeyRef": {"name": "hugging-face", "key": "token"}}
        assert container["envFrom"] == [{"secretRef": {"name": "object-store"}}]

    def test_its_grace_leaves_time_for_the_last_records(self, tmp_path):
        made = manifest(request_for(attempt_of(tmp_path), grace_s=300.0))
        assert pod_of(made)["terminationGracePeriodSeconds"] > 300
        command = pod_of(made)["containers"][0]["command"]
        assert command[command.index("--grace") + 1] == "300"

    def test_that_of_a_train_job_as_well(self, tmp_path):
        made = manifest(request_for(attempt_of(tmp_path, nodes=2), grace_s=300.0, multi_node="trainjob"))
        (patch,) = made["spec"]["runtimePatches"]
        (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        assert node["template"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 300

    def test_it_is_twice_the_longest_checkpoint_of_any_attempt_before(self, tmp_path):
        for number, seconds in ((1, 90.5), (2, 10.0), (3, None)):
            progress = {} if seconds is None else {CHECKPOINT_FIGURE: seconds}
            before = attempt_of(tmp_path, number=number)
            before.store.put_json(before.path("heartbeat.json"), {"progress": progress})
        assert grace_s(attempt_of(tmp_path, number=4), None) == 181.0
        assert grace_s(attempt_of(tmp_path, number=1), None) == DEFAULT_GRACE_S
        assert grace_s(attempt_of(tmp_path, number=4), 30.0) == 30.0


class TestPlacement:
    def test_enough_memory_is_required_and_the_product_preferred(self, tmp_path):
        made = job_of(tmp_path, **H100)
        assert requirements(made)[0] == {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": [str(60 * 1024)]}
        affinity = pod_of(made)["affinity"]["nodeAffinity"]
        (preferred,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
        (product,) = preferred["preference"]["matchExpressions"]
        assert "NVIDIA-H100-80GB-HBM3" in product["values"]
        limits = pod_of(made)["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"] == "4"
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod_of(made)["tolerations"]

    def test_a_gpu_asked_for_by_name_gets_one_of_its_size(self, tmp_path):
        made = job_of(tmp_path, gpu="a100-80gb", gpu_count=1)
        assert 70_000 < int(requirements(made)[0]["values"][0]) < 81_920

    def test_on_demand_keeps_off_machines_that_can_be_taken_away(self, tmp_path):
        keys = {each["key"] for each in requirements(job_of(tmp_path, **H100)) if each["operator"] == "NotIn"}
        assert {"karpenter.sh/capacity-type", "cloud.google.com/gke-spot"} <= keys

    def test_spot_is_preferred_or_if_wanted_required(self, tmp_path):
        preferred = job_of(tmp_path, **H100, spot=True)
        assert [each["operator"] for each in requirements(preferred)] == ["Gt"]
        required = job_of(tmp_path, settings={"spot_only": True}, **H100, spot=True)
        terms = pod_of(required)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert all(term["matchExpressions"][0]["operator"] == "Gt" for term in terms["nodeSelectorTerms"])
        assert len(terms["nodeSelectorTerms"]) > 3

    def test_a_slice_is_asked_for_by_its_profile(self, tmp_path):
        made = job_of(tmp_path, settings={"mig_profile": "1g.10gb"}, gpu="h100", gpu_count=1, gpu_memory_bytes=8 * GIB)
        assert pod_of(made)["containers"][0]["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == "1"
        assert requirements(made)[0]["key"] == "nvidia.com/mig-1g.10gb.memory"

    def test_a_claimed_device_has_a_second_choice(self, tmp_path):
        request = request_for(attempt_of(tmp_path, **H100), device_class="gpu.nvidia.com")
        ((_, template),) = companions(request, uid="job-uid", paths=Paths("genai"))
        (asked,) = template["spec"]["spec"]["devices"]["requests"]
        first, second = asked["firstAvailable"]
        assert "productName" in json.dumps(first)
        assert "productName" not in json.dumps(second)
        assert f"quantity('{60 * 1024}Mi')" in json.dumps(second)

    def test_a_cpu_attempt_asks_for_no_gpu(self, tmp_path):
        pod = pod_of(job_of(tmp_path))
        assert "nvidia" not in json.dumps(pod["containers"][0]["resources"])
        assert "tolerations" not in pod

    @pytest.mark.parametrize(
        ("label", "gpu"),
        [
            ("NVIDIA-H100-80GB-HBM3", "h100"),
            ("Tesla-T4-SHARED", "t4"),
            ("NVIDIA-A100-SXM4-80GB-MIG-1g.10gb", "a100-80gb"),
            ("NVIDIA-A100-80GB-PCIe", "a100-80gb"),
            ("NVIDIA-Z900", None),
        ],
    )
    def test_nodes_tell_which_gpu_they_have(self, label, gpu):
        assert gpu_of_node({"nvidia.com/gpu.product": label}) == gpu

    def test_nodes_tell_whether_they_can_be_taken_away(self):
        assert is_spot({"eks.amazonaws.com/capacityType": "SPOT"})
        assert not is_spot({"eks.amazonaws.com/capacityType": "ON_DEMAND"})


class TestQueue:
    def test_it_begins_suspended_and_says_which_queue(self, tmp_path):
        made = job_of(tmp_path, settings=ALL_SETTINGS)
        assert made["spec"]["suspend"] is True
        assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
        assert made["metadata"]["labels"]["kueue.x-k8s.io/max-exec-time-seconds"] == "3600"
        annotations = made["spec"]["template"]["metadata"]["annotations"]
        assert annotations["kueue.x-k8s.io/podset-required-topology"] == "cloud.example/rack"

    def test_without_one_the_job_has_the_deadline_itself(self, tmp_path):
        spec = job_of(tmp_path, settings={"max_execution_s": 60})["spec"]
        assert "suspend" not in spec
        assert spec["activeDeadlineSeconds"] == 60


class TestSettings:
    def test_a_tag_is_refused_unless_allowed(self, tmp_path):
        with pytest.raises(ConfigurationError, match="digest"):
            job_of(tmp_path, settings={"image": "workload:latest"})
        made = job_of(tmp_path, settings={"image": "workload:dev", "allow_tag": True})
        assert pod_of(made)["containers"][0]["image"] == "workload:dev"

    def test_the_description_opens_an_equal_backend(self):
        backend = KubernetesCompute(image=DIGEST, **ALL_SETTINGS)
        told = json.loads(json.dumps(backend.describe()))
        assert told.pop("target") == "kubernetes"
        assert KubernetesCompute(**told).describe() == backend.describe()

    @pytest.mark.parametrize(
        ("setting", "named"),
        [
            ({"namespace": "Not_A_Name"}, "Not_A_Name"),
            ({"multi_node": "mpi"}, "mpi"),
            ({"topology": {"near": "rack"}}, "near"),
            ({"secret_env": {"TOKEN": "hunter2"}}, "secret/key"),
            ({"env": {"AWS_SECRET_ACCESS_KEY": "x"}}, "env 'AWS_SECRET_ACCESS_KEY' looks like .* secret_env"),
            ({"mig_profile": "1g.10gb", "device_class": "gpu.nvidia.com"}, "exclude"),
            ({"multi_node": "trainjob", "device_class": "gpu.nvidia.com"}, "resource claims"),
        ],
    )
    def test_a_wrong_setting_is_named(self, setting, named):
        with pytest.raises(ConfigurationError, match=named):
            KubernetesCompute(**setting)

    def test_a_workload_that_cannot_use_several_nodes_says_so(self, tmp_path):
        with pytest.raises(ConfigurationError, match="one node"):
            manifest(request_for(attempt_of(tmp_path, kind="evaluate", nodes=2)))


class TestIdentity:
    def test_its_object_is_told_from_a_namesake(self, tmp_path):
        attempt = attempt_of(tmp_path / "a")
        made = manifest(request_for(attempt))
        assert is_ours(made, attempt)
        assert not is_ours(made, attempt_of(tmp_path / "b"))
        assert not is_ours({"metadata": {"name": attempt.name}}, attempt)
