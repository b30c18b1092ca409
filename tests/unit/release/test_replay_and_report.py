from __future__ import annotations

import subprocess
import sys

import pytest

from genai_operators.decisions.verdict import Check, Outcome, Verdict
from genai_operators.release.card import CardFacts, build_card
from genai_operators.release.journal import EventType
from genai_operators.release.replay import main, replay
from genai_operators.release.report import looks_of, render, traffic_of, write_report
from genai_operators.spec.canary import OnDeadline
from tests.fakes.releases import MODEL, Bench
from tests.fakes.serving import Behaviour


def finished(bench: Bench, behaviour: Behaviour | None = None, **changes):
    plan = bench.plan(champion=bench.crown(), **changes)
    bench.serving.behave(plan.candidate, behaviour or Behaviour())
    return bench.settle(bench.controller(plan))


def page(bench: Bench, progress) -> str:
    return render(progress, looks_of(bench.store, progress.plan))


def events_of(bench: Bench, progress, event_type: EventType) -> list[str]:
    return [
        f"{progress.plan.directory}/events/{event.number:06d}.json"
        for event in progress.events
        if event.type is event_type
    ]


class TestReplay:
    @pytest.mark.parametrize("behaviour", [Behaviour(), Behaviour(errors=0.5)], ids=["promoted", "rolled back"])
    def test_decides_the_same_from_what_is_stored(self, bench, behaviour):
        progress = finished(bench, behaviour)
        result = replay(bench.store, MODEL, progress.plan.release)
        assert result.differences == ()
        assert len(result.checked) > 3
        assert result.progress.phase is progress.phase

    def test_of_a_deadline_and_of_a_blast_radius(self, bench):
        progress = finished(bench, blast_requests=20)
        assert replay(bench.store, MODEL, progress.plan.release).differences == ()

    def test_of_a_budget_of_money(self, bench):
        progress = finished(bench, blast_cost=0.5, cost_per_hour=36.0, cost_per_1k_tokens=0.1)
        assert progress.decision["cause"] == "blast_radius"
        assert replay(bench.store, MODEL, progress.plan.release).differences == ()

    def test_notices_an_edited_fact(self, bench):
        progress = finished(bench, Behaviour(errors=0.5))
        path = events_of(bench, progress, EventType.OBSERVED)[1]
        record = bench.store.get_json(path)
        record["data"]["facts"]["requests"]["status"] = [500] * len(record["data"]["facts"]["requests"]["status"])
        bench.store.put_json(path, record)
        differences = replay(bench.store, MODEL, progress.plan.release).differences
        assert any("is not what the stored facts give" in line for line in differences)

    def test_notices_a_decision_that_the_facts_do_not_carry(self, bench):
        progress = finished(bench)
        path = events_of(bench, progress, EventType.PROMOTING)[0]
        record = bench.store.get_json(path)
        record["type"], record["data"]["cause"] = "rolling_back", "harm"
        bench.store.put_json(path, record)
        differences = replay(bench.store, MODEL, progress.plan.release).differences
        assert any("the stored facts say promoting" in line for line in differences)

    def test_states_of_an_older_version_are_named_and_the_report_computes_its_own(self, bench):
        progress = finished(bench)
        for path in events_of(bench, progress, EventType.OBSERVED):
            record = bench.store.get_json(path)
            record["data"]["states"] = {"requests": {"version": 1}}
            bench.store.put_json(path, record)
        result = replay(bench.store, MODEL, progress.plan.release)
        assert any("of requests has version 1, this code computes 2" in line for line in result.differences)
        assert result.progress.phase is progress.phase
        assert looks_of(bench.store, progress.plan)[-1].standing.certified

    def test_notices_a_missing_event(self, bench):
        progress = finished(bench)
        path = events_of(bench, progress, EventType.WEIGHT_SET)[1]
        number = int(path[-11:-5])
        record = bench.store.get_json(path)
        bench.store.put_json(path, {**record, "type": "step_passed", "data": {"step": 0, "requests": 5}})
        assert any(f"event {number}" in line for line in replay(bench.store, MODEL, progress.plan.release).differences)

    def test_from_the_command_line(self, bench):
        progress = finished(bench)
        uri = bench.store.uri_of(progress.plan.directory)
        command = [sys.executable, "-m", "genai_operators.release.replay", uri]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": "plugins"})
        assert done.returncode == 0, done.stderr
        assert "0 differ; promoted" in done.stdout

    @pytest.mark.parametrize("arguments", [[], ["somewhere"], ["file:///nowhere/releases/bot/none"]])
    def test_of_nothing_says_how(self, arguments, capsys):
        assert main(arguments) == 2
        assert capsys.readouterr().err


class TestReport:
    def test_is_self_contained_and_shows_verdict_traffic_and_evidence(self, bench):
        progress = finished(bench)
        page = bench.store.get(bench.store.path_of(write_report(progress, bench.store))).decode()
        assert page.count("<svg") == 3
        assert "promoted in" in page
        assert "every guardrail is proved acceptable" in page
        for outside in ("<script", "http://www.w3.org/TR", "src="):
            assert outside not in page
        assert traffic_of(progress.events)[-1][1] == 100.0

    def test_holds_no_request_and_no_user(self, bench):
        page_of = page(bench, finished(bench))
        facts = bench.serving.observations(0).requests
        assert not any(f">{fact.unit}<" in page_of or f">{fact.request_id}<" in page_of for fact in facts)

    def test_is_the_same_bytes_each_time(self, bench):
        progress = finished(bench, Behaviour(errors=0.5))
        again = bench.controller(progress.plan)
        again.refresh()
        assert page(bench, again.progress) == page(bench, progress)

    @pytest.mark.parametrize(
        ("behaviour", "changes", "word"),
        [
            (Behaviour(errors=0.5), {}, "rolled back (harm)"),
            (Behaviour(dead=True), {}, "rolled back (serving)"),
            (Behaviour(), {"blast_requests": 10}, "rolled back (blast_radius)"),
        ],
    )
    def test_says_why_it_ended(self, bench, behaviour, changes, word):
        assert word in page(bench, finished(bench, behaviour, **changes))

    def test_says_what_was_used_of_the_budget(self, bench):
        progress = finished(bench, blast_requests=5_000, blast_tokens=100_000, cost_per_1k_tokens=2.0)
        html, tokens = page(bench, progress), progress.evidence.exposure.tokens
        assert f"requests {progress.evidence.exposure.requests:,} of 5,000, tokens {tokens:,} of 100,000" in html
        assert f"{tokens / 1000 * 2.0:.2f}" in html

    def test_of_a_first_version_and_of_a_release_under_way(self, bench):
        first = bench.plan(candidate=1)
        assert "promoted in" in page(bench, bench.settle(bench.controller(first)))
        second = bench.plan(candidate=2, champion=first.candidate, on_deadline=OnDeadline.HOLD)
        assert "under way" in page(bench, bench.controller(second).tick())


class TestModelCard:
    def test_says_what_was_measured_and_nothing_else(self):
        check = Check(name="exact_match.new", outcome=Outcome.PASS, observed=0.91, interval=(0.86, 0.95), n=120)
        card = build_card(
            CardFacts(
                model="support_bot",
                digest="d" * 64,
                files=7,
                size_bytes=3_420_000,
                recipe={"base_model": "scratch", "method": "lora", "epochs": 3},
                seed=7,
                training={"loss": 0.027},
                evaluation={"exact_match.new": 0.91},
                verdict=Verdict.of("evaluation", [check]),
                references={"dataset": "e" * 64},
            )
        )
        assert card.startswith('---\nmodel_name: "support_bot"\n')
        assert "base_model:" not in card, "random weights have no base"
        assert "**pass** exact_match.new = 0.91 [0.86, 0.95] (n = 120)" in card
        assert "| loss | 0.027 |" in card
        assert "| seed | `7` |" in card
        assert "e" * 64 in card

    def test_front_matter_is_yaml(self):
        import yaml

        card = build_card(
            CardFacts(
                model="bot: odd",
                digest="d",
                files=1,
                size_bytes=1,
                recipe={"base_model": "org/base", "method": "full"},
                evaluation={"exact_match": 0.5},
            )
        )
        front = yaml.safe_load(card.split("---")[1])
        assert front["base_model"] == "org/base"
        assert front["model-index"][0]["results"][0]["metrics"] == [{"type": "exact_match", "value": 0.5}]
