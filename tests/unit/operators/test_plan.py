from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG

from genai_operators.decisions.policy_facts import Trigger
from genai_operators.exceptions import ConfigurationError
from genai_operators.operators.earlier_runs import describe, earlier_duration
from genai_operators.operators.gpu_outlook import Training
from genai_operators.operators.ladders import read_ladder
from genai_operators.operators.outlook import canary_lines, recent_traffic, render_table
from genai_operators.operators.plan import AS_THE_FILE_SAYS, Cause, PlanRetrainingOperator, cause_of
from genai_operators.operators.retraining_attempts import Attempts
from genai_operators.operators.retraining_reason import Reason, note_request, reason_of
from genai_operators.operators.time_estimate import core_seconds, training_estimate
from genai_operators.release.ledger import Action, Ledger, LedgerEntry
from genai_operators.serving import batches
from genai_operators.serving.contract import RequestFact
from genai_operators.spec.canary import Canary
from genai_operators.spec.loader import read_recipe
from genai_operators.spec.model import ModelSpec
from genai_operators.spec.recipe import Recipe
from genai_operators.store import Store
from tests.fakes.dag_runs import run_dag, use_empty_bundle

SPEC = ModelSpec.model_validate(
    {
        "data": {"train": "rows.csv"},
        "train": {"recipe": "small", "refresh": "lora", "seed": 3},
        "serve": {"runtimes": {"mine": {"command": ["x"]}}},
    }
)


def context(run_type: str = "manual") -> Any:
    return {"dag_run": SimpleNamespace(run_type=run_type)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def champion(store: Store) -> LedgerEntry:
    ledger = Ledger(store, "bot")
    return ledger.append(Action.PROMOTE, 4, "d", actor="me", reason="first", evidence={}, expected_epoch=0)


def decide(run: Any, champion: LedgerEntry | None, **choices: Any) -> dict[str, Any]:
    return PlanRetrainingOperator(task_id="plan", model="bot", spec=SPEC, **choices)._decide(run, champion)


class TestDecision:
    def test_without_a_champion_the_first_recipe_is_trained(self) -> None:
        decided = decide(context(), None)
        assert (decided["recipe"], decided["refresh"], decided["champion"]) == ("small", False, None)

    def test_with_a_champion_it_is_refreshed(self, champion: LedgerEntry) -> None:
        decided = decide(context(), champion, recipe=AS_THE_FILE_SAYS)
        assert (decided["recipe"], decided["refresh"], decided["champion"]) == ("lora", True, 4)

    def test_another_recipe_from_the_form_starts_from_its_own_base(self, champion: LedgerEntry) -> None:
        decided = decide(context(), champion, recipe="small")
        assert (decided["recipe"], decided["refresh"]) == ("small", False)

    @pytest.mark.parametrize(
        ("run_type", "chosen", "rule"),
        [
            ("asset_triggered", "auto", "superior"),
            ("manual", "auto", "non_inferior"),
            ("scheduled", "auto", "non_inferior"),
            ("asset_triggered", "non_inferior", "non_inferior"),
            ("manual", "superior", "superior"),
        ],
    )
    def test_after_drift_the_candidate_must_be_better_on_new_rows(self, run_type: str, chosen: str, rule: str) -> None:
        assert decide(context(run_type), None, rule_on_new=chosen)["rule_on_new"] == rule

    @pytest.mark.parametrize(("given", "seed"), [(None, 3), ("None", 3), ("", 3), ("7", 7), (0, 0)])
    def test_the_seed_is_the_forms_or_the_files(self, given: Any, seed: int) -> None:
        assert decide(context(), None, seed=given)["seed"] == seed

    def test_an_unknown_server_is_refused_before_anything_starts(self) -> None:
        assert decide(context(), None, runtime="mine")["runtime"] == "mine"
        with pytest.raises(ConfigurationError, match=r"serve\.runtimes of the model file has standard, mine"):
            decide(context(), None, runtime="other")

    @pytest.mark.parametrize(("rendered", "dry"), [("True", True), ("False", False), (True, True), ("false", False)])
    def test_a_rendered_switch_is_understood(self, rendered: Any, dry: bool) -> None:
        assert decide(context(), None, plan_only=rendered)["dry_run"] is dry

    def test_fits_into_an_xcom_reference(self, champion: LedgerEntry) -> None:
        assert len(str(decide(context(), champion))) < 2048

    def test_the_cause_is_what_airflow_says(self) -> None:
        causes = {kind: cause_of(context(kind)) for kind in ("asset_triggered", "scheduled", "manual", "backfill")}
        assert list(causes.values()) == [Cause.DRIFT, Cause.SCHEDULE, Cause.MANUAL, Cause.MANUAL]


class TestReason:
    """``NOW`` is two days after the champion's promotion."""

    def reason(self, store: Store, champion: LedgerEntry | None, *, by_policy: bool = False, days: float = 2) -> Reason:
        now = (champion.at if champion else 0.0) + days * 86_400
        return reason_of(store, "bot", SPEC, champion=champion, by_policy=by_policy, now=now)

    def test_a_request_is_told_what_the_policy_would_say(self, store: Store, champion: LedgerEntry) -> None:
        assert "by itself, the policy would say: Wait: nothing calls for it" in self.reason(store, champion).text
        late = self.reason(store, champion, days=91)
        assert "would say: Retrain: the champion was trained 91 days ago" in late.text
        assert late.trigger is Trigger.REQUEST

    def test_without_a_champion_there_is_nothing_to_wait_for(self, store: Store) -> None:
        assert "there is no champion yet" in self.reason(store, None).text

    def test_of_a_run_that_the_policy_began_it_is_the_stored_one(self, store: Store, champion: LedgerEntry) -> None:
        stored = {"decision": {"reason": "Retrain: it is old."}}
        store.put_json("policy/bot/decisions/0000000007.json", stored)
        Attempts(store, "bot").begin(at=champion.at, trigger=Trigger.AGE, run="check", decision=7)
        reason = self.reason(store, champion, by_policy=True)
        assert (reason.trigger, reason.text) == (Trigger.AGE, "the policy said: Retrain: it is old.")

    @pytest.mark.parametrize(
        ("trigger", "rule"), [("drift", "superior"), ("feedback", "superior"), ("age", "non_inferior")]
    )
    def test_only_where_users_changed_the_candidate_owes_more_on_new_rows(
        self, champion: LedgerEntry, trigger: str, rule: str
    ) -> None:
        plan = PlanRetrainingOperator(task_id="plan", model="bot", spec=SPEC)
        reason = Reason(trigger=Trigger(trigger), text="")
        assert plan._decide(context("asset_triggered"), champion, reason=reason)["rule_on_new"] == rule

    def test_a_request_counts_once_in_the_history_and_a_first_training_never(
        self, store: Store, champion: LedgerEntry
    ) -> None:
        note_request(store, "bot", champion=None, run="first", now=champion.at)
        for _ in range(2):
            note_request(store, "bot", champion=champion, run="second", now=champion.at + 60)
        assert [began.run for began in Attempts(store, "bot").began()] == ["second"]
        assert "the retraining of" in self.reason(store, champion, days=0.5).text


class TestEarlierRuns:
    def test_the_median_of_this_models_results_is_the_estimate(self, store: Store) -> None:
        for number, (model, seconds) in enumerate([("bot", 10.0), ("bot", 30.0), ("bot", 20.0), ("other", 900.0)]):
            store.put_json(f"workloads/fine_tune/{number}/spec.json", {"params": {"model": model}})
            store.put_json(f"workloads/fine_tune/{number}/result.json", {"seconds": seconds})
        store.put_json("workloads/fine_tune/unfinished/spec.json", {"params": {"model": "bot"}})
        assert describe(earlier_duration(store, "fine_tune", model="bot")) == "about 20 s (median of 3)"

    @pytest.mark.parametrize(
        ("recipe", "files", "measured_s"),
        [("tiny_llama", ["include/data/support_bot/first.jsonl"], 15.0), ("small", ["rows.csv"], 500.0)],
    )
    def test_before_the_first_one_rows_and_recipe_give_an_estimate(
        self, project_root: Path, tmp_path: Path, recipe: str, files: list[str], measured_s: float
    ) -> None:
        """Against trainings on one idle core; the second is of 10,003 short messages with a mean of 84 characters."""
        (tmp_path / "rows.csv").write_text("text,category\n" + f"{'x' * 69},{'y' * 13}\n" * 10_003)
        named = tuple(str(tmp_path / name if name == "rows.csv" else project_root / name) for name in files)
        training = Training(recipe=read_recipe(recipe, root=project_root), champion=None, files=named)
        seconds = core_seconds(training, root=project_root)
        assert measured_s / 2 < seconds < measured_s * 2
        said = training_estimate(training, root=project_root, gpus=None)
        assert said is not None
        assert "estimate within a factor of 2" in said

    def test_a_model_whose_shape_is_not_here_has_none(self, project_root: Path) -> None:
        recipe = Recipe.model_validate({"base_model": "somebody/unknown", "max_steps": 1})
        training = Training(recipe=recipe, champion=None, files=())
        assert training_estimate(training, root=project_root, gpus=None) is None

    def test_without_any_it_says_so(self, store: Store) -> None:
        assert describe(earlier_duration(store, "fine_tune", model="bot")) == "no earlier run"


def serve(store: Store, *, deployment: str, errors: int = 0) -> None:
    """Five batches of ten seconds each, eight requests a second."""
    for number in range(5):
        facts = [
            RequestFact(
                request_id=f"{deployment}-{number}-{i}",
                unit=f"u{i}",
                arrived_at=1000.0 + 10 * number + i / 8,
                completed_at=1000.5 + 10 * number + i / 8,
                variant="champion",
                deployment=deployment,
                propensity=0.0,
                route_version=1,
                assigned=True,
                status=500 if i < errors else 200,
                attempts=1,
                timed_out=False,
                first_token_ms=100.0,
                max_gap_ms=None,
                tokens=8,
                duration_ms=300.0,
                valid_output=True,
            )
            for i in range(80)
        ]
        records = [{"kind": "batch"}, *({"kind": "request", **fact.to_json()} for fact in facts)]
        store.create(batches.batch_path("bot", "facts", number), batches.encode(records))


class TestCanaryForecast:
    def test_a_first_release_has_no_canary(self) -> None:
        (line,) = canary_lines(Canary(), traffic=None, has_champion=False)
        assert "without a canary" in line

    def test_without_traffic_nothing_is_forecast(self, store: Store, champion: LedgerEntry) -> None:
        assert recent_traffic(store, None, canary=Canary()) is None
        assert recent_traffic(store, champion, canary=Canary()) is None
        lines = canary_lines(Canary(), traffic=None, has_champion=True)
        assert lines[0] == "5 % for at least 10m and 100 requests"
        assert "no traffic seen yet" in lines[-1]
        assert not any("daily peak" in line for line in lines)
        short = canary_lines(Canary.model_validate({"deadline": "2h"}), traffic=None, has_champion=True)
        assert any("warning: a ceiling may certify after 30m already" in line for line in short)

    def test_rate_and_errors_are_those_of_the_champion(self, store: Store, champion: LedgerEntry) -> None:
        serve(store, deployment="bot-v4-standard", errors=8)
        traffic = recent_traffic(store, champion, canary=Canary())
        assert traffic is not None
        assert traffic.per_second == pytest.approx(8.0, rel=0.02)
        assert traffic.bad["errors"] == pytest.approx(0.1)

    def test_too_little_traffic_for_the_question_is_said_beforehand(self, store: Store, champion: LedgerEntry) -> None:
        serve(store, deployment="bot-v4-standard")
        strict = Canary.model_validate(
            {
                "steps": [{"percent": 1, "minimum_soak": "1m"}],
                "deadline": "2m",
                "guardrails": {"errors": {"ceiling": 0.001}},
            }
        )
        traffic = recent_traffic(store, champion, canary=strict)
        text = "\n".join(canary_lines(strict, traffic=traffic, has_champion=True))
        assert "too few for the question" in text


class TestTable:
    def test_columns_are_aligned(self) -> None:
        assert render_table(("a", "bb"), [("ccc", 1)]) == ["a    bb", "---  --", "ccc  1"]


class TestCluster:
    """In a real DAG run: what the workloads will ask a cluster for is said, and stored unless it is a dry run."""

    def plan(self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, dry_run: bool) -> dict[str, Any]:
        use_empty_bundle(tmp_path / "no-dags", monkeypatch)
        spec = ModelSpec.model_validate(
            {"data": {"train": "rows.csv"}, "compute": {"target": "kubernetes", "gpu": {"type": "l4", "count": 2}}}
        )
        with DAG(f"plan_{dry_run}", schedule=None) as dag:
            PlanRetrainingOperator(task_id="plan", model="bot", spec=spec, plan_only=dry_run, store=store.uri)
        task = run_dag(dag).get_task_instance("plan")
        assert task.state == "success"
        returned: dict[str, Any] = task.xcom_pull(task_ids="plan")
        return returned

    def test_is_asked_for_what_the_plan_stored(
        self,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        airflow_database: None,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        decided = self.plan(store, tmp_path, monkeypatch, dry_run=False)
        assert "fine_tune asks the cluster for 2 x l4" in capsys.readouterr().out
        (training,), (evaluation,) = (read_ladder(decided["hardware"], kind) for kind in ("fine_tune", "evaluate"))
        assert (training.gpu, training.gpu_count) == ("l4", 2)
        assert (evaluation.gpu, evaluation.gpu_count) == ("l4", 1)

    def test_a_dry_run_says_it_and_stores_nothing_of_it(
        self,
        store: Store,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        airflow_database: None,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        decided = self.plan(store, tmp_path, monkeypatch, dry_run=True)
        assert "fine_tune asks the cluster for 2 x l4" in capsys.readouterr().out
        assert decided["hardware"] is None
        assert not [info for info in store.list("plans") if "hardware" in info.path]
