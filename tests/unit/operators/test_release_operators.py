from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, Asset, AssetAlias
from airflow.sdk.exceptions import AirflowSkipException, TaskAwaitingInput, TaskDeferred
from airflow.sdk.execution_time import hitl
from airflow.serialization.serialized_objects import DagSerialization

from genai_operators.exceptions import GateFailed, GatewayUnavailable, ReleaseAborted
from genai_operators.operators.canary import CanaryReleaseOperator
from genai_operators.operators.register import RegisterModelOperator
from genai_operators.operators.rollback import RollbackOperator
from genai_operators.release.subject import ReleaseSubject
from genai_operators.spec.canary import OnDeadline
from genai_operators.store import canonical_json
from tests.fakes.releases import MODEL, OWNER, POLL_S, Bench
from tests.fakes.serving import Behaviour


def release_task(**settings: Any) -> CanaryReleaseOperator:
    return CanaryReleaseOperator(task_id="release", model=MODEL, version=2, **settings)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def context() -> Any:
    instance = SimpleNamespace(id="ti-1", dag_id=OWNER.dag_id, run_id=OWNER.run_id, task_id=OWNER.task_id, map_index=-1)
    return {"ti": instance, "outlet_events": {}}


def settled(
    bench: Bench, behaviour: Behaviour | None = None, *, cancel: bool = False, **changes: Any
) -> dict[str, Any]:
    """What the trigger's event says at the end of a release."""
    plan = bench.plan(champion=bench.crown(), **changes)
    bench.serving.behave(plan.candidate, behaviour or Behaviour())
    arguments = {"store": bench.store.uri, "model": MODEL, "release": plan.release, "parts": bench.description()}
    subject = ReleaseSubject(**arguments)
    if cancel:
        subject.controller.cancel("somebody marked the task failed")
    while (poll := subject.poll()).settled is None:
        bench.serving.sleep(POLL_S)
    return {**poll.settled, "subject": arguments}


class TestEndOfARelease:
    def test_a_promotion_returns_a_small_reference_and_a_link_to_the_report(self, bench):
        operator = release_task()
        reference = operator.resume(context(), settled(bench))
        assert (reference["outcome"], reference["champion_version"], reference["epoch"]) == ("promoted", 2, 2)
        assert len(canonical_json(reference)) < 2048
        assert not {"status", "subject"} & set(reference), "where the gateway's files lie is nobody's business"
        assert operator.report_url.startswith("/genai/reports/releases/bot/")
        assert bench.store.exists(bench.store.path_of(reference["report"]))

    def test_a_promotion_tells_the_endpoint_s_asset(self, bench):
        outlet = Asset("bot_endpoint", uri="x-genai://endpoints/bot")
        told = context()
        told["outlet_events"][outlet] = SimpleNamespace(extra={})
        release_task(outlets=[outlet]).resume(told, settled(bench))
        assert told["outlet_events"][outlet].extra["champion_version"] == 2

    def test_an_alias_has_an_event_of_the_endpoint_on_a_promotion_alone(self, bench):
        alias = AssetAlias("bot_champion")
        told, events = context(), []
        told["outlet_events"][alias] = SimpleNamespace(add=lambda asset, extra: events.append((asset.uri, extra)))
        operator = release_task(outlets=[alias], on_failure="warn")
        operator.resume(told, settled(bench, Behaviour(errors=0.6)))
        assert operator._unchanged({})["outcome"] == "unchanged"
        assert events == []
        operator.resume(told, settled(bench, candidate=3))
        ((uri, extra),) = events
        assert (uri, extra["champion_version"]) == ("x-genai://endpoints/bot", 3)

    def test_a_rollback_fails_the_task_with_the_reason_and_is_not_retried(self, bench):
        with pytest.raises(GateFailed, match=r"v2 of bot was rolled back \(harm\): harm proved at request") as caught:
            release_task().resume(context(), settled(bench, Behaviour(errors=0.6)))
        assert not caught.value.retry_helps
        assert "Exposed requests:" in str(caught.value)
        assert "report.html" in str(caught.value)

    def test_or_warns_or_skips_as_the_author_says(self, bench):
        event = settled(bench, Behaviour(errors=0.6))
        reference = release_task(on_failure="warn").resume(context(), event)
        assert (reference["outcome"], reference["cause"]) == ("rolled_back", "harm")
        with pytest.raises(AirflowSkipException):
            release_task(on_failure="skip").resume(context(), event)

    def test_an_abort_is_its_own_failure_whatever_on_failure_says(self, bench):
        event = settled(bench, cancel=True)
        with pytest.raises(ReleaseAborted, match="somebody marked the task failed"):
            release_task(on_failure="warn").resume(context(), event)

    def test_what_the_trigger_could_not_mend_is_raised_as_what_it_is(self, bench):
        event = {"status": "failed", "error": "GatewayUnavailable", "message": "the gateway does not answer"}
        with pytest.raises(GatewayUnavailable, match="does not answer"):
            release_task().resume(context(), event)


class TestRollbackOperator:
    def test_its_report_says_who_reigned_and_why_not_any_more(self, bench):
        bench.crown()
        ledger = bench.ledger
        for action, version, reason in (("promote", 2, "proved"), ("rollback", 1, "answers <b>got</b> worse")):
            ledger.append(
                action,
                version,
                f"digest-{version}",
                actor="bot__rollback/manual__7/rollback",
                reason=reason,
                evidence={"model": f"file:///{version}"},
                expected_epoch=ledger.epoch(),
            )
        event = {"status": "settled", "outcome": "rolled_back", "champion_version": 1, "previous": 2, "epoch": 3}
        operator = RollbackOperator(task_id="rollback", model=MODEL)
        event |= {"digest": "digest-1", "reason": "r", "subject": {"store": bench.store.uri}}
        reference = operator.resume(context(), event)
        assert operator.report_url == "/genai/reports/reports/bot/rollback-00000003.html"
        page = bench.store.get(bench.store.path_of(reference["report"])).decode()
        for said in ("champion before</td><td>v2", "answers &lt;b&gt;got&lt;/b&gt; worse", "file:///1", "proved"):
            assert said in page, said
        ledger.append("promote", 3, "d", actor="a", reason="later", evidence={}, expected_epoch=3)
        operator.resume(context(), event)
        assert bench.store.get(bench.store.path_of(reference["report"])).decode() == page, (
            "a repetition writes the same"
        )


class TestAsking:
    def test_a_person_sees_the_verdict_decides_and_the_release_carries_it_out(self, bench, monkeypatch):
        asked: list[dict[str, Any]] = []
        monkeypatch.setattr(hitl, "upsert_hitl_detail", lambda **details: asked.append(details))
        bench.serving.configure(rate=0.001)
        event = settled(bench, deadline_s=60, on_deadline=OnDeadline.ASK)
        operator = release_task()
        with pytest.raises(TaskAwaitingInput) as waiting:
            operator.resume(context(), event)
        assert asked[0]["options"] == ["Promote", "Roll back"]
        assert "health.errors" in asked[0]["body"]
        answer = {"chosen_options": ["Promote"], "responded_by_user": {"name": "ada"}}
        with pytest.raises(TaskDeferred) as deferred:
            operator.answered(context(), answer, **waiting.value.kwargs)
        subject = ReleaseSubject(**deferred.value.trigger.subject_kwargs)
        while (poll := subject.poll()).settled is None:
            bench.serving.sleep(POLL_S)
        event = {**poll.settled, "subject": deferred.value.trigger.subject_kwargs}
        assert operator.resume(context(), event)["outcome"] == "promoted"
        assert "ada decided so" in bench.ledger.champion().reason


class TestWhatIsCheckedWhenADagIsParsed:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"canary": {"steps": [{"percent": 50}, {"percent": 5}]}}, "steps must rise"),
            ({"canary": {"deadlin": "1h"}}, "deadlin"),
            ({"serve": {"runtimes": {"x": {}}}}, "command"),
            ({"output_kind": "xml"}, "xml"),
            ({"on_failure": "ask"}, "on_failure is 'ask'; it is one of fail, warn, skip"),
        ],
    )
    def test_wrong_rules(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            CanaryReleaseOperator(task_id="release", model=MODEL, version=1, **arguments)

    def test_serialising_twice_gives_the_same(self):
        def build() -> dict[str, Any]:
            with DAG("bot__retrain", schedule=None) as dag:
                registered = RegisterModelOperator(task_id="register", model=MODEL, training="{{ x }}")
                CanaryReleaseOperator(
                    task_id="release",
                    model=MODEL,
                    version=registered.output["version"],
                    canary={"steps": [{"percent": 5, "minimum_soak": "1m"}]},
                    serve={"runtimes": {"own": {"command": ["serve"]}}},
                )
                RollbackOperator(task_id="rollback", model=MODEL, version="{{ params.version }}")
            return DagSerialization.to_dict(dag)

        first = build()
        assert canonical_json(first) == canonical_json(build())
