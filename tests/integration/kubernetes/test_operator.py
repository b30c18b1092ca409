"""A task of a real DAG run (``dag.test()``) whose workload is computed by a pod of a cluster."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk import DAG, Context
from airflow.sdk.exceptions import TaskDeferred

from genai_operators.compute import attempts
from genai_operators.compute.contract import Artifact, Workload
from genai_operators.compute.kubernetes.watch import end_watches
from genai_operators.compute.watch import Poll, WorkloadSubject
from genai_operators.operators.links import RunLink
from genai_operators.store import Store, sha256_file
from tests.fakes import checkpointing
from tests.fakes.checkpointing_operator import CheckpointingOperator
from tests.fakes.dag_runs import run_dag, use_empty_bundle
from tests.fakes.kubernetes.fixture import ROOT, FakeCluster, cluster_from_environment, store_of
from tests.fakes.workload_run import wait_for

pytestmark = pytest.mark.slow

SMALL = {"cpu": 0.5, "memory_bytes": 2**30}


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
    with cluster_from_environment(folder=tmp_path_factory.mktemp("cluster") / "fake") as cluster:
        yield cluster
        end_watches()


@pytest.fixture
def store(tmp_path: Path, cluster: FakeCluster) -> Store:
    return Store.open(store_of(cluster, tmp_path / "store"))


def witness(tmp_path: Path, cluster: FakeCluster) -> str:
    """Where the workload leaves its marks; a pod of a real cluster sees no folder of this host."""
    return "" if cluster.real else str(tmp_path / "witness")


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


def run_task(tmp_path: Path, cluster: FakeCluster, store: Store, **more: Any) -> Any:
    rows = tmp_path / "rows.csv"
    rows.write_text("text\n")
    with DAG(f"dag_of_{tmp_path.name}", schedule=None) as dag:
        InCluster(
            task_id="train",
            settings={"steps": 6, "step_s": 0.02, "witness": witness(tmp_path, cluster), "nonce": secrets.token_hex(8)},
            rows=str(rows),
            store=store.uri,
            **{"compute": "kubernetes", **more},
        )
    return run_dag(dag).get_task_instance("train")


@pytest.mark.parametrize("deferrable", [True, False])
def test_only_the_name_of_the_target_differs_from_this_machine(
    tmp_path: Path,
    cluster: FakeCluster,
    store: Store,
    connection: dict[str, Any],
    airflow_database: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    deferrable: bool,
) -> None:
    use_empty_bundle(tmp_path / "no-dags", monkeypatch)
    task = run_task(tmp_path, cluster, store, deferrable=deferrable, hardware=SMALL)
    log = capsys.readouterr().out
    assert task.state == "success", log
    reference = task.xcom_pull(task_ids="train")
    state = store.path_of(reference["outputs"]["state"]["uri"]) + "/state.txt"
    assert store.get(state).decode() == checkpointing.final_state(6)
    assert store.get(f"inputs/{sha256_file(tmp_path / 'rows.csv')}/rows.csv") == b"text\n"
    assert "attempt 1: claimed, 0.5 cores, 1 GiB" in log
    assert "1:000006 line of step 6" in log
    link = task.xcom_pull(task_ids="train", key=RunLink().xcom_key)
    assert link == f"/genai/runs/{reference['workload']}"


@pytest.fixture
def canary(cluster: FakeCluster, connection: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A value that only a Secret of the cluster holds; the connection names that."""
    from kubernetes import client

    core, value, name = client.CoreV1Api(cluster.api_client()), secrets.token_hex(16), f"canary-{secrets.token_hex(4)}"
    body = client.V1Secret(metadata=client.V1ObjectMeta(name=name), string_data={"token": value})
    core.create_namespaced_secret(cluster.namespace, body)
    extra = {**connection, "secret_env": {"HF_TOKEN": f"{name}/token"}}
    monkeypatch.setenv("AIRFLOW_CONN_GENAI_KUBERNETES", json.dumps({"conn_type": "kubernetes", "extra": extra}))
    yield value
    core.delete_namespaced_secret(name, cluster.namespace)


def test_a_secret_reaches_the_workload_and_nothing_that_is_written(
    tmp_path: Path, cluster: FakeCluster, canary: str, store: Store, capfd: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256(canary.encode()).hexdigest()
    settings = {"steps": 2, "witness": witness(tmp_path, cluster), "given": {"HF_TOKEN": digest}, "nonce": digest}
    rows = tmp_path / "rows.csv"
    rows.write_text("text\n")
    operator = InCluster(
        task_id="train", settings=settings, rows=str(rows), store=store.uri, compute="kubernetes", hardware=SMALL
    )
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="train", map_index=-1)
    context = cast("Context", {"ti": ti, "run_id": "r"})
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    trigger = deferred.value.trigger
    subject, polls = WorkloadSubject(**trigger.subject_kwargs), list[Poll]()

    def settle() -> Any:
        polls.append(subject.poll())
        return polls[-1].settled

    settled = wait_for(settle, what="its end")
    lines = [line for poll in polls for line in poll.lines]
    attempt = attempts.find_attempt(store, trigger.subject_kwargs["directory"], 1)
    objects = [cluster.job(attempt.name), *cluster.pods(attempt.name)]
    reference = operator.resume(context, {**settled, "subject": trigger.subject_kwargs})
    records = [store.get(info.path) for info in store.list(attempt.directory)]
    written = [json.dumps([trigger.serialize(), objects, reference, settled, lines]).encode(), *records]
    assert canary not in "".join(capfd.readouterr())
    assert [each for each in written if canary.encode() in each] == []
    assert b"secretKeyRef" in written[0]
    assert len(records) > 5


def test_a_connection_with_a_misspelt_key_says_so(
    tmp_path: Path,
    cluster: FakeCluster,
    store: Store,
    connection: dict[str, Any],
    airflow_database: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_empty_bundle(tmp_path / "no-dags", monkeypatch)
    extra = {**connection, "imag": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_GENAI_KUBERNETES", json.dumps({"conn_type": "kubernetes", "extra": extra}))
    assert run_task(tmp_path, cluster, store).state == "failed"
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
