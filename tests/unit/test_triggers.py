from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from genai_operators import triggers
from genai_operators.compute.watch import Poll
from genai_operators.exceptions import DataError, StoreUnavailable
from genai_operators.triggers import SettleTrigger, task_state

OWNER = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1}


class ScriptedSubject:
    """Answers polls from a script, and records what it was asked. The last answer repeats."""

    script: list[Poll | Exception] = []  # noqa: RUF012  set by each test; the trigger makes the instance
    cancelled: list[str] = []  # noqa: RUF012
    threads: set[int] = set()  # noqa: RUF012

    def __init__(self, *, name: str) -> None:
        self.name = name

    def poll(self) -> Poll:
        self.threads.add(threading.get_ident())
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self, reason: str) -> None:
        self.cancelled.append(reason)


@pytest.fixture
def subject() -> type[ScriptedSubject]:
    ScriptedSubject.script, ScriptedSubject.cancelled, ScriptedSubject.threads = [], [], set()
    return ScriptedSubject


def trigger(**more: Any) -> SettleTrigger:
    return SettleTrigger(
        subject_class=f"{__name__}.ScriptedSubject",
        subject_kwargs={"name": "x"},
        owner=OWNER,
        poll_interval=0.0,
        **more,
    )


def events(waiting: SettleTrigger) -> list[dict[str, Any]]:
    async def collect() -> list[dict[str, Any]]:
        return [event.payload async for event in waiting.run()]

    fired = asyncio.run(collect())
    return [{key: value for key, value in event.items() if key != "subject"} for event in fired]


def test_an_equal_trigger_can_be_made_elsewhere() -> None:
    original = trigger(deadline=5.0)
    path, arguments = original.serialize()
    assert path == "genai_operators.triggers.SettleTrigger"
    again = SettleTrigger(**arguments)
    assert again.serialize() == original.serialize()


class TestRun:
    def test_the_event_carries_what_a_task_needs_to_go_on(self, subject: type[ScriptedSubject]) -> None:
        async def first() -> Any:
            return await anext(aiter(trigger().run()))

        subject.script = [Poll([], settled={"status": "ok"})]
        assert asyncio.run(first()).payload == {"status": "ok", "subject": {"name": "x"}}

    def test_a_poll_may_say_when_the_next_is_due(self, subject: type[ScriptedSubject]) -> None:
        subject.script = [Poll([], next_s=0.0), Poll([], settled={"status": "ok"})]
        waiting = trigger()
        waiting.poll_interval = 600.0  # would be waited for otherwise
        assert events(waiting) == [{"status": "ok"}]

    def test_logs_every_line_and_fires_once(
        self, subject: type[ScriptedSubject], capsys: pytest.CaptureFixture[str]
    ) -> None:
        subject.script = [Poll(["one"]), Poll(["two", "100 %s"], more=True), Poll(["three"], settled={"status": "ok"})]
        assert events(trigger()) == [{"status": "ok"}]
        logged = capsys.readouterr().out  # Airflow's logging goes there, and to the task log in a triggerer
        places = [logged.index(f"] {line} ") for line in ("one", "two", "100 %s", "three")]
        assert places == sorted(places)

    def test_never_blocks_the_event_loop(self, subject: type[ScriptedSubject]) -> None:
        subject.script = [Poll([], settled={})]
        events(trigger())
        assert threading.get_ident() not in subject.threads

    def test_tells_that_the_deadline_passed(self, subject: type[ScriptedSubject]) -> None:
        subject.script = [Poll([])]
        assert events(trigger(deadline=1.0)) == [{"status": "timeout"}]

    def test_what_settled_before_the_deadline_counts(self, subject: type[ScriptedSubject]) -> None:
        subject.script = [Poll([], settled={"status": "ok"})]
        assert events(trigger(deadline=1.0)) == [{"status": "ok"}]

    def test_a_store_that_is_away_for_a_moment_is_borne(self, subject: type[ScriptedSubject]) -> None:
        subject.script = [StoreUnavailable("away"), StoreUnavailable("away"), Poll([], settled={"status": "ok"})]
        assert events(trigger()) == [{"status": "ok"}]

    def test_one_that_stays_away_is_told(self, subject: type[ScriptedSubject], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(triggers, "POLL_PATIENCE_S", -1.0)
        subject.script = [StoreUnavailable("away")]
        assert events(trigger()) == [{"status": "failed", "error": "StoreUnavailable", "message": "away"}]

    def test_an_error_that_waiting_cannot_mend_is_told_at_once(self, subject: type[ScriptedSubject]) -> None:
        subject.script = [DataError("broken")]
        assert events(trigger())[0]["error"] == "DataError"

    def test_does_not_fire_before_the_scheduler_knows_that_the_task_was_deferred(
        self, subject: type[ScriptedSubject], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(triggers, "LEAST_AGE_S", 600.0)
        subject.script = [Poll([], settled={"status": "ok"})]

        async def first(waiting: SettleTrigger) -> Any:
            return await asyncio.wait_for(anext(aiter(waiting.run())), timeout=0.2)

        sent_by_a_scheduler = trigger()
        sent_by_a_scheduler.trigger_id = 1
        with pytest.raises(TimeoutError):
            asyncio.run(first(sent_by_a_scheduler))


class AirflowSays:
    """Stands in for the API server: the states of task instances."""

    def __init__(self, states: dict[str, dict[str, Any]]) -> None:
        self.states = states

    def __call__(self, **_query: Any) -> dict[str, dict[str, Any]]:
        return self.states


def airflow_says(monkeypatch: pytest.MonkeyPatch, states: dict[str, dict[str, Any]]) -> None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(AirflowSays(states)))


class TestKill:
    @pytest.mark.parametrize("state", ["failed", "success", "skipped", "removed", "upstream_failed"])
    def test_cancels_when_the_task_has_ended_without_us(
        self, subject: type[ScriptedSubject], monkeypatch: pytest.MonkeyPatch, state: str
    ) -> None:
        airflow_says(monkeypatch, {"r": {"t": state}})
        asyncio.run(trigger().on_kill())
        assert subject.cancelled == [f"its task is {state}"]

    @pytest.mark.parametrize(
        "state", ["deferred", "running", "queued", "scheduled", "up_for_retry", "restarting", None]
    )
    def test_cancels_nothing_that_another_triggerer_or_try_goes_on_with(
        self, subject: type[ScriptedSubject], monkeypatch: pytest.MonkeyPatch, state: str | None
    ) -> None:
        airflow_says(monkeypatch, {"r": {"t": state}})
        asyncio.run(trigger().on_kill())
        assert subject.cancelled == []

    def test_cancels_nothing_when_airflow_does_not_answer(
        self, subject: type[ScriptedSubject], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        def silent(**_query: Any) -> dict[str, Any]:
            raise ConnectionError("no answer")

        monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(silent))
        with pytest.raises(ConnectionError):
            asyncio.run(trigger().on_kill())
        assert subject.cancelled == []


class TestTaskState:
    def owner(self, map_index: int = -1) -> triggers.Owner:
        return triggers.Owner(dag_id="d", run_id="r", task_id="t", map_index=map_index)

    def test_of_a_mapped_task_is_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        airflow_says(monkeypatch, {"r": {"t_0": "failed", "t_1": "deferred"}})
        assert task_state(self.owner(0)) == "failed"
        assert task_state(self.owner(1)) == "deferred"

    def test_of_one_that_is_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        airflow_says(monkeypatch, {})
        assert task_state(self.owner()) == "removed"

    def test_of_one_that_was_cleared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        airflow_says(monkeypatch, {"r": {"t": None}})
        assert task_state(self.owner()) is None
