"""A cluster to test against, and a backend for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute.contract import Attempt
from genai_operators.compute.kubernetes import watch
from genai_operators.compute.kubernetes.backend import KubernetesCompute
from tests.fakes.kubernetes.fixture import FakeCluster, cluster_from_environment
from tests.fakes.kubernetes.settings import Settings, cpu_node, gpu_node
from tests.unit.compute.kubernetes.workloads import claimed


@pytest.fixture(scope="module")
def module_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    nodes = (cpu_node(), gpu_node("gpu-spot", spot=True), gpu_node("gpu-1", instance_type="p5.4xlarge", count=1))
    with cluster_from_environment(Settings(folder="", nodes=nodes), folder=tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def cluster(module_cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """Well, and its connection and watches are this test's own."""
    monkeypatch.setenv("KUBECONFIG", str(module_cluster.kubeconfig))
    yield module_cluster
    watch.end_watches()
    if module_cluster.control is not None:
        module_cluster.control.well()


@pytest.fixture
def backend(cluster: FakeCluster, request: pytest.FixtureRequest) -> KubernetesCompute:
    return backend_for(cluster, connection=request.node.name)


def backend_for(cluster: FakeCluster, **settings: Any) -> KubernetesCompute:
    """A backend whose pods can run the tests' own workload."""
    own = {"namespace": cluster.namespace, "image": cluster.image, "service_account": "default", "allow_tag": True}
    env = {"GENAI_EXTRA_WORKLOADS": "checkpointing=tests.fakes.checkpointing:checkpointing"}
    return KubernetesCompute(**{**own, "env": env, **settings})


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    return claimed(tmp_path / "store")
