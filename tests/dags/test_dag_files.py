"""What every DAG file of the project owes Airflow: quick, light, stable, complete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genai_operators.settings_file import read_settings

ROOT = Path(__file__).parents[2]
DAG_FILES = sorted(path.name for path in (ROOT / "dags").glob("*.py"))
HEAVY = (
    "mlflow",
    "great_expectations",
    "torch",
    "transformers",
    "kubernetes",
    "boto3",
    "pandas",
    "polars",
    "numpy",
    "scipy",
    "obstore",
    "matplotlib",
)


def python(program: str, **variables: str) -> str:
    """The last line that a fresh Python prints. It sees an Airflow whose database does not exist."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'plugins'}:{ROOT / 'dags'}",
            # No DAG file may need the database, a connection or a variable.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////nonexistent/airflow.db",
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


HASH_ALL = f"""
import json, runpy
from airflow.models.serialized_dag import SerializedDagModel
from airflow.serialization.serialized_objects import DagSerialization
hashes = {{}}
for name in {DAG_FILES}:
    for dag in runpy.run_path("{ROOT}/dags/" + name).values():
        if type(dag).__name__ == "DAG":
            hashes[dag.dag_id] = SerializedDagModel.hash(DagSerialization.to_dict(dag))
result = json.dumps(hashes)
"""


IMPORT_ALL = f"""
import sys, airflow.sdk
before = set(sys.modules)
import genai_operators
for name in genai_operators.__all__:
    getattr(genai_operators, name)
import {", ".join(name.removesuffix(".py") for name in DAG_FILES)}
print([name for name in {HEAVY} if name in sys.modules and name not in before])
"""


class TestImporting:
    def test_brings_no_heavy_library_that_airflow_itself_did_not(self) -> None:
        assert python(IMPORT_ALL) == "[]"


@pytest.fixture(scope="module")
def dags() -> dict[str, Any]:
    """The DAGs as the dag processor finds them."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=str(ROOT / "dags"))
    assert bag.import_errors == {}
    return dict(bag.dags)


class TestEveryDag:
    def test_is_found(self, dags: dict[str, Any]) -> None:
        lifecycle = {f"support_bot__{name}" for name in ("retrain", "drift", "rollback")}
        assert lifecycle | {"genai_reconcile", "retraining_by_hand"} <= set(dags)

    def test_has_an_owner_tags_and_documentation_and_does_not_pile_up(self, dags: dict[str, Any]) -> None:
        for dag in dags.values():
            assert "genai" in dag.tags, dag.dag_id
            assert dag.doc_md, dag.dag_id
            assert dag.owner != "airflow", dag.dag_id
            assert dag.max_active_runs == 1, dag.dag_id
            assert not dag.catchup, dag.dag_id

    def test_serialises_to_the_same_hash_in_every_process(self) -> None:
        here: dict[str, Any] = {}
        exec(HASH_ALL, here)
        assert json.loads(here["result"]) == json.loads(python(f"{HASH_ALL}print(result)"))
        assert "support_bot__retrain" in here["hashes"]

    def test_serialises_and_comes_back_with_its_tasks(self, dags: dict[str, Any]) -> None:
        from airflow.serialization.serialized_objects import DagSerialization

        for dag in dags.values():
            restored = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
            assert restored.task_ids == dag.task_ids

    def test_every_template_field_exists_on_its_operator(self, dags: dict[str, Any]) -> None:
        for dag in dags.values():
            for task in dag.tasks:
                assert isinstance(task.template_fields, (tuple, list)), task.task_id
                assert all(hasattr(task, field) for field in task.template_fields), task.task_id


class TestPools:
    def test_the_example_s_workloads_share_the_pool_of_this_host(self, dags: dict[str, Any]) -> None:
        (pool,) = [
            pool for pool in read_settings(ROOT / "airflow_settings.yaml").pools if pool.pool_name == "genai_local"
        ]
        assert pool.pool_include_deferred, "what is deferred computes on"
        for dag, names in {"retrain": ("validate", "fine_tune", "evaluate"), "drift": ("check",)}.items():
            for name in names:
                assert dags[f"support_bot__{dag}"].get_task(name).pool == pool.pool_name


class TestSchedules:
    def test_retraining_waits_for_the_drift_alarm_that_the_check_raises(self, dags: dict[str, Any]) -> None:
        (alias,) = dags["support_bot__drift"].get_task("check").outlets
        assert dags["support_bot__retrain"].timetable.asset_condition == alias

    def test_the_example_never_starts_by_itself(self, dags: dict[str, Any]) -> None:
        assert dags["retraining_by_hand"].is_paused_upon_creation
        assert not dags["retraining_by_hand"].timetable.can_be_scheduled

    def test_reconciliation_runs_each_minute_from_the_start(self, dags: dict[str, Any]) -> None:
        assert dags["genai_reconcile"].timetable.expression == "* * * * *"
        assert dags["genai_reconcile"].is_paused_upon_creation is False


@pytest.mark.slow
class TestDryRun:
    def test_prints_the_plan_and_starts_nothing(
        self,
        airflow_database: None,
        dags: dict[str, Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        connection = {"conn_type": "generic", "extra": {"uri": str(tmp_path / "store")}}
        monkeypatch.setenv("AIRFLOW_CONN_GENAI_STORE", json.dumps(connection))
        run = dags["support_bot__retrain"].test(run_conf={"dry_run": True, "seed": 7})
        states = {task.task_id: str(task.state) for task in run.get_task_instances()}
        assert states.pop("plan") == "success"
        assert set(states.values()) == {"skipped"}
        said = capfd.readouterr().out
        assert "recipe tiny_llama, seed 7, from scratch" in said
        assert "no earlier run" in said
        assert "about 30 s (estimate within a factor of 2, from rows and recipe; no earlier run)" in said
        assert "no champion yet: the candidate takes all traffic at once" in said
        assert "trains on this machine; on a cluster it would be 1 x" in said
        (page,) = (path for path in (tmp_path / "store").rglob("*") if path.is_file())
        assert page.parent == tmp_path / "store/plans/support_bot"
        assert page.suffix == ".html"


@pytest.mark.slow
class TestDriftCheck:
    def test_is_skipped_while_there_is_no_champion(
        self, airflow_database: None, dags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connection = {"conn_type": "generic", "extra": {"uri": str(tmp_path / "store")}}
        monkeypatch.setenv("AIRFLOW_CONN_GENAI_STORE", json.dumps(connection))
        run = dags["support_bot__drift"].test()
        assert [(task.task_id, str(task.state)) for task in run.get_task_instances()] == [("check", "skipped")]
