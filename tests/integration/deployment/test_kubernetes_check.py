"""``make kubernetes-check`` against a cluster's API: a healthy cluster, and each single thing missing from it.

On a real cluster (``KUBECONFIG`` and ``GENAI_TEST_KUBERNETES_NAMESPACE``) the tests that take something away skip.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from genai_operators.compute.kubernetes.cluster_checks import FEATURE_DISCOVERY, Wanted
from genai_operators.compute.kubernetes.findings import Report, State
from genai_operators.compute.kubernetes.permissions import PERMISSIONS, Need
from genai_operators.compute.kubernetes.preflight import preflight
from genai_operators.compute.kubernetes.probe_job import IMAGE, STORE
from genai_operators.compute.kubernetes.settings import KubernetesSettings
from genai_operators.exceptions import ConfigurationError
from genai_operators.operators.kubernetes_check import KubernetesCheckOperator
from tests.fakes.kubernetes.fixture import FakeCluster, cluster_from_environment
from tests.fakes.kubernetes.kinds import LOCAL_QUEUES
from tests.fakes.kubernetes.settings import Settings, cpu_node, gpu_node

QUEUE = "research"
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    """One cluster with a GPU node, a queue and the workloads' service account."""
    settings = Settings(folder="", nodes=(cpu_node(), gpu_node("gpu-1")), pull_backoff_s=0.1)
    with cluster_from_environment(settings, folder=tmp_path_factory.mktemp("check") / "cluster") as cluster:
        if not cluster.real:
            prepare(cluster)
        yield cluster


@pytest.fixture
def cluster(shared: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    monkeypatch.setenv("KUBECONFIG", str(shared.kubeconfig))
    yield shared
    if shared.control is not None:
        shared.control.well()
        shared.control.allow_image(shared.image)


@pytest.fixture
def store(cluster: FakeCluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    if uri := os.environ.get("GENAI_TEST_KUBERNETES_STORE"):
        return uri
    if cluster.real:
        pytest.skip("GENAI_TEST_KUBERNETES_STORE names no store that pods of the real cluster reach")
    folder = cluster.folder.parent / "store"
    folder.mkdir(exist_ok=True)
    return folder.as_uri()


def prepare(cluster: FakeCluster) -> None:
    """What ``kubectl apply -k docker/kubernetes`` makes, as far as the check looks at it."""
    from kubernetes import client

    api = cluster.api_client()
    account = client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="genai-workload"))
    client.CoreV1Api(api).create_namespaced_service_account(cluster.namespace, account)
    group, version = LOCAL_QUEUES.group, LOCAL_QUEUES.version
    queue = {
        "apiVersion": LOCAL_QUEUES.api_version,
        "kind": LOCAL_QUEUES.name,
        "metadata": {"name": QUEUE},
        "spec": {"clusterQueue": "genai"},
    }
    client.CustomObjectsApi(api).create_namespaced_custom_object(
        group, version, cluster.namespace, LOCAL_QUEUES.plural, queue
    )


def settings(cluster: FakeCluster, **changes: Any) -> KubernetesSettings:
    # Clients are kept by the connection's name, for the whole process.
    told = {"connection": f"check-{cluster.port}", "namespace": cluster.namespace, "image": cluster.image}
    return KubernetesSettings(**{**told, "queue": QUEUE, **changes})


def check(
    cluster: FakeCluster, *, store: str | None = None, gpu: bool = True, nodes: int = 1, **changes: Any
) -> Report:
    wanted = Wanted(settings=settings(cluster, **changes), gpu=gpu, nodes=nodes)
    return preflight(wanted, store=store, timeout_s=PATIENCE_S)


def states(report: Report) -> dict[str, State]:
    return {finding.subject: finding.state for finding in report.findings}


def missing(report: Report) -> set[str]:
    return {finding.subject for finding in report.findings if finding.state is State.MISSING}


def told(report: Report) -> str:
    """What is printed, on one line."""
    return " ".join(report.render().split())


class TestHealthyCluster:
    def test_everything_is_fine_and_nothing_of_it_stays(self, cluster: FakeCluster, store: str) -> None:
        report = check(cluster, store=store, nodes=2)
        assert report.ok, report.render()
        assert states(report)[IMAGE] is State.FINE
        assert states(report)[STORE] is State.FINE
        assert states(report)["GPU labels"] is State.FINE
        assert states(report)["queue"] is State.FINE
        assert "fine jobset.x-k8s.io" in told(report)
        assert "Everything that is required is there." in told(report)
        if cluster.control is not None:
            cluster.control.wait(lambda: not cluster.faults.objects("jobs"), "the check's Job to be gone")
            assert not list((cluster.folder.parent / "store" / "check").iterdir())

    def test_every_permission_of_the_role_is_asked_for(self, cluster: FakeCluster) -> None:
        asked: set[str] = set()
        for changes in ({"nodes": 2}, {"nodes": 2, "multi_node": "trainjob"}, {"device_class": "gpu.nvidia.com"}):
            asked |= {name for name in states(check(cluster, **changes)) if name.startswith("may use ")}
        assert asked == {f"may use {permission.name}" for permission in PERMISSIONS}

    def test_without_image_and_store_no_job_is_made(self, cluster: FakeCluster) -> None:
        before = cluster.faults.created("jobs")
        report = check(cluster)
        assert report.ok
        assert states(report)[IMAGE] is states(report)[STORE] is State.SKIPPED
        assert cluster.faults.created("jobs") == before


class TestOneThingMissing:
    def test_no_cluster_answers(self, cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        nowhere = yaml.safe_load(cluster.kubeconfig.read_text())
        nowhere["clusters"][0]["cluster"]["server"] = "http://127.0.0.1:1"
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(nowhere))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        report = check(cluster, connection="nowhere")
        assert missing(report) == {"connection"}
        assert "does not answer" in told(report)
        assert "Set KUBECONFIG" in told(report)

    def test_the_token_is_refused(self, cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        wrong = yaml.safe_load(cluster.kubeconfig.read_text())
        wrong["users"][0]["user"]["token"] = "another"
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(wrong))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        report = check(cluster, connection="wrong-token")
        assert "connection" in missing(report)
        assert "refuses the credentials" in told(report)

    def test_the_namespace(self, cluster: FakeCluster) -> None:
        report = check(cluster, namespace="elsewhere")
        assert {"namespace", "service account"} <= missing(report)
        made = next(each for each in fixes(report) if each["kind"] == "Namespace")
        assert made["metadata"]["name"] == "elsewhere"

    def test_the_service_account(self, cluster: FakeCluster) -> None:
        report = check(cluster, service_account="nobody")
        assert missing(report) == {"service account"}
        (made,) = fixes(report)
        assert made["metadata"] == {"name": "nobody", "namespace": cluster.namespace}

    def test_no_job_waits_for_a_service_account_that_is_missing(self, cluster: FakeCluster, store: str) -> None:
        before = cluster.faults.created("jobs")
        report = check(cluster, store=store, service_account="nobody")
        assert missing(report) == {"service account"}
        assert states(report)[IMAGE] is State.SKIPPED
        assert cluster.faults.created("jobs") == before

    @pytest.mark.parametrize(
        ("verb", "resource", "subject"),
        [
            (verb, permission.resource, f"may use {permission.name}")
            for permission in PERMISSIONS
            if permission.need is Need.ALWAYS
            for verb in permission.verbs
        ],
    )
    def test_a_permission_that_every_run_needs(
        self, cluster: FakeCluster, verb: str, resource: str, subject: str
    ) -> None:
        cluster.faults.deny(verb, resource)
        report = check(cluster)
        assert missing(report) == {subject}
        assert f"may not {verb}" in report.render()
        role = next(each for each in fixes(report) if each["kind"] == "Role")
        assert any(verb in rule["verbs"] for rule in role["rules"] if rule["resources"] == [resource])

    @pytest.mark.parametrize(("verb", "resource"), [("get", "nodes"), ("list", "nodes"), ("list", "events")])
    def test_a_permission_that_only_tells_more_is_optional(
        self, cluster: FakeCluster, verb: str, resource: str
    ) -> None:
        cluster.faults.deny(verb, resource)
        report = check(cluster)
        assert report.ok
        assert (f"may use {resource}", State.OPTIONAL) in {(each.subject, each.state) for each in report.findings}

    def test_a_permission_for_what_nobody_asked(self, cluster: FakeCluster) -> None:
        cluster.faults.deny("create", "jobsets")
        assert check(cluster, nodes=1).ok
        assert missing(check(cluster, nodes=2)) == {"may use jobsets.jobset.x-k8s.io"}

    def test_the_labels_of_gpu_nodes(self, cluster: FakeCluster) -> None:
        bare = gpu_node("gpu-bare")
        bare.labels.pop("nvidia.com/gpu.memory")
        cluster.faults.add_node(bare)
        try:
            report = check(cluster)
            assert missing(report) == {"GPU labels"}
            assert "gpu-bare" in told(report)
            assert FEATURE_DISCOVERY in report.render()
        finally:
            from kubernetes import client

            client.CoreV1Api(cluster.api_client()).delete_node("gpu-bare")

    def test_gpus_of_the_kind_that_is_asked_for(self, cluster: FakeCluster) -> None:
        report = check(cluster, mig_profile="1g.10gb")
        assert missing(report) == {"GPU nodes"}
        assert check(cluster, mig_profile="1g.10gb", gpu=False).ok

    def test_kueue(self, cluster: FakeCluster) -> None:
        cluster.faults.set_group("kueue.x-k8s.io", installed=False)
        try:
            report = check(cluster)
            assert missing(report) - {"may use workloads.kueue.x-k8s.io"} == {"kueue.x-k8s.io"}
            assert "Install Kueue" in told(report)
            assert check(cluster, queue=None).ok
        finally:
            cluster.faults.set_group("kueue.x-k8s.io", installed=True)

    def test_the_queue(self, cluster: FakeCluster) -> None:
        report = check(cluster, queue="other")
        assert missing(report) == {"queue"}
        (made,) = fixes(report)
        assert made["kind"] == "LocalQueue"
        assert made["metadata"] == {"name": "other", "namespace": cluster.namespace}

    @pytest.mark.parametrize(
        ("group", "multi_node"), [("jobset.x-k8s.io", "jobset"), ("trainer.kubeflow.org", "trainjob")]
    )
    def test_what_runs_several_nodes(self, cluster: FakeCluster, group: str, multi_node: str) -> None:
        cluster.faults.set_group(group, installed=False)
        try:
            # Whether a right to what is not there is granted depends on the authorizer.
            found = missing(check(cluster, nodes=2, multi_node=multi_node))
            assert {name for name in found if not name.startswith("may use ")} == {group}
            assert check(cluster, nodes=1).ok
        finally:
            cluster.faults.set_group(group, installed=True)


class TestProbeJob:
    def test_an_image_that_cannot_be_pulled(self, cluster: FakeCluster, store: str) -> None:
        cluster.faults.refuse_image(cluster.image)
        report = check(cluster, store=store)
        assert missing(report) == {IMAGE}
        assert states(report)[STORE] is State.SKIPPED
        assert "pull access denied" in told(report)
        cluster.faults.wait(lambda: not cluster.faults.objects("jobs"), "the check's Job to be gone")

    def test_an_image_by_tag(self, cluster: FakeCluster, store: str) -> None:
        report = check(cluster, store=store, image="registry.example/genai-workload:latest")
        assert missing(report) == {IMAGE}
        assert "named by a tag" in told(report)

    def test_an_image_without_the_project(self, cluster: FakeCluster, store: str) -> None:
        report = check(cluster, store=store, python="no-such-python")
        assert not report.ok

    def test_a_store_that_a_pod_cannot_reach(self, cluster: FakeCluster, store: str) -> None:
        report = check(
            cluster, store=store, store_in_pod="s3://no-bucket", env={"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
        )
        assert missing(report) == {STORE}
        assert states(report)[IMAGE] is State.FINE
        assert "env_from_secrets" in told(report)

    def test_two_stores(self, cluster: FakeCluster, store: str) -> None:
        report = check(cluster, store=store, store_in_pod=f"{store}-other")
        assert missing(report) == {STORE}
        assert "these are two stores" in told(report)

    def test_no_room_for_a_pod(self, cluster: FakeCluster, store: str) -> None:
        cluster.faults.set_quota({"pods": "0"})
        try:
            report = check(cluster, store=store)
            assert missing(report) == {IMAGE}
            assert "no pod has started: " in told(report)
            assert "exceeded quota" in told(report)
        finally:
            cluster.faults.set_quota(None)

    def test_no_room_for_a_job(self, cluster: FakeCluster, store: str) -> None:
        cluster.faults.set_quota({"count/jobs.batch": "0"})
        try:
            report = check(cluster, store=store)
            assert missing(report) == {IMAGE}
            assert "exceeded quota" in told(report)
        finally:
            cluster.faults.set_quota(None)


class TestCommandLine:
    def run(self, cluster: FakeCluster, project_root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "genai_operators.compute.kubernetes.preflight", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(project_root / "plugins")}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def test_a_healthy_cluster_ends_with_0(self, cluster: FakeCluster, project_root: Path, store: str) -> None:
        arguments = (
            "--namespace",
            cluster.namespace,
            "--image",
            cluster.image,
            "--store",
            store,
            "--queue",
            QUEUE,
            "--gpu",
        )
        done = self.run(cluster, project_root, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "create-only writes hold" in done.stdout

    def test_something_missing_ends_with_1_and_says_what_mends_it(
        self, cluster: FakeCluster, project_root: Path
    ) -> None:
        done = self.run(cluster, project_root, "--namespace", "elsewhere")
        assert done.returncode == 1
        assert "MISSING   namespace" in done.stdout
        assert "kind: Namespace" in done.stdout

    def test_a_wrong_setting_ends_with_2(self, cluster: FakeCluster, project_root: Path, tmp_path: Path) -> None:
        (tmp_path / "settings.yaml").write_text("imgae: x\n")
        done = self.run(cluster, project_root, "--settings", str(tmp_path / "settings.yaml"))
        assert done.returncode == 2
        assert "'imgae' unknown" in done.stderr


class TestOperator:
    @pytest.fixture(autouse=True)
    def connection(self, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
        """What ``genai_kubernetes`` is in Airflow: the provider's keys, and ours."""
        ours = {"namespace": cluster.namespace, "image": cluster.image, "queue": QUEUE}
        extra = {"kube_config_path": str(cluster.kubeconfig), **ours}
        monkeypatch.setenv("AIRFLOW_CONN_CHECKED", json.dumps({"conn_type": "kubernetes", "extra": extra}))
        monkeypatch.delenv("KUBECONFIG")

    def operator(self, store: str, **compute: Any) -> KubernetesCheckOperator:
        return KubernetesCheckOperator(
            task_id="check", connection="checked", compute=compute, store=store, timeout_s=PATIENCE_S
        )

    def test_a_healthy_cluster_lets_the_task_succeed(self, store: str) -> None:
        found = self.operator(store).execute({})
        assert {IMAGE, STORE, "queue"} <= set(found["fine"])
        assert len(json.dumps(found)) <= 2000

    def test_what_is_missing_fails_the_task_by_name(self, store: str) -> None:
        with pytest.raises(ConfigurationError, match="the cluster lacks: queue"):
            self.operator(store, queue="other").execute({})

    def test_a_setting_that_does_not_exist_is_named(self, store: str) -> None:
        with pytest.raises(ConfigurationError, match="'imgae' unknown"):
            self.operator(store, imgae="x").execute({})


def fixes(report: Report) -> list[dict[str, Any]]:
    """Every manifest that the report prints."""
    texts = dict.fromkeys(finding.fix for finding in report.findings if finding.fix.startswith("---"))
    return [manifest for text in texts for manifest in yaml.safe_load_all(text)]
