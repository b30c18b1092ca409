"""A model file on this machine and, with one line changed, in a cluster: through real Airflow, to the same weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute.kubernetes.watch import end_watches
from genai_operators.lifecycle import lifecycle_dags
from genai_operators.store import Store
from tests.fakes.dag_runs import run_dag, use_empty_bundle
from tests.fakes.faults.training import IMAGES, TRAINING_IMAGE
from tests.fakes.kubernetes.fixture import ROOT, FakeCluster, cluster_from_environment
from tests.fakes.kubernetes.settings import Settings, cpu_node, gpu_node
from tests.fakes.workload_process import TINY_RECIPE

pytestmark = [pytest.mark.slow, pytest.mark.workload_env]

COMPUTED = ("validate", "fine_tune", "evaluate")
#: The rest needs a registry and a gateway, and does not run on compute.
ELSEWHERE = "register|approve|release"
MODEL_FILE = """\
schema_version: 1
data:
  train: include/data/rows.csv
train:
  recipe: tiny
evaluate:
  minimum_items: 5
  on_failure: warn
compute: {target}
"""
RECIPE = {"base_model": "scratch", **TINY_RECIPE}


@dataclass(frozen=True)
class Outcome:
    """What a run of the retraining came to, by task."""

    states: dict[str, str]
    workloads: dict[str, str]
    weights: str
    backends: set[str]


class Project:
    """What a user has written; each run has a store of its own, so that nothing is reused."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        for name in ("dags", "include/models", "include/data", "include/recipes"):
            (folder / name).mkdir(parents=True)
        shutil.copytree(ROOT / "include" / "suites", folder / "include" / "suites")
        shutil.copy(ROOT / "include" / "prices.yaml", folder / "include")
        (folder / "include/recipes/tiny.yaml").write_text(json.dumps(RECIPE))
        rows = [f"{word} number {number} please,{word}" for word in ("ask", "pay", "go") for number in range(40)]
        (folder / "include/data/rows.csv").write_text("text,category\n" + "\n".join(rows) + "\n")
        monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(folder / "dags"))
        monkeypatch.setenv("GENAI_SCRATCH_ROOT", str(folder / "scratch"))
        self.connect("compute_local", extra={"workload_python": str(ROOT / ".venv-workload/bin/python")})

    def connect(self, name: str, **fields: Any) -> None:
        record = {"conn_type": "generic", **fields}
        self._monkeypatch.setenv(f"AIRFLOW_CONN_GENAI_{name.upper()}", json.dumps(record))

    def retrain(self, target: str) -> Outcome:
        """Run ``bot__retrain`` up to the evaluation."""
        store = Store.open(self.folder / f"store-{target}")
        self.connect("store", extra={"uri": store.uri})
        (self.folder / "include/models/bot.yaml").write_text(MODEL_FILE.format(target=target))
        run = run_dag(lifecycle_dags(self.folder)["bot__retrain"], mark_success_pattern=ELSEWHERE)
        references = {task: run.get_task_instance(task).xcom_pull(task_ids=task) for task in COMPUTED}
        claims = [store.get_json(info.path) for info in store.list("workloads") if info.path.endswith("claim.json")]
        return Outcome(
            states={task.task_id: str(task.state) for task in run.get_task_instances()},
            workloads={task: reference["workload"] for task, reference in references.items()},
            weights=references["fine_tune"]["outputs"]["model"]["digest"],
            backends={claim["backend"]["target"] for claim in claims},
        )


@pytest.fixture
def project(tmp_path: Path, workload_python: str, airflow_database: None, monkeypatch: pytest.MonkeyPatch) -> Project:
    use_empty_bundle(tmp_path / "no-dags", monkeypatch)
    return Project(tmp_path / "project", monkeypatch)


@pytest.fixture
def cluster(tmp_path: Path, project: Project) -> Iterator[FakeCluster]:
    """With GPUs, for the plan asks for one; here their pods compute on this machine's cores."""
    nodes = (cpu_node(), gpu_node("gpu-1", product="NVIDIA-L4", memory_mib=23034), gpu_node("gpu-2"))
    with cluster_from_environment(Settings(folder="", nodes=nodes, images=IMAGES), folder=tmp_path / "fake") as cluster:
        extra = {
            "kube_config_path": str(cluster.kubeconfig),
            "namespace": cluster.namespace,
            "image": cluster.image if cluster.real else TRAINING_IMAGE,
            "service_account": "",
        }
        project.connect("kubernetes", conn_type="kubernetes", extra=extra)
        yield cluster
        end_watches()


def test_the_target_alone_differs_and_the_weights_do_not(project: Project, cluster: FakeCluster) -> None:
    if cluster.real:
        pytest.skip("a real cluster's pods do not reach the folder that is the store here")
    here, there = project.retrain("local"), project.retrain("kubernetes")
    assert set(here.states.values()) == {"success"}
    assert there.states == here.states
    assert there.workloads == here.workloads
    assert there.weights == here.weights
    assert (here.backends, there.backends) == ({"local"}, {"kubernetes"})
    assert cluster.faults.created("jobs") == len(COMPUTED)
