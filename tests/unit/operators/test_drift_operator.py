"""Drift checks through the store, with the workload computed for real: silent without drift, one alarm for one change.

Traffic is drawn from the example's rows; a check a day at noon judges the batch that came an hour before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from genai_operators.compute.contract import Artifact
from genai_operators.decisions.policy import decide
from genai_operators.decisions.policy_facts import attempt_from_json, facts_from_json, settings_from_json
from genai_operators.operators import drift_periods
from genai_operators.operators.drift_periods import PeriodRecord, Periods
from genai_operators.workloads.records import Record
from tests.fakes.drift_traffic import DAY, HOUR, MODEL, MONDAY, DriftLoop, example

FIRST, USUAL, LATER = (example(name) for name in ("first", "usual", "later"))
FEW = ["prompt.out_of_vocabulary"]

Start = Callable[..., DriftLoop]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """A model whose champion learnt the first rows."""

    def begin(*, drift: dict[str, Any] | None = None, **options: Any) -> DriftLoop:
        loop = DriftLoop(tmp_path, monkeypatch, drift={"features": FEW, **(drift or {})}, **options)
        loop.crown(FIRST)
        return loop

    return begin


def day(loop: DriftLoop, number: int, records: Sequence[Record], *, rows: int = 200, **judged: int) -> dict[str, Any]:
    """A day's traffic, then its check."""
    loop.now = MONDAY + number * DAY + 11 * HOUR
    loop.serve(records, rows, **judged)
    loop.now += HOUR
    return loop.check()


@pytest.mark.slow
class TestAMonth:
    def test_without_drift_is_silent(self, start: Start) -> None:
        loop = start()
        found = [day(loop, number, USUAL) for number in range(30)]
        assert [check["alarm"] for check in found] == [None] * 30
        assert {record.outcome for record in loop.periods.newest()} == {"pass"}
        assert loop.events == []

    def test_with_drift_raises_one_alarm_on_its_first_day(self, start: Start) -> None:
        loop = start(drift={"cooldown": "5d"}, policy={"cooldown": "60d"})
        found = [day(loop, number, USUAL if number < 3 else LATER) for number in range(10)]
        assert [number for number, check in enumerate(found) if check["alarm"]] == [3]
        assert len(loop.events) == 1
        assert "Retrain: the traffic drifted" in loop.events[0]["why"]
        records = loop.periods.newest()
        assert [record.alarmed for record in records] == [False] * 3 + [True] * 7

    def test_a_change_that_passed_is_over_after_quiet_days_and_the_next_one_alarms_again(self, start: Start) -> None:
        loop = start(drift={"cooldown": "2d"})
        shifted = {3, 4, 12, 13}
        found = [day(loop, number, LATER if number in shifted else USUAL) for number in range(14)]
        assert [number for number, check in enumerate(found) if check["alarm"]] == [3, 12]
        ends = [record.period for record in loop.periods.newest() if not record.alarmed]
        assert ends[3] - ends[2] == 5  # two days of drift, then two of three quiet ones before the alarm ends

    def test_a_small_change_that_no_day_shows_is_found_over_time(self, start: Start) -> None:
        loop = start()
        mixed = [*USUAL[:400], *LATER[:100]]
        found = [day(loop, number, USUAL if number < 2 else mixed) for number in range(12)]
        alarms = [number for number, check in enumerate(found) if check["alarm"]]
        assert len(alarms) == 1
        assert alarms[0] > 2
        assert loop.periods.newest()[alarms[0]].state["raised_by"] > 1

    def test_few_rows_a_day_still_count_together(self, start: Start) -> None:
        loop = start()
        found = [day(loop, number, LATER, rows=60) for number in range(4)]
        assert [record.outcome for record in loop.periods.newest()][:2] == ["inconclusive", "inconclusive"]
        assert [number for number, check in enumerate(found) if check["alarm"]] == [3]


class TestANewChampion:
    def test_starts_a_new_watch_within_the_old_cool_down(self, start: Start) -> None:
        loop = start(drift={"cooldown": "10d"})
        for number in range(3):
            day(loop, number, LATER)
        loop.now += HOUR
        loop.crown(LATER, version=2)
        assert day(loop, 3, LATER)["alarm"] is None
        assert loop.record().outcome == "pass"
        assert day(loop, 4, USUAL)["alarm"] is None  # drift, and within the cool-down
        assert loop.record().outcome == "fail"
        assert not loop.record().alarmed

    def test_is_compared_with_none_of_the_old_ones_periods(self, start: Start) -> None:
        loop = start()
        for number in range(3):
            day(loop, number, USUAL)
        loop.now += HOUR
        loop.crown(LATER, version=2)
        loop.now += DAY
        loop.serve(LATER, 200)
        assert [name for name in loop.build("next").inputs if name.startswith("period_")] == []

    def test_whose_data_set_holds_no_embeddings_is_compared_by_columns(self, start: Start, capsys: Any) -> None:
        loop = start()
        loop.store.delete("datasets/1/embeddings.npz")
        manifest = loop.store.get_json("datasets/1/MANIFEST.json")
        del manifest["files"]["embeddings.npz"]
        loop.store.put_json("datasets/1/MANIFEST.json", manifest)
        day(loop, 0, LATER)
        assert loop.record().outcome == "fail"
        assert "holds no embeddings" in capsys.readouterr().out


class TestWhatIsJudged:
    def test_without_a_champion_or_traffic_it_skips(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = DriftLoop(tmp_path, monkeypatch)
        with pytest.raises(AirflowSkipException, match="no champion"):
            loop.check()
        loop.crown(FIRST)
        with pytest.raises(AirflowSkipException, match="no traffic within 1d"):
            loop.check()

    def test_a_period_is_judged_once(self, start: Start) -> None:
        loop = start()
        day(loop, 0, USUAL)
        loop.now += HOUR
        loop.serve(USUAL, 200)
        with pytest.raises(AirflowSkipException, match=r"judged already; the next begins at 2025-06-17 00:00:00 UTC"):
            loop.check()

    def test_no_batch_is_judged_twice_or_left_out(self, start: Start) -> None:
        loop = start(drift={"window": "1h"})
        for hour in range(4):
            loop.now = MONDAY + hour * HOUR + 60
            loop.serve(USUAL, 20)
            loop.serve(USUAL, 20)
            loop.check()
        assert [(record.first, record.last) for record in loop.periods.newest()] == [(0, 1), (2, 3), (4, 5), (6, 7)]

    def test_nothing_is_left_out_where_a_check_begins_late(self, start: Start) -> None:
        loop = start(drift={"window": "1h"})
        for moment in (
            0,
            10,
            20,
            3_700,
        ):  # more than an hour lies between the checks, and the third batch came before it
            loop.now = MONDAY + moment
            loop.serve(USUAL, 20)
            if moment in (10, 3_700):
                loop.check()
        assert [(record.first, record.last) for record in loop.periods.newest()] == [(0, 1), (2, 3)]

    def test_traffic_older_than_a_period_is_not(self, start: Start) -> None:
        loop = start(drift={"window": "1h"})
        loop.serve(USUAL, 20)
        loop.now += 5 * HOUR
        loop.serve(USUAL, 20)
        loop.check()
        assert (loop.record().first, loop.record().last) == (1, 1)

    def test_embeddings_can_be_switched_off(self, start: Start) -> None:
        loop = start(drift={"embeddings": False})
        day(loop, 0, USUAL)
        folder = loop.store.path_of(loop.record().profile.uri)
        assert list(loop.store.list_names(folder)) == ["MANIFEST.json", "profile.json"]

    def test_the_period_is_kept_without_text(self, start: Start) -> None:
        loop = start()
        day(loop, 0, LATER)
        folder = loop.store.path_of(loop.record().profile.uri)
        kept = b"".join(loop.store.get(info.path) for info in loop.store.list(folder))
        kept += json.dumps(loop.record().to_json()).encode()
        asked = loop.store.get("traffic/m/text/0000000000.jsonl").decode().splitlines()[1:]
        texts = {json.loads(line)["messages"][-1]["content"] for line in asked}
        assert not [text for text in texts if text.encode() in kept]

    def test_what_a_task_returns_is_small(self, start: Start) -> None:
        assert len(json.dumps(day(start(), 0, LATER))) < 300


class TestCrashes:
    def test_a_repetition_finds_what_the_first_try_planned(self, start: Start) -> None:
        loop = start()
        day(loop, 0, USUAL)
        loop.now += DAY
        loop.serve(LATER, 200)
        planned = loop.build("run")
        loop.now += HOUR  # the worker died; more traffic came meanwhile
        loop.serve(USUAL, 200)
        assert loop.build("run").fingerprint == planned.fingerprint

    @pytest.mark.parametrize("lost", ["decision", "alarm", "attempt"])
    def test_after_the_record_it_goes_on_where_the_first_try_stopped(self, start: Start, lost: str) -> None:
        loop = start()
        loop.now += HOUR
        loop.serve(LATER, 200)
        workload = loop.build("run")
        result = loop.compute(workload)
        first = loop.finish("run", result)
        gone = {"decision": "policy/m/decisions", "alarm": "drift/m/alarms", "attempt": "policy/m/attempts"}[lost]
        for info in loop.store.list(gone):
            loop.store.delete(info.path)
        loop.now += HOUR
        assert loop.build("run").fingerprint == workload.fingerprint
        assert loop.finish("run", result) == first
        assert loop.events[0] == loop.events[1]
        for folder in ("drift/m/periods", "drift/m/alarms", "policy/m/decisions", "policy/m/attempts"):
            assert len(loop.store.list(folder)) == 1

    def test_of_two_at_once_one_counts(self, start: Start) -> None:
        loop = start()
        loop.now += HOUR
        loop.serve(LATER, 200)
        results = {run: loop.compute(loop.build(run)) for run in ("one", "two")}
        assert loop.finish("one", results["one"])["alarm"] is not None
        assert loop.finish("two", results["two"]) == {"alarm": None, "policy": None}
        assert loop.finish("two", results["two"]) == {"alarm": None, "policy": None}
        assert len(loop.store.list("drift/m/periods")) == 1
        assert len(loop.store.list("policy/m/attempts")) == 1
        assert len(loop.events) == 1

    def test_old_periods_go_with_their_profiles(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(drift_periods, "KEPT", 3)
        loop = start()
        for number in range(5):
            day(loop, number, USUAL if number != 1 else LATER)
        assert [record.number for record in loop.periods.newest()] == [2, 3, 4]
        assert loop.periods.next_number() == 5
        profiles = [
            i.path for i in loop.store.list("workloads/drift") if i.path.endswith("output/profile/profile.json")
        ]
        assert len(profiles) == 3
        assert len(loop.store.list("drift/m/checks")) == 3
        kept = [name.partition(".")[0] for name in loop.store.list_names("policy/m/decisions")]
        assert kept == ["0000000001", "0000000002", "0000000003", "0000000004"]  # the one that retrained stays


class TestPolicy:
    def test_every_stored_decision_replays(self, start: Start) -> None:
        loop = start(minimum_new_rows=250)
        for number in range(4):
            day(loop, number, USUAL if number < 2 else LATER, judged=100)
        said = []
        for name in loop.store.list_names("policy/m/decisions"):
            stored = loop.store.get_json(f"policy/m/decisions/{name}")
            history = [attempt_from_json(attempt) for attempt in stored["history"]]
            again = decide(facts_from_json(stored["facts"]), history, settings_from_json(stored["settings"]))
            assert again.to_json() == stored["decision"]
            said.append(stored["decision"]["action"])
        assert said == ["wait", "wait", "retrain", "wait"]

    def test_drift_waits_for_rows_to_learn_from(self, start: Start) -> None:
        loop = start(minimum_new_rows=250)
        first = day(loop, 0, LATER, judged=100)
        assert first["alarm"] is not None
        assert loop.decision()["decision"]["reason"].startswith(
            "Wait: nothing calls for it: drift, but too few new rows"
        )
        assert loop.events == []
        day(loop, 1, LATER, judged=100)
        assert day(loop, 2, LATER, judged=100) == {"alarm": None, "policy": "retrain"}
        assert len(loop.events) == 1

    def test_age_asks_for_a_retraining_without_drift(self, start: Start) -> None:
        loop = start(policy={"maximum_age": "3d"})
        found = [day(loop, number, USUAL)["policy"] for number in range(5)]
        assert found == ["wait", "wait", "wait", "retrain", "wait"]
        assert loop.events[0]["alarm"] is None
        assert "the champion was trained" in loop.events[0]["why"]

    def test_wrong_answers_ask_for_a_retraining_without_drift(self, start: Start) -> None:
        loop = start(policy={"maximum_negative_feedback": 0.2})
        assert day(loop, 0, USUAL, judged=200, wrong=20)["policy"] == "wait"
        assert day(loop, 1, USUAL, judged=200, wrong=120)["policy"] == "retrain"
        assert "users call 35.0% of 400 answers wrong, 20.0% is accepted" in loop.events[0]["why"]

    def test_new_rows_count_from_where_the_champion_learnt(self, start: Start) -> None:
        loop = start()
        loop.now += HOUR
        loop.serve(USUAL, 200, judged=50)
        loop.serve(USUAL, 200, judged=30)
        loop.now += 60
        loop.crown(FIRST, version=2, learnt_through=0)
        loop.now += HOUR
        loop.serve(USUAL, 200, judged=7, wrong=2)
        loop.check()
        facts = loop.decision()["facts"]
        assert (facts["new_rows"], facts["rated"], facts["wrong"]) == (37, 7, 2)

    def test_a_retraining_that_did_not_help_blocks_the_same_trigger(self, start: Start) -> None:
        loop = start(drift={"cooldown": "1d"}, policy={"cooldown": "12h", "block": "4d"})
        assert day(loop, 0, LATER)["policy"] == "retrain"
        loop.now += HOUR
        loop.crown(FIRST, version=2)  # it was retrained on the wrong rows, so the traffic is still strange to it
        found = [day(loop, number, LATER)["policy"] for number in range(1, 5)]
        assert found == ["wait"] * 3 + ["retrain"]
        second = loop.decision(number=2)["decision"]
        assert "the last retraining for it did not help" in second["reason"]

    def test_one_that_helped_leaves_the_trigger_free(self, start: Start) -> None:
        loop = start(drift={"cooldown": "1d"}, policy={"cooldown": "1d"})
        assert day(loop, 0, LATER)["policy"] == "retrain"
        loop.now += HOUR
        loop.crown(LATER, version=2)
        quiet = [day(loop, number, LATER)["policy"] for number in range(1, 4)]
        assert quiet == ["wait"] * 3
        assert day(loop, 4, USUAL)["policy"] == "retrain"
        assert loop.decision()["history"][0]["outcome"] == "helped"


class TestRecords:
    def test_survive_their_json(self, start: Start) -> None:
        loop = start()
        day(loop, 0, LATER)
        record = loop.record()
        assert PeriodRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
        assert isinstance(record.profile, Artifact)

    def test_the_number_is_the_compare_and_swap(self, start: Start) -> None:
        loop = start()
        day(loop, 0, USUAL)
        record = loop.record()
        other = PeriodRecord.from_json({**record.to_json(), "outcome": "fail"})
        assert Periods(loop.store, MODEL).commit(other) == record
