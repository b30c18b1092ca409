"""A task of a real DAG run (``dag.test()``) whose workload is computed by a pod of a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, Context

from genai_operators.compute.contract import Artifact, Workload
from genai_operators.compute.kubernetes.watch import end_watches
from genai_operators.operators.links import RunLink
from genai_operators.store import Store, sha256_file
from tests.fakes import checkpointing
from tests.fakes.checkpointing_operator import CheckpointingOperator
from tests.fakes.dag_runs import run_dag, use_empty_bundle
from tests.fakes.kubernetes.fixture import ROOT, FakeCluster, fake_cluster

pytestmark = pytest.mark.slow


class InCluster(CheckpointingOperator):
    """The same stage with an input that lies on this host only."""

    template_fields = ("rows", *CheckpointingOperator.template_fields)

    def __init__(self, *, rows: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows = rows

    def build_workload(self, context: Context) -> Workload:
        assert isinstance(self.settings, dict)
        rows = Artifact(uri=Path(self.rows).as_uri(), digest=sha256_file(Path(self.rows)))
        return Workload(kind=self.workload_kind, params=self.settings, inputs={"rows": rows}, code_digest="c")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    with fake_cluster(folder=tmp_path_factory.mktemp("cluster") / "fake") as cluster:
        yield cluster
        end_watches()


@pytest.fixture
def connection(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The connection of the cluster; its extra holds the provider's keys and ours."""
    extra = {
        "kube_config_path": str(cluster.kubeconfig),
        "namespace": cluster.namespace,
        "image": cluster.image,
        "service_account": "",
        "grace_s": 5.0,
        "env": {"GENAI_EXTRA_WORKLOADS": checkpointing.EXTRA_WORKLOADS},
    }
    monkeypatch.setenv("AIRFLOW_CONN_GENAI_KUBERNETES", json.dumps({"conn_type": "kubernetes", "extra": extra}))
    return extra


def run_task(tmp_path: Path, **more: Any) -> Any:
    rows = tmp_path / "rows.csv"
    rows.write_text("text\n")
    with DAG(f"dag_of_{tmp_path.name}", schedule=None) as dag:
        InCluster(
            task_id="train",
            settings={"steps": 6, "step_s": 0.02, "witness": str(tmp_path / "witness")},
            rows=str(rows),
            store=Store.open(tmp_path / "store").uri,
            **{"compute": "kubernetes", **more},
        )
    return run_dag(dag).get_task_instance("train")


@pytest.mark.parametrize("deferrable", [True, False])
def test_only_the_name_of_the_target_differs_from_this_machine(
    tmp_path: Path,
    connection: dict[str, Any],
    airflow_database: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    deferrable: bool,
) -> None:
    use_empty_bundle(tmp_path / "no-dags", monkeypatch)
    task = run_task(tmp_path, deferrable=deferrable, hardware={"cpu": 0.5, "memory_bytes": 2**30})
    log = capsys.readouterr().out
    assert task.state == "success", log
    store, reference = Store.open(tmp_path / "store"), task.xcom_pull(task_ids="train")
    state = store.path_of(reference["outputs"]["state"]["uri"]) + "/state.txt"
    assert store.get(state).decode() == checkpointing.final_state(6)
    assert store.get(f"inputs/{sha256_file(tmp_path / 'rows.csv')}/rows.csv") == b"text\n"
    assert "attempt 1: claimed, 0.5 cores, 1 GiB" in log
    assert "1:000006 line of step 6" in log
    link = task.xcom_pull(task_ids="train", key=RunLink().xcom_key)
    assert link == f"/genai/runs/{reference['workload']}"


def test_a_connection_with_a_misspelt_key_says_so(
    tmp_path: Path,
    connection: dict[str, Any],
    airflow_database: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_empty_bundle(tmp_path / "no-dags", monkeypatch)
    extra = {**connection, "imag": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_GENAI_KUBERNETES", json.dumps({"conn_type": "kubernetes", "extra": extra}))
    assert run_task(tmp_path).state == "failed"
    assert "did you mean 'image'?" in capsys.readouterr().out


def test_a_worker_that_defers_needs_no_client_of_the_cluster(tmp_path: Path, connection: dict[str, Any]) -> None:
    """Importing one takes a second of CPU, for each task; the triggerer, which submits, has it already."""
    program = f"""
import sys
from types import SimpleNamespace
from airflow.sdk.exceptions import TaskDeferred
from genai_operators.compute.contract import Workload
from tests.fakes.checkpointing_operator import CheckpointingOperator
ti = SimpleNamespace(dag_id="d", run_id="r", task_id="train", map_index=-1)
operator = CheckpointingOperator(
    task_id="train", settings={{}}, store={str(tmp_path / "store")!r}, compute="kubernetes"
)
operator.build_workload = lambda context: Workload(kind="x")
try:
    operator.execute({{"ti": ti, "run_id": "r"}})
except TaskDeferred:
    print("kubernetes" in sys.modules)
"""
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'plugins'}{os.pathsep}{ROOT}"}
    told = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert told.stdout.splitlines()[-1:] == ["False"], told.stdout + told.stderr
