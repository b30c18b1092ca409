"""How a retraining ended is read off what other parts of the platform wrote."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from genai_operators.compute.contract import Result
from genai_operators.compute.owners import Owner
from genai_operators.decisions.policy_facts import AttemptOutcome, Facts, PolicySettings, Trigger
from genai_operators.decisions.verdict import Check, Outcome, Verdict
from genai_operators.operators.evaluate import EvaluateModelOperator
from genai_operators.operators.retraining_attempts import Attempts, Began, Trace, ending_of
from genai_operators.release.ledger import Ledger
from genai_operators.store import Store
from tests.unit.operators.test_stages import context

HOUR = 3_600.0
START = 1_750_000_000.0
SETTINGS = PolicySettings(minimum_new_rows=0, cool_down=timedelta(hours=12))
LONGEST = timedelta(days=1)
OWNER = Owner(dag_id="bot__retrain", run_id="run", task_id="evaluate")


def facts(hours: float, *, drift: bool = False, trained: float | None = None) -> Facts:
    """The world so many hours after the start."""
    return Facts(
        now=datetime.fromtimestamp(START + hours * HOUR, UTC),
        champion_epoch=1,
        trained_at=datetime.fromtimestamp(START if trained is None else trained, UTC),
        drift=drift,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def promote(store: Store, at: float, *, action: str = "promote", version: int = 2) -> None:
    ledger = Ledger(store, "bot", clock=lambda: at)
    ledger.append(action, version, "d", actor="a", reason="r", evidence={}, expected_epoch=ledger.epoch())


def rolled_back(store: Store, at: float, cause: str, *, ended: bool = True) -> None:
    store.put_json("releases/bot/turns/00000001.json", {"release": "r1", "at": at})
    events: list[dict[str, Any]] = [{"type": "started", "data": {}}, {"type": "rolling_back", "data": {"cause": cause}}]
    for number, event in enumerate([*events, *([{"type": "rolled_back", "data": {}}] if ended else [])], start=1):
        store.put_json(f"releases/bot/r1/events/{number:06d}.json", event)


def outcomes(store: Store, hours: float, *, drift: bool = False, judged: bool = True) -> list[str]:
    history = Attempts(store, "bot").history(facts(hours, drift=drift), SETTINGS, judged=judged, longest=LONGEST)
    return [str(attempt.outcome) for attempt in history]


class TestEnding:
    @pytest.mark.parametrize(
        ("trace", "hours", "drift", "outcome", "certain"),
        [
            (Trace(), 1, True, "running", False),
            (Trace(), 25, True, "broken", True),
            (Trace(rejected=True), 1, True, "no_help", True),
            (Trace(broken=True), 1, True, "broken", True),
            (Trace(promoted_at=START + HOUR), 2, True, "no_help", True),
            (Trace(promoted_at=START + HOUR), 2, False, "helped", False),
            (Trace(promoted_at=START + HOUR), 13, False, "helped", True),
        ],
    )
    def test_is_certain_when_nothing_later_can_change_it(
        self, trace: Trace, hours: float, drift: bool, outcome: str, certain: bool
    ) -> None:
        began = Began(name="", at=START, trigger=Trigger.DRIFT, run="run")
        now = facts(hours, drift=drift)
        ending = ending_of(began, trace, facts=now, settings=SETTINGS, judged=True, longest=LONGEST)
        assert (ending.outcome, ending.certain) == (AttemptOutcome(outcome), certain)

    def test_is_not_certain_before_a_check_could_have_seen_it(self) -> None:
        began = Began(name="", at=START, trigger=Trigger.DRIFT, run="run")
        ending = ending_of(
            began,
            Trace(promoted_at=START + HOUR),
            facts=facts(30),
            settings=SETTINGS,
            judged=False,
            longest=LONGEST,
        )
        assert not ending.certain


class TestHistory:
    @pytest.fixture(autouse=True)
    def began(self, store: Store) -> None:
        Attempts(store, "bot").begin(at=START, trigger=Trigger.DRIFT, run="one")

    def test_runs_until_something_is_seen(self, store: Store) -> None:
        assert outcomes(store, 1) == ["running"]

    def test_a_promotion_helped_if_the_drift_is_gone(self, store: Store) -> None:
        promote(store, START + HOUR)
        assert outcomes(store, 2) == ["helped"]
        assert outcomes(store, 3, drift=True) == ["no_help"]

    def test_what_was_certain_once_stays(self, store: Store) -> None:
        promote(store, START + HOUR)
        assert outcomes(store, 20) == ["helped"]
        assert outcomes(store, 21, drift=True) == ["helped"]

    def test_a_promotion_that_somebody_took_back_did_not_help(self, store: Store) -> None:
        promote(store, START - HOUR, version=1)
        promote(store, START + HOUR)
        promote(store, START + 2 * HOUR, action="rollback", version=1)
        assert outcomes(store, 3) == ["no_help"]

    @pytest.mark.parametrize(
        ("cause", "outcome"), [("harm", "no_help"), ("deadline", "no_help"), ("abort", "broken"), ("serving", "broken")]
    )
    def test_a_release_that_was_rolled_back_says_why(self, store: Store, cause: str, outcome: str) -> None:
        rolled_back(store, START + HOUR, cause, ended=False)
        assert outcomes(store, 2) == ["running"]
        rolled_back(store, START + HOUR, cause)
        assert outcomes(store, 2) == [outcome]

    def test_a_release_before_it_is_not_its_own(self, store: Store) -> None:
        rolled_back(store, START - HOUR, "harm")
        assert outcomes(store, 2) == ["running"]

    def test_a_rejected_candidate_did_not_help(self, store: Store) -> None:
        Attempts(store, "bot").reject(OWNER, at=START + HOUR)
        assert outcomes(store, 2) == ["no_help"]

    def test_where_the_next_one_began_this_one_had_ended(self, store: Store) -> None:
        Attempts(store, "bot").begin(at=START + 2 * HOUR, trigger=Trigger.REQUEST, run="two")
        promote(store, START + 3 * HOUR)
        assert outcomes(store, 4) == ["broken", "helped"]

    def test_a_run_begins_one_attempt(self, store: Store) -> None:
        assert not Attempts(store, "bot").begin(at=START + 5, trigger=Trigger.DRIFT, run="one")
        assert len(outcomes(store, 1)) == 1


class TestEvaluation:
    @pytest.mark.parametrize(
        ("outcome", "on_failure", "noted"),
        [("fail", "fail", 1), ("inconclusive", "fail", 1), ("pass", "fail", 0), ("fail", "warn", 0)],
    )
    def test_notes_a_candidate_that_it_is_against(
        self, store: Store, outcome: str, on_failure: Any, noted: int
    ) -> None:
        with DAG("dag"):
            stage = EvaluateModelOperator(
                task_id="task", model="bot", dataset="d", candidate="c", store=store.uri, on_failure=on_failure
            )
        verdict = Verdict.of("evaluation", [Check(name="exact_match", outcome=Outcome(outcome))])
        stage.finish(context(), Result(attempt=1, verdict=verdict))
        assert len(store.list("policy/bot/rejections")) == noted
