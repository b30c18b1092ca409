from __future__ import annotations

import itertools
import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from genai_operators.exceptions import GatewayUnavailable, SpecError
from genai_operators.lifecycle import lifecycle_dags, raise_model_file_errors
from genai_operators.lifecycle.names import DRIFT_TASKS, RETRAIN_TASKS, ROLLBACK_TASKS, model_of
from genai_operators.lifecycle.unusable import TASKS, UnderWayReleaseOperator
from genai_operators.store import Store

GOOD = "data: {train: rows.csv}\n"
WRONG = "data:\n  train: rows.csv\n  format: cvs\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("models", "recipes", "suites"):
        (tmp_path / "include" / folder).mkdir(parents=True)
    (tmp_path / "include/recipes/small.yaml").write_text("max_steps: 10\n")
    (tmp_path / "include/recipes/other.yaml").write_text("max_steps: 10\n")
    (tmp_path / "include/suites/messages.yaml").write_text("{}\n")
    return tmp_path


def write(project: Path, **models: str) -> None:
    for name, text in models.items():
        (project / f"include/models/{name}.yaml").write_text(text)


@pytest.fixture
def parsing_for(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Parse as the process of a task of this DAG does."""

    def set_context(dag_id: str | None) -> None:
        monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", dag_id or "")

    return set_context


class TestIds:
    def test_come_from_the_file_name_alone(self, project: Path) -> None:
        elaborate = f"{GOOD}governance: {{approval: before_release}}\nschedule: {{retrain: '@daily', drift: null}}\n"
        write(project, plain=GOOD, elaborate=elaborate)
        dags = lifecycle_dags(project)
        for model in ("plain", "elaborate"):
            assert tuple(dags[f"{model}__retrain"].task_ids) == RETRAIN_TASKS
            assert tuple(dags[f"{model}__drift"].task_ids) == DRIFT_TASKS
            assert tuple(dags[f"{model}__rollback"].task_ids) == ROLLBACK_TASKS

    def test_are_the_same_where_workloads_run_in_a_cluster(self, project: Path) -> None:
        write(project, here=GOOD, there=f"{GOOD}compute: kubernetes\n")
        dags = lifecycle_dags(project)
        for lifecycle in ("retrain", "drift", "rollback"):
            assert dags[f"here__{lifecycle}"].task_ids == dags[f"there__{lifecycle}"].task_ids

    def test_tasks_run_one_after_the_other(self, project: Path) -> None:
        write(project, bot=GOOD)
        dag = lifecycle_dags(project)["bot__retrain"]
        order = [task.task_id for task in dag.topological_sort()]
        assert order == list(RETRAIN_TASKS)
        for before, after in itertools.pairwise(RETRAIN_TASKS):
            assert after in dag.get_task(before).downstream_task_ids

    @pytest.mark.parametrize(
        ("dag_id", "model"),
        [("support_bot__retrain", "support_bot"), ("genai_reconcile", None), ("a__b__drift", "a__b"), (None, None)],
    )
    def test_lead_back_to_the_model(self, dag_id: str | None, model: str | None) -> None:
        assert model_of(dag_id) == model


class TestWrongFile:
    def test_its_dags_stay_with_the_same_ids_and_tasks(self, project: Path) -> None:
        write(project, bot=GOOD)
        before = {dag_id: list(dag.task_ids) for dag_id, dag in lifecycle_dags(project).items()}
        write(project, bot=WRONG)
        after = {dag_id: list(dag.task_ids) for dag_id, dag in lifecycle_dags(project).items()}
        assert after == before

    def test_every_task_fails_with_file_line_value_and_spelling(self, project: Path) -> None:
        write(project, bot=WRONG)
        message = r"include/models/bot.yaml:3:11: data.format: 'cvs' is not allowed; did you mean 'csv'\?"
        failed = 0
        for dag in lifecycle_dags(project).values():
            assert "wrong model file" in dag.tags
            assert re.search(message, dag.doc_md)
            assert not dag.timetable.can_be_scheduled
            for task in dag.tasks:
                if not isinstance(task, UnderWayReleaseOperator):
                    with pytest.raises(SpecError, match=message):
                        task.execute({})
                    with pytest.raises(SpecError, match=message):
                        task.resume_execution("resume", {}, {})
                    failed += 1
        assert failed == sum(map(len, TASKS.values())) - 1

    def test_the_other_models_never_notice(self, project: Path) -> None:
        write(project, good=GOOD)
        alone = {dag_id: list(dag.task_ids) for dag_id, dag in lifecycle_dags(project).items()}
        write(project, bot=WRONG, broken="[", empty="")
        (project / "include/models/Bad Name.yaml").write_text(GOOD)
        together = lifecycle_dags(project)
        assert {i: list(together[i].task_ids) for i in alone} == alone
        assert all("wrong model file" not in together[i].tags for i in alone)

    def test_one_import_error_lists_them_all(self, project: Path) -> None:
        write(project, good=GOOD, bot=WRONG, empty="")
        (project / "include/models/Bad Name.yaml").write_text(GOOD)
        with pytest.raises(SpecError) as error:
            raise_model_file_errors(project)
        lines = str(error.value).splitlines()
        assert [line.split(":")[0] for line in lines] == [
            "include/models/Bad Name.yaml",
            "include/models/bot.yaml",
            "include/models/empty.yaml",
        ]

    def test_nothing_is_raised_when_all_are_right_or_in_a_tasks_process(self, project: Path, parsing_for: Any) -> None:
        write(project, good=GOOD)
        raise_model_file_errors(project)
        write(project, bot=WRONG)
        parsing_for("good__retrain")
        raise_model_file_errors(project)


class TestTaskProcess:
    def test_builds_only_its_own_model(self, project: Path, parsing_for: Any) -> None:
        write(project, bot=GOOD, other=GOOD, wrong=WRONG)
        parsing_for("bot__drift")
        assert set(lifecycle_dags(project)) == {"bot__retrain", "bot__drift", "bot__rollback"}

    def test_reads_no_other_file(self, project: Path, parsing_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        write(project, bot=GOOD, other=GOOD)
        read: list[str] = []
        original = Path.read_text
        monkeypatch.setattr(Path, "read_text", lambda self, *a, **k: read.append(self.name) or original(self, *a, **k))
        parsing_for("bot__retrain")
        lifecycle_dags(project)
        assert read == ["bot.yaml"]


class TestForm:
    def retrain(self, project: Path, text: str = GOOD) -> Any:
        write(project, bot=text)
        return lifecycle_dags(project)["bot__retrain"]

    def test_every_default_is_valid_so_that_a_trigger_without_a_look_works(self, project: Path) -> None:
        write(project, bot=GOOD)
        for dag in lifecycle_dags(project).values():
            dag.params.validate()

    def test_has_three_sections_and_explains_every_field(self, project: Path) -> None:
        params = self.retrain(project).params
        fields = {name: params.get_param(name) for name in params}
        assert {field.schema["section"] for field in fields.values()} == {"Data", "Training", "Release"}
        assert all(field.schema.get("title") and field.schema.get("description_md") for field in fields.values())

    def test_offers_the_recipes_and_servers_that_exist(self, project: Path) -> None:
        dag = self.retrain(project, f"{GOOD}serve: {{runtimes: {{mine: {{command: [x]}}}}}}\n")
        assert set(dag.params.get_param("recipe").schema["enum"]) >= {"small", "other"}
        assert dag.params.get_param("runtime").schema["enum"] == ["standard", "mine"]

    def test_cannot_waive_an_approval_that_the_file_demands(self, project: Path) -> None:
        from airflow.sdk.exceptions import ParamValidationError

        dag = self.retrain(project, f"{GOOD}governance: {{approval: before_release}}\n")
        assert dag.params["ask_before_release"] is True
        with pytest.raises(ParamValidationError):
            dag.params.get_param("ask_before_release").resolve(False)

    def test_reaches_the_tasks_when_a_run_starts(self, project: Path) -> None:
        from airflow.sdk.definitions.param import process_params

        dag = self.retrain(project)
        task = dag.get_task("plan")
        assert process_params(dag, task, {"seed": 5}, suppress_exception=False)["seed"] == 5
        assert process_params(dag, task, {}, suppress_exception=False)["dry_run"] is False


class TestSchedule:
    def test_a_cron_expression_is_added_to_the_drift_alarm(self, project: Path) -> None:
        write(project, bot=f"{GOOD}schedule: {{retrain: 0 3 * * 1, drift: null}}\n")
        dags = lifecycle_dags(project)
        assert dags["bot__retrain"].timetable.timetable.expression == "0 3 * * 1"
        assert dags["bot__retrain"].timetable.asset_condition is not None
        assert not dags["bot__drift"].timetable.can_be_scheduled
        assert not dags["bot__rollback"].timetable.can_be_scheduled


class TestReleaseUnderWay:
    """The file becomes wrong while a canary runs."""

    @pytest.fixture
    def context(self) -> dict[str, Any]:
        ti = SimpleNamespace(dag_id="bot__retrain", run_id="manual__1", task_id="release", map_index=-1)
        return {"ti": ti}

    @pytest.fixture
    def release(self, project: Path) -> Any:
        write(project, bot=WRONG)
        return lifecycle_dags(project)["bot__retrain"].get_task("release")

    def freeze(self, store: Store, context: dict[str, Any]) -> Any:
        from genai_operators.operators.workload import owner_of
        from genai_operators.release.guardrails import guardrail_plans
        from genai_operators.release.journal import Turns
        from genai_operators.release.plan import ReleasePlan, release_id
        from genai_operators.serving.contract import Deployment
        from genai_operators.spec.canary import Canary

        owner = owner_of(context)
        candidate = Deployment(model="bot", version=2, digest="d", model_dir="/m")
        plan = ReleasePlan(
            release=release_id(owner, candidate),
            model="bot",
            owner=owner,
            created_at=0.0,
            candidate=candidate,
            champion=None,
            ledger_epoch=0,
            since=0,
            steps=(),
            guardrails=guardrail_plans(Canary()),
            deadline_s=60,
        ).freeze(store)
        assert Turns(store, "bot").take(plan.release, at=0.0) == 1
        return plan

    def test_goes_on_with_its_frozen_plan(self, release: Any, context: dict[str, Any], tmp_path: Path) -> None:
        store = Store.open(tmp_path / "store")
        plan = self.freeze(store, context)
        assert release._plan(context, {"store": store.uri}) == plan

    def test_none_is_begun(self, release: Any, context: dict[str, Any], tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="did you mean 'csv'"):
            release._plan(context, {"store": str(tmp_path / "store")})

    def test_another_runs_release_is_not_taken_over(
        self, release: Any, context: dict[str, Any], tmp_path: Path
    ) -> None:
        store = Store.open(tmp_path / "store")
        self.freeze(store, context)
        context["ti"].run_id = "manual__2"
        with pytest.raises(SpecError, match="did you mean 'csv'"):
            release._plan(context, {"store": store.uri})

    def test_a_gateway_that_is_away_costs_it_a_retry_and_not_its_life(self, project: Path, release: Any) -> None:
        write(project, right=GOOD)
        usual = lifecycle_dags(project)["right__retrain"].get_task("release")
        assert (release.retries, release.retry_delay) == (usual.retries, usual.retry_delay)
        assert release.retries > 0
        away, wrong = GatewayUnavailable("the gateway does not answer"), SpecError("cvs")
        assert release.retry_policy.evaluate(away, 1, release.retries).action.value == "retry"
        assert release.retry_policy.evaluate(wrong, 1, release.retries).action.value == "fail"

    def test_a_deferred_one_resumes_where_the_original_would(self, release: Any) -> None:
        from genai_operators.operators.canary import CanaryReleaseOperator

        assert type(release).resume is CanaryReleaseOperator.resume
        assert type(release).resume_execution is not None


class TestCompute:
    def tasks(self, project: Path, section: str) -> dict[str, Any]:
        write(project, bot=f"{GOOD}compute: {section}\n")
        dags = lifecycle_dags(project)
        return {**dags["bot__retrain"].task_dict, **dags["bot__drift"].task_dict}

    def test_this_machine_is_taken_as_it_is(self, project: Path) -> None:
        tasks = self.tasks(project, "local")
        for name in ("validate", "fine_tune", "evaluate", "check"):
            assert (tasks[name].compute, tasks[name].hardware, tasks[name].phase_timeouts) == ("local", None, None)
        assert tasks["fine_tune"].timeout == timedelta(hours=2)

    def test_what_the_file_says_of_a_cluster_arrives_where_it_counts(self, project: Path) -> None:
        section = (
            "{target: kubernetes, gpu: h100, spot: only, max_cost: 40, queue: research, pool: gpus, "
            "limits: {queued: 2h}, resumes_without_progress: 7, options: {mig_profile: 1g.10gb}}"
        )
        tasks = self.tasks(project, section)
        for name in ("validate", "fine_tune", "evaluate", "check"):
            assert tasks[name].compute == {
                "target": "kubernetes",
                "connection": "genai_kubernetes",
                "queue": "research",
                "spot_only": True,
                "mig_profile": "1g.10gb",
            }
            assert tasks[name].pool == "gpus"
            assert tasks[name].phase_timeouts["queued"] == timedelta(hours=2)
            assert tasks[name].resumes_without_progress == 7
            assert tasks[name].timeout is None
            assert (tasks[name].hardware is not None) == (name in ("fine_tune", "evaluate"))
        assert [tasks[name].max_cost for name in ("validate", "fine_tune")] == [None, 40]
        assert tasks["evaluate"].max_cost == (
            "{{ 40.0 - (ti.xcom_pull(task_ids='fine_tune') or {}).get('cost', 0) }}"
        ), "the limit is of both together"
        assert tasks["fine_tune"].phase_timeouts["running"] == timedelta(hours=2), "the queue does not count"
