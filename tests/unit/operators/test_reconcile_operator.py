from __future__ import annotations

import json
from pathlib import Path

import pytest

from genai_operators.exceptions import ConfigurationError
from genai_operators.operators.reconcile import ReconcileOperator


@pytest.fixture
def store_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Airflow that knows the store, but no gateway."""
    connection = {"conn_type": "generic", "extra": {"uri": str(tmp_path / "store")}}
    monkeypatch.setenv("AIRFLOW_CONN_GENAI_STORE", json.dumps(connection))
    for name in ("GATEWAY", "MLFLOW", "SIGNING", "COMPUTE_LOCAL"):
        monkeypatch.delenv(f"AIRFLOW_CONN_GENAI_{name}", raising=False)
    return tmp_path / "store"


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
