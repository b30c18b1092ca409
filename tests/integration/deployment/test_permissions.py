"""What the code asks a cluster for is what the role grants: nothing that is asked for is missing from the list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute.backends import open_backend
from genai_operators.compute.contract import Attempt, Workload
from genai_operators.compute.kubernetes.orphans import OrphanSearch
from genai_operators.compute.kubernetes.permissions import PERMISSIONS
from genai_operators.compute.resources import Resources
from tests.fakes.kubernetes.fixture import FakeCluster, fake_cluster
from tests.fakes.kubernetes.settings import Settings, cpu_node, gpu_node
from tests.fakes.kubernetes_run import ClusterRun

GRANTED = {f"{verb} {permission.resource}" for permission in PERMISSIONS for verb in permission.verbs}
SMALL = Resources(cpu=1, memory_bytes=1 << 30)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    nodes = (cpu_node(), gpu_node("gpu-1"))
    settings = Settings(folder="", nodes=nodes)
    with fake_cluster(settings, folder=tmp_path_factory.mktemp("permissions") / "cluster") as cluster:
        yield cluster


def asked(cluster: FakeCluster) -> set[str]:
    """``verb resource`` of every request since the last look."""
    found = set(cluster.faults.figures()["requests"])
    cluster.faults.reset_figures()
    return {each for each in found if not each.endswith(" discovery")}


@pytest.fixture
def run(cluster: FakeCluster, tmp_path: Path) -> ClusterRun:
    run = ClusterRun(cluster, tmp_path / "run", waits=True)
    run.ladder = [SMALL]
    cluster.faults.reset_figures()
    return run


def look_after(run: ClusterRun, attempt: Attempt) -> None:
    """Everything that is done with an attempt while it runs: probe and usage, with and without a watch; orphans."""
    backend: Any = open_backend(run.backend)
    for _ in range(5):
        backend.probe(attempt)
        backend.usage(attempt)
    OrphanSearch(backend.api, backend.paths, run.store).find()


class TestAskedIsGranted:
    def test_a_run_to_its_result(self, cluster: FakeCluster, run: ClusterRun) -> None:
        subject = run.submit()
        run.drive(subject, until=lambda: run.starts(1))
        look_after(run, run.attempt(1))
        run.finish(subject)
        found = asked(cluster)
        assert found <= GRANTED, found - GRANTED
        assert {"create jobs", "get jobs", "list pods", "watch pods", "watch jobs", "get nodes"} <= found

    def test_a_run_that_is_stopped(self, cluster: FakeCluster, run: ClusterRun) -> None:
        subject = run.submit()
        run.drive(subject, until=lambda: run.starts(1))
        open_backend(run.backend).stop(run.attempt(1))
        found = asked(cluster)
        assert found <= GRANTED, found - GRANTED
        assert "delete jobs" in found

    def test_a_run_that_fails_before_it_can_write(self, cluster: FakeCluster, run: ClusterRun) -> None:
        run.backend["python"] = "no-such-python"
        run.finish(run.submit())
        found = asked(cluster)
        assert found <= GRANTED, found - GRANTED

    def test_a_run_that_waits_for_its_image(self, cluster: FakeCluster, run: ClusterRun) -> None:
        run.backend["image"] = f"registry.example/nobody@sha256:{'0' * 64}"
        run.drive(run.submit(), until=lambda: any("pull" in line.lower() for line in run.lines))
        found = asked(cluster)
        assert found <= GRANTED, found - GRANTED
        assert "list events" in found
        open_backend(run.backend).stop(run.attempt(1))

    @pytest.mark.parametrize("multi_node", ["jobset", "trainjob"])
    def test_several_nodes(self, cluster: FakeCluster, run: ClusterRun, multi_node: str) -> None:
        run.backend["multi_node"] = multi_node
        found = launched_and_stopped(run, Resources(cpu=1, memory_bytes=1 << 30, nodes=2))
        assert found <= GRANTED, found - GRANTED
        assert {f"create {multi_node}s", f"delete {multi_node}s"} <= found

    def test_claimed_devices_and_a_queue(self, cluster: FakeCluster, run: ClusterRun) -> None:
        run.backend |= {"device_class": "gpu.nvidia.com", "queue": "research"}
        found = launched_and_stopped(run, Resources(gpu="H100", gpu_count=1, cpu=1, memory_bytes=1 << 30))
        assert found <= GRANTED, found - GRANTED
        assert {"create resourceclaimtemplates", "list workloads"} <= found


def launched_and_stopped(run: ClusterRun, resources: Resources) -> set[str]:
    """What is asked for an attempt at fine-tuning that never gets as far as computing."""
    directory = Workload(kind="fine_tune", params={}, nonce=run.gate).directory
    claim = {"backend": run.backend, "resources": resources.to_json()}
    attempt = Attempt(store=run.store, directory=directory, number=1, claim=claim)
    backend = open_backend(run.backend)
    backend.launch(attempt)
    look_after(run, attempt)
    backend.stop(attempt)
    return asked(run.cluster)
