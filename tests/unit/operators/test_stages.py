"""What the stages ask to be computed. Their workloads are tested in tests/integration/test_workloads_*.py."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genai_operators.compute.contract import Artifact
from genai_operators.exceptions import ConfigurationError, DataError, SpecError
from genai_operators.operators.evaluate import EvaluateModelOperator
from genai_operators.operators.fine_tune import FineTuneOperator
from genai_operators.operators.traffic_window import feedback_window, first_batch_since
from genai_operators.operators.validate import ValidateDatasetOperator
from genai_operators.release.ledger import Ledger
from genai_operators.serving.batches import batch_path, encode
from genai_operators.store import Store

DATASET = {"uri": "file:///data", "digest": "d"}
CANDIDATE = {"uri": "file:///candidate", "digest": "c"}


def context(run_id: str = "manual__1", run_type: str = "manual") -> Any:
    """As much of Airflow's context as a stage looks at."""
    task_instance = SimpleNamespace(dag_id="dag", run_id=run_id, task_id="task", map_index=-1)
    return {"ti": task_instance, "run_id": run_id, "dag_run": SimpleNamespace(run_type=run_type)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def put_traffic(store: Store, number: int, at: float) -> None:
    for kind in ("text", "facts"):
        record = {"kind": "request", "request_id": str(number), "arrived_at": at}
        store.put(batch_path("m", kind, number), encode([{"kind": "batch"}, record]))  # type: ignore[arg-type]


def crown(store: Store, tmp_path: Path, *, last_feedback: int | None = None, taught: int = 0) -> None:
    """A champion with a data set."""
    folder = tmp_path / f"dataset-{last_feedback}-{taught}"
    folder.mkdir()
    feedback = None if last_feedback is None else {"first": 0, "last": last_feedback}
    (folder / "stats.json").write_text(json.dumps({"feedback": feedback, "counts": {"taught_rows": taught}}))
    store.upload_directory(folder, "dataset")
    evidence = {"dataset": store.uri_of("dataset"), "model": store.uri_of("model")}
    ledger = Ledger(store, "m")
    ledger.append(
        "promote", 1, "champion digest", actor="a", reason="r", evidence=evidence, expected_epoch=ledger.epoch()
    )


class TestValidate:
    def stage(self, store: Store, tmp_path: Path, **more: Any) -> ValidateDatasetOperator:
        (tmp_path / "rows.csv").write_text("text,category\na,b\n")
        fields = {"task_id": "task", "model": "m", "train": str(tmp_path / "rows.csv"), "store": store.uri, **more}
        return ValidateDatasetOperator(**fields)

    def test_the_same_files_are_the_same_workload(self, store: Store, tmp_path: Path) -> None:
        first = self.stage(store, tmp_path).build_workload(context())
        assert self.stage(store, tmp_path).build_workload(context("another")).fingerprint == first.fingerprint
        (tmp_path / "rows.csv").write_text("text,category\na,c\n")
        changed = {"train": str(tmp_path / "rows.csv")}
        stage = ValidateDatasetOperator(task_id="task", model="m", store=store.uri, **changed)  # type: ignore[arg-type]
        assert stage.build_workload(context()).fingerprint != first.fingerprint

    def test_a_missing_file_is_named_before_anything_starts(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"data\.train: .*gone\.csv does not exist"):
            self.stage(store, tmp_path, train="gone.csv").build_workload(context())
        with pytest.raises(DataError, match=r"data\.evaluation: .*gone\.csv"):
            self.stage(store, tmp_path, evaluation="gone.csv").build_workload(context())

    def test_a_missing_suite_is_named(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"data\.suite: .*gone\.yaml"):
            self.stage(store, tmp_path, suite="include/suites/gone.yaml").build_workload(context())

    def test_extra_data_of_the_form_is_one_more_file(self, store: Store, tmp_path: Path) -> None:
        stage = self.stage(store, tmp_path, extra_data=str(tmp_path / "rows.csv"))
        assert {"train_0", "train_1"} <= set(stage.build_workload(context()).inputs)
        assert "train_1" not in self.stage(store, tmp_path, extra_data="None").build_workload(context()).inputs

    def test_a_retry_reads_the_feedback_that_the_first_try_chose(self, store: Store, tmp_path: Path) -> None:
        put_traffic(store, 0, 1.0)
        first = self.stage(store, tmp_path).build_workload(context())
        put_traffic(store, 1, 2.0)
        assert self.stage(store, tmp_path).build_workload(context()).fingerprint == first.fingerprint
        later = self.stage(store, tmp_path).build_workload(context("another"))
        assert later.params["feedback"] == {"first": 0, "last": 1}

    def test_the_feedback_begins_where_the_champion_s_ended(self, store: Store, tmp_path: Path) -> None:
        for number in range(4):
            put_traffic(store, number, float(number))
        crown(store, tmp_path, last_feedback=2, taught=7)
        workload = self.stage(store, tmp_path).build_workload(context())
        assert workload.params["feedback"] == {"first": 3, "last": 3}
        assert workload.inputs["previous"].uri == store.uri_of("dataset")

    def test_a_champion_that_users_taught_nothing_changes_nothing(self, store: Store, tmp_path: Path) -> None:
        before = self.stage(store, tmp_path).build_workload(context())
        crown(store, tmp_path)
        assert self.stage(store, tmp_path).build_workload(context("another")).fingerprint == before.fingerprint


class TestFineTune:
    def stage(self, store: Store, **more: Any) -> FineTuneOperator:
        fields = {"task_id": "task", "model": "m", "dataset": DATASET, "store": store.uri, **more}
        return FineTuneOperator(**fields)

    def test_a_recipe_by_name_with_all_its_numbers(self, store: Store) -> None:
        workload = self.stage(store, recipe="tiny_llama", seed="3").build_workload(context())
        assert workload.params["recipe"]["architecture"]["hidden_size"] == 128
        assert workload.params["seed"] == 3
        assert workload.params["rehearsal"] is None
        assert set(workload.inputs) == {"dataset"}

    def test_a_refresh_starts_from_the_champion(self, store: Store, tmp_path: Path) -> None:
        crown(store, tmp_path)
        workload = self.stage(store, recipe="lora_refresh", refresh="True", rehearsal=2.0).build_workload(context())
        assert workload.inputs["base"] == Artifact(uri=store.uri_of("model"), digest="champion digest")
        assert workload.params["rehearsal"] == 2.0

    def test_a_refresh_without_a_champion_is_refused(self, store: Store) -> None:
        with pytest.raises(ConfigurationError, match="no champion to refresh"):
            self.stage(store, refresh=True).build_workload(context())

    def test_an_unknown_recipe_is_named_with_the_nearest(self, store: Store) -> None:
        with pytest.raises(SpecError, match="tiny_llama"):
            self.stage(store, recipe="tiny_lama").build_workload(context())

    def test_a_folder_as_base_model_is_an_input(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "base").mkdir()
        (tmp_path / "base" / "config.json").write_text("{}")
        workload = self.stage(store, recipe={"base_model": str(tmp_path / "base")}).build_workload(context())
        assert workload.inputs["base"].uri == (tmp_path / "base").as_uri()
        assert "base" not in self.stage(store, recipe={"base_model": "some/name"}).build_workload(context()).inputs


class TestEvaluate:
    def stage(self, store: Store, **more: Any) -> EvaluateModelOperator:
        fields = {"task_id": "task", "model": "m", "dataset": DATASET, "candidate": CANDIDATE, "store": store.uri}
        return EvaluateModelOperator(**{**fields, **more})

    def test_the_champion_of_the_ledger_is_the_baseline(self, store: Store, tmp_path: Path) -> None:
        assert "champion" not in self.stage(store).build_workload(context()).inputs
        crown(store, tmp_path)
        assert self.stage(store).build_workload(context()).inputs["champion"].digest == "champion digest"
        assert "champion" not in self.stage(store, champion=False).build_workload(context()).inputs

    @pytest.mark.parametrize(
        ("rule", "run_type", "owed"),
        [
            ("auto", "asset_triggered", "superior"),
            ("auto", "scheduled", "non_inferior"),
            ("non_inferior", "asset_triggered", "non_inferior"),
            ("superior", "manual", "superior"),
        ],
    )
    def test_after_drift_the_candidate_must_be_better(self, store: Store, rule: str, run_type: str, owed: str) -> None:
        workload = self.stage(store, rule_on_new=rule).build_workload(context(run_type=run_type))
        assert workload.params["rule_on_new"] == owed


class TestTrafficWindows:
    def test_the_first_batch_of_a_time_is_found(self, store: Store) -> None:
        for number in range(50):
            put_traffic(store, number, 100.0 + number)
        assert first_batch_since(store, "m", since=120.0) == 20
        assert first_batch_since(store, "m", since=0.0) == 0
        assert first_batch_since(store, "m", since=1000.0) == 50

    def test_without_traffic_there_is_none(self, store: Store) -> None:
        assert first_batch_since(store, "m", since=0.0) == 0
        assert feedback_window(store, "m", after=None, owner="run") is None
        put_traffic(store, 0, 1.0)
        assert feedback_window(store, "m", after=0, owner="third") is None
