"""The policy retrains when it is called for, brakes when it does not help, and says why in one sentence."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.policy_years import Faults, crowded, simulate
from genai_operators.decisions.policy import (
    Action,
    Attempt,
    AttemptOutcome,
    Candidate,
    Facts,
    PolicySettings,
    Trigger,
    decide,
    judge_attempt,
)
from genai_operators.decisions.policy_facts import attempt_from_json, facts_from_json, settings_from_json, to_json
from genai_operators.decisions.policy_standing import standings
from genai_operators.exceptions import ConfigurationError, DataError

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SETTINGS = PolicySettings()
CALM = Facts(
    now=NOW, champion_epoch=3, trained_at=NOW - 20 * DAY, rated=400, wrong=20, usual_wrong_share=0.05, new_rows=300
)
DRIFT = replace(CALM, drift=True)


def tried(days_ago: float, outcome: AttemptOutcome, trigger: Trigger = Trigger.DRIFT, cost: float = 0.0) -> Attempt:
    return Attempt(at=NOW - days_ago * DAY, trigger=trigger, outcome=outcome, cost=cost)


class TestReasons:
    @pytest.mark.parametrize(
        ("facts", "trigger", "words"),
        [
            (DRIFT, Trigger.DRIFT, "the traffic drifted and 300 new labelled rows are there"),
            (replace(CALM, wrong=80), Trigger.FEEDBACK, "20.0% of 400 answers wrong, 5.0% was usual"),
            (replace(CALM, new_rows=5_000), Trigger.DATA, "5,000 new labelled rows are there"),
            (replace(CALM, trained_at=NOW - 90 * DAY), Trigger.AGE, "was trained 90 days ago"),
        ],
    )
    def test_each_calls_for_a_retraining(self, facts, trigger, words):
        decision = decide(facts, [], SETTINGS)
        assert (decision.action, decision.trigger) == (Action.RETRAIN, trigger)
        assert words in decision.reason

    @pytest.mark.parametrize(
        "facts",
        [
            CALM,
            replace(CALM, wrong=35),  # 8.75 %: no proof of 10 %
            replace(CALM, wrong=3, rated=4),  # a handful of angry users
            replace(DRIFT, new_rows=99),  # nothing to learn from
            replace(CALM, trained_at=NOW - 89 * DAY),
        ],
    )
    def test_little_of_each_does_not(self, facts):
        assert decide(facts, [], SETTINGS).action is Action.WAIT

    def test_without_a_champion_it_waits_for_the_first_training(self):
        decision = decide(Facts(now=NOW, champion_epoch=None, trained_at=None, drift=True), [], SETTINGS)
        assert decision.action is Action.WAIT
        assert "no champion yet" in decision.reason


class TestRelease:
    READY = Candidate(version="7", base_epoch=3, passed=True)

    def test_a_candidate_that_passed_is_released(self):
        decision = decide(replace(DRIFT, candidate=self.READY), [], SETTINGS)
        assert decision.action is Action.RELEASE
        assert "version 7" in decision.reason

    @pytest.mark.parametrize("stale", [replace(READY, base_epoch=2), replace(READY, passed=False)])
    def test_a_stale_or_failed_one_is_not(self, stale):
        assert decide(replace(DRIFT, candidate=stale), [], SETTINGS).action is Action.RETRAIN

    def test_a_running_release_is_left_alone(self):
        decision = decide(replace(DRIFT, candidate=self.READY, release_running=True), [], SETTINGS)
        assert (decision.action, decision.reason) == (Action.WAIT, "Wait: a release is running.")

    def test_after_a_rollback_it_pauses(self):
        facts = replace(CALM, candidate=self.READY, rolled_back_at=NOW - timedelta(minutes=10))
        assert decide(facts, [], SETTINGS).until == NOW + timedelta(minutes=50)
        assert decide(replace(facts, now=NOW + timedelta(hours=1)), [], SETTINGS).action is Action.RELEASE


class TestBrakes:
    def test_one_retraining_at_a_time(self):
        decision = decide(DRIFT, [tried(5, AttemptOutcome.RUNNING)], SETTINGS)
        assert decision.action is Action.WAIT
        assert "is running" in decision.reason

    def test_cool_down_holds_any_trigger(self):
        decision = decide(DRIFT, [tried(0.5, AttemptOutcome.HELPED, Trigger.AGE)], SETTINGS)
        assert decision.until == NOW + 0.5 * DAY

    def test_a_retraining_that_did_not_help_blocks_the_same_trigger(self):
        decision = decide(DRIFT, [tried(2, AttemptOutcome.NO_HELP)], SETTINGS)
        assert decision.until == NOW + DAY
        assert decision.reason == (
            "Wait: the traffic drifted and 300 new labelled rows are there, "
            "but the last retraining for it did not help, until 2026-05-02 12:00 UTC."
        )

    def test_but_not_another_one(self):
        facts = replace(DRIFT, wrong=80)
        assert decide(facts, [tried(2, AttemptOutcome.NO_HELP)], SETTINGS).trigger is Trigger.FEEDBACK

    @pytest.mark.parametrize(("useless", "blocked_days"), [(1, 3), (2, 6), (3, 12), (4, 24), (5, 30), (6, 30)])
    def test_the_block_doubles_and_is_bounded(self, useless, blocked_days):
        history = [tried(40 - index, AttemptOutcome.NO_HELP) for index in range(useless)]
        facts = replace(DRIFT, now=history[-1].at + DAY * 1.5, trained_at=NOW - 80 * DAY)
        roomy = replace(SETTINGS, retrainings=50)
        assert decide(facts, history, roomy).until == history[-1].at + blocked_days * DAY

    def test_success_clears_the_block(self):
        history = [tried(9, AttemptOutcome.NO_HELP), tried(8, AttemptOutcome.NO_HELP), tried(2, AttemptOutcome.HELPED)]
        assert decide(DRIFT, history, SETTINGS).action is Action.RETRAIN

    def test_failures_of_long_ago_do_not_count(self):
        history = [
            tried(80, AttemptOutcome.NO_HELP),
            tried(79, AttemptOutcome.NO_HELP),
            tried(4, AttemptOutcome.NO_HELP),
        ]
        assert decide(DRIFT, history, SETTINGS).action is Action.RETRAIN

    def test_broken_runs_are_tried_again_soon_and_do_not_block(self):
        assert decide(DRIFT, [tried(1, AttemptOutcome.BROKEN)], SETTINGS).action is Action.RETRAIN
        history = [tried(9 - index, AttemptOutcome.BROKEN) for index in range(9)]
        decision = decide(DRIFT, history, SETTINGS)
        assert decision.until == NOW - DAY + 8 * DAY
        assert "the last 9 retrainings broke" in decision.reason

    def test_the_number_of_retrainings_is_a_budget(self):
        history = [tried(25 - 4 * index, AttemptOutcome.HELPED) for index in range(6)]
        decision = decide(DRIFT, history, SETTINGS)
        assert decision.until == NOW + 5 * DAY
        assert "6 retrainings in 30 days are the budget" in decision.reason

    def test_so_is_their_cost(self):
        history = [tried(20, AttemptOutcome.HELPED, cost=40.0), tried(10, AttemptOutcome.HELPED, cost=50.0)]
        decision = decide(DRIFT, history, replace(SETTINGS, budget=120.0))
        assert decision.until == NOW + 10 * DAY
        assert decide(DRIFT, history, replace(SETTINGS, budget=140.0)).action is Action.RETRAIN

    def test_a_price_above_the_whole_budget_needs_a_person(self):
        decision = decide(DRIFT, [tried(200, AttemptOutcome.HELPED, cost=50.0)], replace(SETTINGS, budget=40.0))
        assert decision.action is Action.WAIT
        assert decision.until is None
        assert "more than the whole budget of 40" in decision.reason


class TestJudgement:
    def test_helped_means_promoted_and_the_trigger_gone(self):
        attempt = tried(1, AttemptOutcome.RUNNING)
        assert judge_attempt(attempt, promoted=True, facts=CALM, settings=SETTINGS) is AttemptOutcome.HELPED
        assert judge_attempt(attempt, promoted=False, facts=CALM, settings=SETTINGS) is AttemptOutcome.NO_HELP
        still = replace(DRIFT, new_rows=0)
        assert judge_attempt(attempt, promoted=True, facts=still, settings=SETTINGS) is AttemptOutcome.NO_HELP


class TestContract:
    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.tuples(st.floats(0, 200), st.sampled_from(list(AttemptOutcome)), st.sampled_from(list(Trigger)))),
        st.booleans(),
        st.integers(0, 6_000),
    )
    def test_decides_alike_twice_and_a_wait_with_an_end_ends(self, past, drift, rows):
        history = [tried(age, outcome, trigger) for age, outcome, trigger in sorted(past, key=lambda item: -item[0])]
        facts = replace(CALM, drift=drift, new_rows=rows)
        decision = decide(facts, history, SETTINGS)
        assert decision == decide(facts, history, SETTINGS)
        assert decision.reason.endswith(".")
        assert decision.reason.count(". ") == 0
        if decision.until is not None:
            assert decision.until > facts.now
            assert decide(replace(facts, now=decision.until), history, SETTINGS).action is Action.RETRAIN

    @settings(max_examples=40, deadline=None)
    @given(st.booleans(), st.integers(0, 6_000), st.integers(0, 400), st.floats(0, 200))
    def test_what_is_shown_is_what_decides(self, drift, rows, wrong, age):
        """A bar reaches its line exactly when its fact calls for retraining."""
        facts = replace(CALM, drift=drift, new_rows=rows, wrong=wrong, trained_at=NOW - age * DAY)
        shown = {one.name: one.share for one in standings(facts, [], SETTINGS)}
        enough = shown["labelled rows to act on drift or feedback"] >= 1
        called = (
            (enough and (drift or shown["answers called wrong"] > 1))
            or shown["labelled rows, a reason by themselves"] >= 1
            or shown["age of the training"] >= 1
        )
        assert called == (decide(facts, [], SETTINGS).action is Action.RETRAIN)

    def test_what_the_model_file_does_not_ask_for_is_not_shown(self):
        silent = replace(SETTINGS, maximum_age=36_500 * DAY, data_rows=10**12, feedback_margin=1.0)
        history = [tried(40, AttemptOutcome.HELPED), tried(3, AttemptOutcome.BROKEN), tried(2, AttemptOutcome.NO_HELP)]
        shown = standings(DRIFT, history, silent)
        assert [one.name for one in shown] == [
            "drift", "labelled rows to act on drift or feedback", "retrainings in 30 days",
        ]  # fmt: skip
        assert shown[-1].says == "1 of 6 allowed"

    def test_records_are_plain_json(self):
        record = json.dumps([to_json(DRIFT), to_json(tried(1, AttemptOutcome.BROKEN)), to_json(SETTINGS)])
        assert "2026-05-01T12:00:00+00:00" in record

    @pytest.mark.parametrize(
        "wrong",
        [
            {"now": datetime(2026, 5, 1)},
            {"wrong": 401},
            {"new_rows": -1},
            {"usual_wrong_share": 1.5},
            {"usual_wrong_share": math.nan},
            {"trained_at": NOW + DAY},
        ],
    )
    def test_facts_that_cannot_be_are_refused(self, wrong):
        with pytest.raises(DataError):
            replace(CALM, **wrong)

    def test_history_out_of_order_or_from_the_future_is_refused(self):
        for history in (
            [tried(1, AttemptOutcome.HELPED), tried(2, AttemptOutcome.HELPED)],
            [tried(-1, AttemptOutcome.HELPED)],
        ):
            with pytest.raises(DataError, match="oldest first"):
                decide(CALM, history, SETTINGS)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"cool_down": timedelta(0)},
            {"retrainings": 0},
            {"budget": -1.0},
            {"longest_block": timedelta(hours=1)},
        ],
    )
    def test_senseless_settings_are_refused(self, wrong):
        with pytest.raises(ConfigurationError):
            PolicySettings(**wrong)


FAULTS = {
    "an ordinary year": Faults(),
    "a stuck alarm": Faults(stuck_alarm=300),
    "a broken platform": Faults(broken_days=60),
    "no labels": Faults(dry=90),
    "angry users": Faults(angry_users=200),
    "everything": Faults(stuck_alarm=120, broken_days=30, dry=60, angry_users=90, hopeless=2, breaks=0.3),
}


class TestYears:
    @pytest.mark.parametrize("name", list(FAULTS))
    def test_neither_oscillates_nor_starves(self, name):
        for seed in range(6):
            log = simulate(FAULTS[name], SETTINGS, seed=seed)
            assert crowded(log, SETTINGS) <= SETTINGS.retrainings
            assert log.useless <= 26
            assert log.longest_idle <= SETTINGS.longest_block / DAY + 5

    def test_retraining_at_every_alarm_is_caught(self):
        kept = [simulate(FAULTS["a stuck alarm"], SETTINGS, seed=seed).useless for seed in range(5)]
        naive = [simulate(FAULTS["a stuck alarm"], SETTINGS, seed=seed, naive=True).useless for seed in range(5)]
        assert np.median(naive) > 4 * np.median(kept)


class TestRecords:
    @pytest.mark.parametrize(
        ("record", "read"),
        [
            (replace(DRIFT, candidate=Candidate(version="4", base_epoch=3, passed=True)), facts_from_json),
            (replace(CALM, trained_at=None, rolled_back_at=NOW), facts_from_json),
            (tried(3, AttemptOutcome.NO_HELP, cost=1.5), attempt_from_json),
            (PolicySettings(budget=7.0, cool_down=timedelta(hours=5)), settings_from_json),
        ],
    )
    def test_survive_their_json(self, record, read):
        assert read(json.loads(json.dumps(to_json(record)))) == record

    @pytest.mark.parametrize("read", [facts_from_json, attempt_from_json, settings_from_json])
    def test_a_wrong_record_is_refused(self, read):
        with pytest.raises(DataError, match="not "):
            read({"unknown": 1})

    def test_without_a_usual_share_the_limit_is_named(self):
        facts = replace(CALM, usual_wrong_share=0.0, wrong=200)
        assert "50.0% of 400 answers wrong, 5.0% is accepted" in decide(facts, [], SETTINGS).reason

    @pytest.mark.parametrize(
        ("age", "words"), [(3, "3 minutes ago"), (150, "2 hours ago"), (2_870, "48 hours ago"), (4_330, "3 days ago")]
    )
    def test_an_age_is_said_in_a_unit_that_fits(self, age, words):
        assert words in decide(replace(CALM, trained_at=NOW - timedelta(minutes=age)), [], SETTINGS).reason

    def test_a_request_is_never_a_reason_and_blocks_nothing(self):
        assert decide(CALM, [tried(5, AttemptOutcome.NO_HELP, Trigger.REQUEST)], SETTINGS).action is Action.WAIT
        assert decide(DRIFT, [tried(2, AttemptOutcome.NO_HELP, Trigger.REQUEST)], SETTINGS).action is Action.RETRAIN
