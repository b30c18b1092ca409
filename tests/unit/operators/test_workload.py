"""The operator inside real DAG runs (``dag.test()``), with a workload of about a second on local compute."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskAwaitingInput

from genai_operators.compute.contract import Artifact, Result
from genai_operators.exceptions import BadWorkload, DataError, GateFailed, StoreUnavailable
from genai_operators.operators.links import ReportLink, RunLink
from genai_operators.operators.placement import Placement
from genai_operators.operators.retry import RETRY_DELAYS, FailureRetryPolicy
from genai_operators.operators.workload import ACCEPT, REJECT
from genai_operators.store import Store, canonical_json
from tests.fakes.checkpointing import final_state
from tests.fakes.checkpointing_operator import CheckpointingOperator
from tests.fakes.dag_runs import run_dag, use_empty_bundle
from tests.fakes.workload_run import environment


class Runner:
    """Runs a DAG of one task, and looks at what Airflow kept of it."""

    def __init__(self, tmp_path: Path) -> None:
        self.store = Store.open(tmp_path / "store")
        self.settings = {"steps": 6, "step_s": 0.02, "witness": str(tmp_path / "witness")}
        self.dag_id = f"dag_of_{tmp_path.name}"

    def __call__(self, *, settings: dict[str, Any] | None = None, operator: type = CheckpointingOperator, **more: Any):  # type: ignore[no-untyped-def]
        with DAG(self.dag_id, schedule=None) as dag:
            operator(
                task_id="train",
                settings={**self.settings, **(settings or {})},
                store=self.store.uri,
                poll_interval=0.1,
                compute={"target": "local", "grace_s": 5.0},
                **more,
            )
        return run_dag(dag).get_task_instance("train")

    def begun(self) -> int:
        path = Path(str(self.settings["witness"])) / "witness.txt"
        return sum(line.startswith("begin") for line in path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def run_task(
    tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch, airflow_database: None
) -> Callable[..., Any]:
    for name, value in environment(tmp_path, project_root).items():
        monkeypatch.setenv(name, value)
    use_empty_bundle(tmp_path / "no-dags", monkeypatch)
    return Runner(tmp_path)


class TestGreen:
    def test_returns_a_small_reference_to_what_is_in_the_store(self, run_task: Runner) -> None:
        task = run_task()
        assert task.state == "success"
        reference = task.xcom_pull(task_ids="train")
        assert set(reference) == {"workload", "result", "outputs", "verdict", "report"}
        assert reference["verdict"] == "pass"
        assert len(canonical_json(reference)) < 2048
        state = run_task.store.path_of(reference["outputs"]["state"]["uri"]) + "/state.txt"
        assert run_task.store.get(state).decode() == final_state(6)

    def test_links_to_its_report(self, run_task: Runner) -> None:
        task = run_task()
        link = task.xcom_pull(task_ids="train", key=ReportLink().xcom_key)
        assert link.startswith("/genai/reports/workloads/checkpointing/")
        assert run_task.store.exists(link.removeprefix("/genai/reports/"))

    def test_a_second_run_reuses_the_result_and_says_so(
        self, run_task: Runner, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first = run_task().xcom_pull(task_ids="train")
        capsys.readouterr()
        assert run_task().xcom_pull(task_ids="train") == first
        assert run_task.begun() == 1
        assert "inputs unchanged: reused the result" in capsys.readouterr().out

    def test_reuse_can_be_refused(self, run_task: Runner) -> None:
        run_task(reuse=False)
        run_task(reuse=False)
        assert run_task.begun() == 2

    def test_the_task_log_shows_lines_and_progress(self, run_task: Runner, capsys: pytest.CaptureFixture[str]) -> None:
        run_task()
        log = capsys.readouterr().out
        assert "1:000006 line of step 6" in log
        assert "1:progress step 6 of 6 (100 %)" in log
        assert "CHECKPOINTING: PASS" in log

    def test_waiting_on_the_worker_does_the_same(self, run_task: Runner, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_task(deferrable=False).state == "success"
        assert "1:000006 line of step 6" in capsys.readouterr().out

    def test_the_store_is_empty_of_owners_afterwards(self, run_task: Runner) -> None:
        run_task()
        assert run_task.store.list("active") == []


class TestFailure:
    def test_of_the_workload_is_raised_as_what_it_is_and_not_retried(
        self, run_task: Runner, capsys: pytest.CaptureFixture[str]
    ) -> None:
        task = run_task(settings={"trouble": {"at": 2, "kind": "data"}}, retries=3)
        assert task.state == "failed"
        assert run_task.begun() == 1
        assert "DataError" in capsys.readouterr().out
        link = task.xcom_pull(task_ids="train", key=RunLink().xcom_key)
        assert link.startswith("/genai/runs/checkpointing/"), "its details are what one wants to see now"

    def test_that_a_retry_may_mend_is_retried_from_the_checkpoint(self, run_task: Runner) -> None:
        trouble = {"at": 5, "kind": "crash", "attempt": 1}
        task = run_task(settings={"trouble": trouble}, retries=1, retry_delay=timedelta(0))
        assert task.state == "success"
        assert run_task.begun() == 2

    def test_waiting_longer_than_the_timeout_stops_the_workload(
        self, run_task: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        task = run_task(settings={"until": str(tmp_path / "never")}, timeout=timedelta(seconds=0.5), retries=3)
        assert task.state == "failed"
        assert "WorkloadTimeout" in capsys.readouterr().out
        assert any(info.path.endswith("cancel.json") for info in run_task.store.list("workloads"))

    def test_a_reference_that_is_too_large_is_refused(
        self, run_task: Runner, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run_task(answer={"rows": "x" * 3000}).state == "failed"
        assert "go into XCom" in capsys.readouterr().out


class TestVerdictAgainstIt:
    @pytest.mark.parametrize(("on_failure", "state"), [("fail", "failed"), ("warn", "success"), ("skip", "skipped")])
    def test_does_what_the_author_chose(self, run_task: Runner, on_failure: str, state: str) -> None:
        task = run_task(settings={"outcome": "fail"}, on_failure=on_failure, retries=3)
        assert task.state == state
        assert run_task.begun() == 1

    def test_silence_is_against_it(self, run_task: Runner) -> None:
        assert run_task(settings={"outcome": "inconclusive"}).state == "failed"

    def test_the_report_is_linked_all_the_same(self, run_task: Runner) -> None:
        task = run_task(settings={"outcome": "fail"})
        assert task.xcom_pull(task_ids="train", key=ReportLink().xcom_key)


class Asked:
    """Stands in for Airflow's required actions."""

    def __init__(self) -> None:
        self.questions: list[dict[str, Any]] = []

    def __call__(self, **question: Any) -> None:
        self.questions.append(question)


class TestAsk:
    def decided(self, run_task: Runner, monkeypatch: pytest.MonkeyPatch, *, option: str) -> Any:
        """Meet a verdict that is against it, ask, and go on with a person's answer."""
        asked = Asked()
        monkeypatch.setattr("airflow.sdk.execution_time.hitl.upsert_hitl_detail", asked)
        reference = run_task(settings={"outcome": "fail"}, on_failure="warn").xcom_pull(task_ids="train")
        directory = "workloads/" + reference["workload"]
        verdict = Result.from_json(run_task.store.get_json(f"{directory}/result.json")).verdict
        operator = CheckpointingOperator(task_id="t", settings={}, on_failure="ask")
        with pytest.raises(TaskAwaitingInput) as parked:
            operator._object(
                {"ti": SimpleNamespace(id="0")}, verdict, reference, store=run_task.store.uri, directory=directory
            )
        assert "checkpointing: FAIL" in asked.questions[0]["body"]
        answer = {"chosen_options": [option], "responded_by_user": {"id": "ann", "name": "ann"}}
        return operator.answered({}, answer, **parked.value.kwargs), operator

    def test_a_person_may_go_on(self, run_task: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
        reference, operator = self.decided(run_task, monkeypatch, option=ACCEPT)
        assert reference["verdict"] == "fail"
        assert operator.report_url

    def test_a_person_may_stop_it(self, run_task: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(GateFailed, match="ann"):
            self.decided(run_task, monkeypatch, option=REJECT)


class TestAuthoring:
    def test_a_misspelt_choice_is_refused_when_the_file_is_parsed(self) -> None:
        with pytest.raises(ValueError, match="on_failure"):
            CheckpointingOperator(task_id="t", settings={}, on_failure="explode")  # type: ignore[arg-type]

    def test_an_unknown_phase_is_refused_when_the_file_is_parsed(self) -> None:
        with pytest.raises(ValueError, match="waiting"):
            CheckpointingOperator(task_id="t", settings={}, phase_timeouts={"waiting": timedelta(1)})

    def test_what_it_may_resume_in_vain_reaches_whoever_waits(self) -> None:
        operator = CheckpointingOperator(task_id="t", settings={}, resumes_without_progress=7)
        assert operator._limits(Placement(backend={"target": "local"}))["resumes_without_progress"] == 7

    def test_lineage_names_what_went_in_and_what_came_out(self) -> None:
        operator = CheckpointingOperator(task_id="t", settings={})
        operator._lineage = ({"data": Artifact("file:///a/data", "d")}, {"model": Artifact("s3://b/m", "m")})
        lineage = operator.get_openlineage_facets_on_complete(None)
        assert [(d.namespace, d.name) for d in lineage.inputs] == [("file", "/a/data")]
        assert [(d.namespace, d.name) for d in lineage.outputs] == [("s3://b", "m")]
        assert lineage.outputs[0].facets["version"].datasetVersion == "m"


class TestRetryPolicy:
    def test_follows_the_class_of_the_failure(self) -> None:
        policy = FailureRetryPolicy()
        assert policy.evaluate(BadWorkload("x"), 1, 3).action.value == "fail"
        decision = policy.evaluate(StoreUnavailable("x"), 1, 3)
        assert (decision.action.value, decision.retry_delay) == ("retry", RETRY_DELAYS[StoreUnavailable])
        assert policy.evaluate(DataError("x"), 1, 3).action.value == "fail"

    def test_leaves_other_errors_to_airflow(self) -> None:
        assert FailureRetryPolicy().evaluate(RuntimeError("x"), 1, 3).action.value == "default"
