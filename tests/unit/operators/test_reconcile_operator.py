from __future__ import annotations

import json
from pathlib import Path

import pytest

from genai_operators.exceptions import ConfigurationError
from genai_operators.operators.reconcile import ReconcileOperator
from genai_operators.serving.state import ModelState, StateDirectory


@pytest.fixture
def store_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Airflow that knows the store, but no gateway."""
    connection = {"conn_type": "generic", "extra": {"uri": str(tmp_path / "store")}}
    monkeypatch.setenv("AIRFLOW_CONN_GENAI_STORE", json.dumps(connection))
    for name in ("GATEWAY", "MLFLOW", "SIGNING", "COMPUTE_LOCAL"):
        monkeypatch.delenv(f"AIRFLOW_CONN_GENAI_{name}", raising=False)
    return tmp_path / "store"


@pytest.mark.usefixtures("airflow_database", "store_only")
class TestRetention:
    """An edit of ``serve.capture.retention`` counts without a release."""

    @pytest.fixture
    def directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Of a gateway that serves one model with a file, and one without."""
        directory = tmp_path / "gateway"
        states = StateDirectory(directory)
        states.write(ModelState(model="bot", retention_s=86_400.0, percent=5.0, release="r"))
        states.write(ModelState(model="by_hand", retention_s=86_400.0))
        gateway = {"gateway_url": "http://127.0.0.1:9", "admin_url": "http://127.0.0.1:9", "supervisor": "none.sock"}
        connections = {
            "GATEWAY": {"extra": {**gateway, "directory": str(directory)}},
            "MLFLOW": {"host": "127.0.0.1", "port": 9, "schema": "http"},
            "SIGNING": {"extra": {"private_key": str(tmp_path / "key"), "trusted_keys": str(tmp_path / "trusted")}},
            "COMPUTE_LOCAL": {"extra": {}},
        }
        for name, record in connections.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_GENAI_{name}", json.dumps({"conn_type": "generic", **record}))
        monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path / "project/dags"))
        for folder in ("dags", "include/models", "include/recipes", "include/suites"):
            (tmp_path / "project" / folder).mkdir(parents=True)
        (tmp_path / "project/include/recipes/small.yaml").write_text("max_steps: 10\n")
        (tmp_path / "project/include/suites/messages.yaml").write_text("{}\n")
        return directory

    def edit(self, tmp_path: Path, retention: str) -> None:
        text = f"data: {{train: x}}\nserve: {{capture: {{retention: {retention}}}}}\n"
        for name in ("bot", "never_deployed"):
            (tmp_path / f"project/include/models/{name}.yaml").write_text(text)

    def test_a_shorter_one_reaches_the_ingest_and_nothing_else_changes(
        self, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.edit(tmp_path, "1h")
        ReconcileOperator(task_id="reconcile").execute({})
        states = StateDirectory(directory)
        assert states.read("bot") == ModelState(model="bot", retention_s=3600.0, percent=5.0, release="r")
        assert states.read("by_hand") == ModelState(model="by_hand", retention_s=86_400.0)
        assert states.read("never_deployed") is None
        assert "texts of bot are kept for 3600 s" in capsys.readouterr().out
        ReconcileOperator(task_id="reconcile").execute({})
        assert "kept for" not in capsys.readouterr().out, "said once"

    def test_a_wrong_file_changes_nothing(self, directory: Path, tmp_path: Path) -> None:
        self.edit(tmp_path, "soon")
        ReconcileOperator(task_id="reconcile").execute({})
        assert StateDirectory(directory).read("bot").retention_s == 86_400.0


@pytest.mark.usefixtures("airflow_database")
class TestReconciliation:
    def test_a_part_that_cannot_be_reached_fails_the_task_after_the_other_had_its_turn(self, store_only: Path) -> None:
        with pytest.raises(ConfigurationError, match="genai_gateway"):
            ReconcileOperator(task_id="reconcile").execute({})
        assert store_only.is_dir(), "the workloads were looked at"

    def test_the_second_part_has_its_turn_although_the_first_failed(
        self, store_only: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_GENAI_STORE")
        with pytest.raises(ConfigurationError, match="genai_store"):
            ReconcileOperator(task_id="reconcile").execute({})
        told = capsys.readouterr().out
        assert "no connection genai_store" in told
        assert "no connection genai_gateway" in told
