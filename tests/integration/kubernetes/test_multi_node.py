"""Fine-tuning on two nodes: pods of a JobSet, or of a TrainJob, each with torchrun, that meet over the network."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute import attempts
from genai_operators.compute.contract import Attempt, Workload
from genai_operators.compute.escalation import Ask
from genai_operators.compute.kubernetes.backend import KubernetesCompute
from genai_operators.compute.resources import GIB, Resources
from genai_operators.store import Store
from tests.fakes.kubernetes.fixture import IMAGE, FakeCluster, cluster_from_environment, store_of, workload_image
from tests.fakes.kubernetes.settings import Settings, cpu_node
from tests.fakes.kubernetes_run import labelled
from tests.fakes.ports import free_port
from tests.fakes.workload_process import TINY_RECIPE, dataset_input, record

pytestmark = [pytest.mark.slow, pytest.mark.workload_env]

TINY: dict[str, Any] = {**TINY_RECIPE, "learning_rate": 5e-3}
ROWS = [record(f"thing {n % 7}", f'{{"mood":"{("good", "bad")[n % 2]}"}}', identity=str(n)) for n in range(40)]
PATIENCE_S = 240.0

#: On the second node each process takes its time to end, as on a busy machine: its end comes after the first node's.
LATE = """
import atexit, os, time
if os.environ.get("PET_NODE_RANK") == "1":
    atexit.register(time.sleep, 1.0)
"""


@pytest.fixture
def cluster(
    tmp_path: Path, workload_python: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[FakeCluster]:
    (tmp_path / "sitecustomize").mkdir()
    (tmp_path / "sitecustomize" / "sitecustomize.py").write_text(LATE)
    image = workload_image(workload_python)
    image = replace(image, pythonpath=(str(tmp_path / "sitecustomize"), *image.pythonpath))
    images = {IMAGE.split("@")[0]: image}
    settings = Settings(folder="", images=images, nodes=(cpu_node("node-1"), cpu_node("node-2")))
    with cluster_from_environment(settings, folder=tmp_path / "cluster") as found:
        monkeypatch.setenv("KUBECONFIG", str(found.kubeconfig))
        yield found


@pytest.fixture
def backend(cluster: FakeCluster, request: pytest.FixtureRequest) -> KubernetesCompute:
    env = {"HF_HUB_OFFLINE": "1"}
    if not cluster.real:  # pods of the fake cluster are processes of one host, which has no names for them
        env |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port())}
    return KubernetesCompute(
        connection=request.node.name,
        namespace=cluster.namespace,
        image=cluster.image,
        service_account="default",
        allow_tag=True,
        env=env,
    )


def two_nodes(cluster: FakeCluster, folder: Path, **recipe: Any) -> Attempt:
    """Attempt 1 at a training on two nodes."""
    store = Store.open(store_of(cluster, folder / "store"))
    inputs = {"dataset": dataset_input(store, "rows", {"train": ROWS})}
    params = {"model": "m", "recipe": {**TINY, **recipe}, "seed": 1, "rehearsal": None}
    workload = Workload(kind="fine_tune", params=params, inputs=inputs, nonce=secrets.token_hex(8))
    store.create_json(f"{workload.directory}/spec.json", workload.to_json())
    attempt = attempts.claim(
        store,
        workload.directory,
        number=1,
        backend={"target": "kubernetes"},
        owner=None,
        step=-1,
        stalls=0,
        ask=Ask(Resources(nodes=2, cpu=0.5, memory_bytes=GIB)),
    )
    assert attempt is not None
    return attempt


def wait_for_end(cluster: FakeCluster, backend: KubernetesCompute, attempt: Attempt) -> str:
    """Its last phase."""

    def look() -> str:
        phase = backend.probe(attempt).phase.value
        return phase if phase in ("succeeded", "failed") else ""

    return str(cluster.wait(look, "its end", seconds=PATIENCE_S))


def log_of(attempt: Attempt) -> str:
    """All lines that the supervisor wrote."""
    chunks = attempt.store.list(attempt.path("log"))
    return "".join(attempt.store.get(chunk.path).decode() for chunk in chunks)


def pods_of(cluster: FakeCluster, attempt: Attempt) -> list[str]:
    """Names of its pods."""
    fingerprint = attempt.directory.split("/")[-1]
    return [pod["metadata"]["name"] for pod in labelled(cluster.objects("pods"), fingerprint)]


class TestJobSet:
    def test_two_pods_train_together_and_maintenance_costs_no_attempt(self, cluster, backend, tmp_path):
        attempt, before = two_nodes(cluster, tmp_path, max_steps=24), cluster.created("jobsets")
        backend.launch(attempt)
        cluster.wait(
            lambda: attempts.newest_checkpoint_step(attempt.store, attempt.directory) > 0,
            "a checkpoint",
            seconds=PATIENCE_S,
        )
        first, second = pods_of(cluster, attempt)
        cluster.faults.preempt(second)
        assert wait_for_end(cluster, backend, attempt) == "succeeded", cluster.describe()
        assert first not in pods_of(cluster, attempt)
        assert cluster.created("jobsets") == before + 1
        assert "on 2 devices" in log_of(attempt)
        assert "resuming from the checkpoint" in log_of(attempt)
        result = attempts.find_result(attempt.store, attempt.directory)
        assert result is not None
        assert result.attempt == 1
        assert result.metrics["train_steps"] == 24


class TestTrainJob:
    def test_a_runtime_of_kubeflow_runs_the_same_pods(self, cluster, backend, tmp_path):
        attempt, before = two_nodes(cluster, tmp_path), cluster.created("trainjobs")
        on_kubeflow = replace(backend, multi_node="trainjob")
        on_kubeflow.launch(attempt)
        assert wait_for_end(cluster, on_kubeflow, attempt) == "succeeded", cluster.describe()
        assert cluster.created("trainjobs") == before + 1
        assert "on 2 devices" in log_of(attempt)
        on_kubeflow.stop(attempt)
        cluster.wait(lambda: not pods_of(cluster, attempt), "its pods to go")
