"""Register, release, roll back, reconcile: the operators in real DAG runs on real MLflow, Envoy and supervisord.

Only the model servers are fakes (:mod:`tests.fakes.openai_server`): they answer over HTTP as a real one does.
"""

from __future__ import annotations

import json
import runpy
import shutil
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from airflow.sdk import DAG, AssetAlias

from genai_operators.compute.budget import Spent
from genai_operators.compute.contract import Artifact
from genai_operators.decisions.verdict import Check, Outcome, Verdict
from genai_operators.hooks.registry import ModelRegistry
from genai_operators.hooks.release_parts import LocalSurroundings, describe_parts
from genai_operators.operators.canary import CanaryReleaseOperator
from genai_operators.operators.register import RegisterModelOperator
from genai_operators.operators.rollback import RollbackOperator
from genai_operators.release.ledger import Ledger
from genai_operators.release.reconcile import reconcile_releases
from genai_operators.release.replay import replay
from genai_operators.serving.local import LocalServing
from genai_operators.spec.serve import Serve
from tests.fakes.dag_runs import run_dag, use_empty_bundle
from tests.fakes.serving_platform import FAKE_SERVER, ServingPlatform
from tests.fakes.workload_process import TINY_RECIPE

pytestmark = pytest.mark.slow

MODEL = "shop_bot"
COMMAND = ["{python}", str(FAKE_SERVER), "--name", "{name}", "--port", "{port}"]
SERVE = {
    "runtime": "fake",
    "runtimes": {"fake": {"command": COMMAND}, "sick": {"command": [*COMMAND, "--error-share", "0.6"]}},
}
CANARY = {
    "steps": [
        {"percent": 20, "minimum_soak": "1s", "minimum_requests": 5},
        {"percent": 50, "minimum_soak": "1s", "minimum_requests": 10},
    ],
    "guardrails": {"errors": {"ceiling": 0.2}, "invalid_output": {"ceiling": 0.2}},
    "deadline": "2m",
    "startup_timeout": "1m",
}


class Platform:
    """Everything outside of Airflow, with Airflow's connections to it."""

    def __init__(self, serving: ServingPlatform, mlflow_uri: str) -> None:
        self.serving = serving
        self.store = serving.store
        self.registry = ModelRegistry(mlflow_uri)
        self._stop = threading.Event()
        self._clients: list[threading.Thread] = []

    def connections(self) -> dict[str, str]:
        gateway, folder = self.serving.settings, self.serving.folder
        port = int(self.registry.rest.uri.rsplit(":", 1)[1])
        records: dict[str, dict[str, Any]] = {
            "genai_store": {"extra": {"uri": self.store.uri}},
            "genai_mlflow": {"host": "127.0.0.1", "port": port, "schema": "http"},
            "genai_gateway": {
                "extra": {
                    "gateway_url": gateway.gateway_url,
                    "admin_url": gateway.admin_url,
                    "supervisor": str(gateway.supervisor),
                    "directory": str(gateway.directory),
                }
            },
            "genai_compute_local": {"extra": {}},
            "genai_signing": {
                "extra": {"private_key": str(folder / "keys/key.pem"), "trusted_keys": str(folder / "keys/trusted")}
            },
        }
        return {
            f"AIRFLOW_CONN_{name.upper()}": json.dumps({"conn_type": "generic", **record})
            for name, record in records.items()
        }

    def trained(self, name: str) -> str:
        """A finished fine-tuning and its evaluation in the store, as workloads leave them; the fine-tuning's folder."""
        folder = f"workloads/fine_tune/{name}"
        local = self.serving.folder / "trained" / name
        local.mkdir(parents=True)
        header = json.dumps({"w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}).encode()
        (local / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + name.encode()[:4].ljust(4))
        (local / "config.json").write_text(json.dumps({"model_type": "llama", "name": name}))
        manifest = self.store.upload_directory(local, f"{folder}/output/model")
        model = Artifact(self.store.uri_of(f"{folder}/output/model"), manifest.digest)
        self._result(folder, outputs={"model": model.to_json()}, metrics={"loss": 0.02})
        check = Check(name="exact_match", outcome=Outcome.PASS, observed=0.95, n=50)
        verdict = Verdict.of("evaluation", [check]).to_json()
        self._result(f"workloads/evaluate/{name}", verdict=verdict, metrics={"exact_match": 0.95})
        return folder

    def _result(self, folder: str, **fields: Any) -> None:
        spec = {"fingerprint": folder, "params": {"recipe": {"base_model": "scratch", "method": "full"}, "seed": 1}}
        dataset = {"uri": self.store.uri_of("datasets/one"), "digest": "d" * 64}
        self.store.put_json(f"{folder}/spec.json", {**spec, "inputs": {"dataset": dataset}})
        self.store.put_json(f"{folder}/result.json", {"version": 1, "attempt": 1, **fields})

    def talk(self, clients: int = 4) -> None:
        """Users who ask and rate all the time."""
        self._clients = [threading.Thread(target=self._client, args=(n,), daemon=True) for n in range(clients)]
        for client in self._clients:
            client.start()

    def be_quiet(self) -> None:
        self._stop.set()
        for client in self._clients:
            client.join(30)

    def _client(self, number: int) -> None:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "where is my parcel"}], "user": f"u{number}"}
        with httpx.Client(base_url=self.serving.settings.gateway_url, timeout=10) as client:
            while not self._stop.wait(0.05):
                client.post("/v1/chat/completions", json=body)

    def local(self) -> LocalServing:
        return self.serving.serving(MODEL)


@pytest.fixture(scope="module")
def platform(mlflow_uri: str) -> Iterator[Platform]:
    serving = ServingPlatform()
    try:
        serving.start()
        platform = Platform(serving, mlflow_uri)
        yield platform
        platform.be_quiet()
    finally:
        serving.close()


@pytest.fixture
def airflow(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, airflow_database: None) -> None:
    for name, value in platform.connections().items():
        monkeypatch.setenv(name, value)
    use_empty_bundle(tmp_path / "no-dags", monkeypatch)


def release(platform: Platform, name: str, **changes: Any):
    """Register a training and release it, as the retraining DAG does; the task instances by id."""
    folder = platform.trained(name)
    evaluated = f"workloads/evaluate/{name}"
    for workload, spent in ((folder, Spent(cost=4.2, gpu_hours=1.5)), (evaluated, Spent(cost=0.3, gpu_hours=0.25))):
        platform.store.put_json(f"{workload}/usage.json", {**spent.to_json(), "currency": "USD"})
    with DAG(f"{MODEL}__retrain", schedule=None) as dag:
        registered = RegisterModelOperator(
            task_id="register",
            model=MODEL,
            training=platform.store.uri_of(f"{folder}/result.json"),
            evaluation=platform.store.uri_of(f"{evaluated}/result.json"),
        )
        CanaryReleaseOperator(
            task_id="release",
            model=MODEL,
            version=registered.output["version"],
            digest=registered.output["digest"],
            canary=CANARY,
            serve=SERVE,
            output_kind="json",
            poll_interval=0.3,
            outlets=[AssetAlias(f"{MODEL}_champion")],
            **changes,
        )
    run = run_dag(dag)
    return run.get_task_instance("register"), run.get_task_instance("release")


def page_behind(platform: Platform, task: Any) -> str:
    """The report that the task's button opens, as the plugin finds it in the store."""
    link = task.xcom_pull(task_ids=task.task_id, key="_link_ReportLink")
    assert link.startswith("/genai/reports/"), task.task_id
    return platform.store.get(link.removeprefix("/genai/reports/")).decode()


def champions_told() -> list[int]:
    """The versions that Airflow's events of the endpoint's asset name, oldest first."""
    from airflow.models.asset import AssetEvent, AssetModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    named = select(AssetModel.id).where(AssetModel.uri == f"x-genai://endpoints/{MODEL}")
    with create_session() as session:
        events = session.scalars(select(AssetEvent).where(AssetEvent.asset_id.in_(named)).order_by(AssetEvent.id))
        return [event.extra["champion_version"] for event in events]


class TestLifeOfAModel:
    """In this order: the first version, a good second one, a sick third one, back to the first, and reconciliation."""

    def test_the_first_version_is_signed_registered_and_takes_all_traffic(self, platform, airflow, capsys):
        registered, released = release(platform, "one")
        assert (registered.state, released.state) == ("success", "success")
        reference = released.xcom_pull(task_ids="release")
        assert (reference["outcome"], reference["champion_version"], reference["previous"]) == ("promoted", 1, None)
        version = platform.registry.get(MODEL, 1)
        assert version.complete
        assert version.tags["genai.evaluation"] == "pass"
        assert (version.tags["genai.cost"], version.tags["genai.gpu_hours"]) == ("4.50 USD", "1.75")
        rest = platform.registry.rest
        found = rest.get("/model-versions/get", name=MODEL, version="1")["model_version"]
        run = rest.get("/runs/get", run_id=found["run_id"])["run"]
        figures = {each["key"]: each["value"] for each in run["data"]["metrics"]}
        assert (figures["training_cost"], figures["training_gpu_hours"]) == (4.2, 1.5)
        assert (figures["evaluation_cost"], figures["evaluation_gpu_hours"]) == (0.3, 0.25)
        assert platform.registry.champion(MODEL) == 1
        entry = Ledger(platform.store, MODEL).champion()
        assert entry.evidence["dataset"] == platform.store.uri_of("datasets/one")
        assert platform.store.path_of(entry.evidence["model"]) == "workloads/fine_tune/one/output/model"
        answer = platform.serving.ask(model=MODEL)
        assert answer.status_code == 200
        assert "Release of shop_bot v1" in page_behind(platform, released)
        card = page_behind(platform, registered)
        assert "shop_bot v1" in card
        assert version.tags["genai.digest"][:12] in card
        assert "exact_match" in card
        assert champions_told() == [1]
        assert "is the first version" in capsys.readouterr().out

    def test_a_good_version_wins_all_traffic_step_by_step(self, platform, airflow, capsys):
        platform.talk()
        _, released = release(platform, "two")
        assert released.state == "success", capsys.readouterr().out[-4000:]
        reference = released.xcom_pull(task_ids="release")
        assert (reference["outcome"], reference["champion_version"], reference["previous"]) == ("promoted", 2, 1)
        assert reference["exposed_requests"] > 15
        status = platform.local().status()
        assert (status.champion.version, status.canary, status.percent) == (2, None, 0)
        assert platform.registry.champion(MODEL) == 2
        assert replay(platform.store, MODEL, reference["release"]).differences == ()
        assert platform.store.exists(f"releases/{MODEL}/{reference['release']}/report.html")
        log = capsys.readouterr().out
        assert "step 1 of 2: 20 % of the traffic goes to v2" in log
        assert "step 2 of 2: 50 % of the traffic goes to v2" in log

    def test_a_sick_version_is_rolled_back_and_the_task_fails_at_once(self, platform, airflow, capsys):
        _, released = release(platform, "three", runtime="sick", retries=2)
        log = capsys.readouterr().out
        assert released.state == "failed"
        assert released.try_number == 1, "a retry would judge the same"
        assert "GateFailed" in log
        assert "v3 of shop_bot was rolled back (harm)" in log
        status = platform.local().status()
        assert (status.champion.version, status.canary) == (2, None)
        assert Ledger(platform.store, MODEL).champion().version == 2
        assert platform.registry.champion(MODEL) == 2
        assert platform.serving.ask(model=MODEL).status_code == 200

    def test_the_champion_again_is_nothing_to_release(self, platform, airflow):
        with DAG("again", schedule=None) as dag:
            outlets = [AssetAlias(f"{MODEL}_champion")]
            CanaryReleaseOperator(task_id="release", model=MODEL, version=2, serve=SERVE, outlets=outlets)
        task = run_dag(dag).get_task_instance("release")
        assert task.xcom_pull(task_ids="release")["outcome"] == "unchanged"
        assert champions_told() == [1, 2], "neither the sick version nor this changed the endpoint"

    def test_back_to_the_version_before(self, platform, airflow):
        with DAG(f"{MODEL}__rollback", schedule=None) as dag:
            RollbackOperator(task_id="rollback", model=MODEL, version="None", reason="a test", serve=SERVE)
        task = run_dag(dag).get_task_instance("rollback")
        assert task.state == "success"
        assert task.xcom_pull(task_ids="rollback")["champion_version"] == 1
        assert "Rollback of shop_bot to v1" in page_behind(platform, task)
        assert platform.local().status().champion.version == 1
        assert platform.registry.champion(MODEL) == 1
        assert [entry.action for entry in Ledger(platform.store, MODEL).verify()] == ["promote", "promote", "rollback"]

    def test_a_version_that_was_never_champion_is_not_rolled_back_to(self, platform, airflow, capsys):
        with DAG("no_such", schedule=None) as dag:
            RollbackOperator(task_id="rollback", model=MODEL, version=3, serve=SERVE)
        assert run_dag(dag).get_task_instance("rollback").state == "failed"
        assert "v3 was never champion (the ledger knows v1, v2)" in capsys.readouterr().out

    def test_reconciling_puts_alias_and_gateway_right(self, platform, airflow):
        platform.registry.set_champion(MODEL, 3)
        surroundings = LocalSurroundings(describe_parts())
        lines = reconcile_releases(platform.store, lambda _owner: None, surroundings)
        assert lines == ["set the alias champion of shop_bot to v1, as the ledger says"]
        assert reconcile_releases(platform.store, lambda _owner: None, surroundings) == []


class TestNothingHalfRegistered:
    def test_mlflow_down_moves_no_traffic_and_is_clear(self, platform, airflow, monkeypatch, capsys):
        monkeypatch.setenv(
            "AIRFLOW_CONN_GENAI_MLFLOW", json.dumps({"conn_type": "generic", "host": "127.0.0.1", "port": 9})
        )
        before = platform.local().status()
        registered, released = release(platform, "down")
        assert (registered.state, released.state) == ("failed", "upstream_failed")
        assert "MLflow at http://127.0.0.1:9 does not answer" in capsys.readouterr().out
        assert platform.local().status() == before

    def test_a_pickle_is_refused(self, platform, airflow, capsys):
        folder = platform.trained("pick")
        local = platform.serving.folder / "trained" / "pick"
        (local / "pytorch_model.bin").write_bytes(b"\x80\x04 evil")
        manifest = platform.store.upload_directory(local, f"{folder}/output/model")
        artifact = {"uri": platform.store.uri_of(f"{folder}/output/model"), "digest": manifest.digest}
        platform._result(folder, outputs={"model": artifact})
        with DAG("pickle", schedule=None) as dag:
            RegisterModelOperator(
                task_id="register", model=MODEL, training=platform.store.uri_of(f"{folder}/result.json")
            )
        versions = len(platform.registry.versions(MODEL))
        assert run_dag(dag).get_task_instance("register").state == "failed"
        assert "UnsafeWeights" in capsys.readouterr().out
        assert len(platform.registry.versions(MODEL)) == versions


@pytest.mark.workload_env
class TestRetrainingByHand:
    """``dags/retraining_by_hand.py`` on few rows, with a training too short to pass and a fake model server."""

    ROWS: ClassVar[dict[str, int]] = {"first.jsonl": 120, "evaluation.jsonl": 60}

    @pytest.fixture
    def project(
        self,
        platform: Platform,
        airflow: None,
        project_root: Path,
        workload_python: str,
        tmp_path: Path,
        monkeypatch: Any,
    ) -> None:
        """A project folder with the files that the DAG names."""
        folder = tmp_path / "project"
        for name in ("dags", "include/data/support_bot", "include/recipes"):
            (folder / name).mkdir(parents=True)
        shutil.copytree(project_root / "include/suites", folder / "include/suites")
        for name, rows in self.ROWS.items():
            lines = (project_root / "include/data/support_bot" / name).read_text().splitlines(keepends=True)
            (folder / "include/data/support_bot" / name).write_text("".join(lines[:rows]))
        recipe = {"base_model": "scratch", **TINY_RECIPE, "max_length": 256}
        (folder / "include/recipes/tiny_llama.yaml").write_text(json.dumps(recipe))
        monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(folder / "dags"))
        monkeypatch.setenv("GENAI_SCRATCH_ROOT", str(folder / "scratch"))
        compute = {"conn_type": "generic", "extra": {"workload_python": workload_python}}
        monkeypatch.setenv("AIRFLOW_CONN_GENAI_COMPUTE_LOCAL", json.dumps(compute))

    @pytest.mark.usefixtures("project")
    def test_runs_from_the_rows_to_a_champion_and_every_task_links_to_its_report(
        self, platform: Platform, project_root: Path
    ) -> None:
        dag = runpy.run_path(str(project_root / "dags/retraining_by_hand.py"))["dag"]
        dag.get_task("evaluate").on_failure = "warn"
        dag.get_task("release").serve = Serve.model_validate(SERVE).model_dump(mode="json")
        run = run_dag(dag)
        tasks = {task.task_id: task for task in run.get_task_instances()}
        assert {name: str(task.state) for name, task in tasks.items()} == dict.fromkeys(
            ("validate", "fine_tune", "evaluate", "register", "release"), "success"
        )
        champion = Ledger(platform.store, "support_bot").champion()
        trained = tasks["fine_tune"].xcom_pull(task_ids="fine_tune")["outputs"]["model"]
        assert (champion.version, champion.digest) == (1, trained["digest"])
        assert platform.serving.ask(model="support_bot").status_code == 200
        for task in tasks.values():
            assert "<h1>" in page_behind(platform, task)
