from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators import hitl
from airflow.sdk.exceptions import TaskAwaitingInput

from genai_operators.decisions.verdict import Check, Outcome, Verdict
from genai_operators.operators.approve import ApproveReleaseOperator
from genai_operators.store import Store

CONTEXT: Any = {"task_instance": SimpleNamespace(id="ti-1")}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Airflow was told to show among the required actions. Airflow's own call needs a running scheduler."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **details: calls.append(details))
    return calls


class TestApproval:
    @pytest.mark.parametrize("required", [False, "False", "no", ""])
    def test_is_not_asked_for_where_none_is_required(self, asked: list[dict[str, Any]], required: Any) -> None:
        task = ApproveReleaseOperator(task_id="approve", model="bot", required=required)
        assert task.execute(CONTEXT) is None
        assert asked == []

    @pytest.mark.parametrize("required", [True, "True", "yes"])
    def test_shows_the_scorecard_and_waits(self, asked: list[dict[str, Any]], required: Any, tmp_path: Path) -> None:
        check = Check(name="exact_match.old", outcome=Outcome.PASS, observed=0.93, n=300)
        store = Store.open(tmp_path)
        store.put_json("w/result.json", {"verdict": Verdict.of("evaluation", [check]).to_json()})
        task = ApproveReleaseOperator(
            task_id="approve",
            model="bot",
            required=required,
            candidate="bot v3",
            results={"Evaluation": store.uri_of("w/result.json")},
        )
        with pytest.raises(TaskAwaitingInput):
            task.execute(CONTEXT)
        (call,) = asked
        assert call["options"] == ["Approve", "Reject"]
        assert "bot v3" in call["body"]
        assert "exact_match.old = 0.93" in call["body"]

    def test_silence_rejects(self) -> None:
        task = ApproveReleaseOperator(task_id="approve", model="bot", timeout=timedelta(hours=1))
        assert task.defaults == ["Reject"]
        assert task.response_timeout == timedelta(hours=1)

    def test_may_be_limited_to_named_people(self) -> None:
        task = ApproveReleaseOperator(task_id="approve", model="bot", approvers=["ann"])
        assert task.assigned_users == [{"id": "ann", "name": "ann"}]
