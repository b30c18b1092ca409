from __future__ import annotations

from collections import Counter

import pytest

from genai_operators.exceptions import GatewayUnavailable
from genai_operators.release.journal import Journal
from genai_operators.release.subject import ReleaseSubject
from genai_operators.spec.canary import OnDeadline
from genai_operators.store import canonical_json
from tests.fakes.releases import MODEL, POLL_S, Bench
from tests.fakes.serving import Behaviour


def subject(bench: Bench, plan) -> ReleaseSubject:
    return ReleaseSubject(store=bench.store.uri, model=MODEL, release=plan.release, parts=bench.description())


def run(bench: Bench, waiting: ReleaseSubject, *, polls: int = 1_000):
    lines: list[str] = []
    for _ in range(polls):
        poll = waiting.poll()
        lines += poll.lines
        if poll.settled is not None:
            return lines, poll.settled
        bench.serving.sleep(POLL_S)
    return lines, None


class TestLog:
    def test_tells_the_release_from_start_to_end(self, bench):
        plan = bench.plan(champion=bench.crown())
        lines, settled = run(bench, subject(bench, plan))
        text = "\n".join(lines)
        assert "[1] started as release number 1 of bot" in text
        assert "step 1 of 3: 5 % of the traffic goes to v2" in text
        assert "step 2 passed" in text
        assert "v2 is champion (ledger epoch 2, sha256 " in text
        status = next(line for line in lines if line.startswith("step 2 of 3, 25 %"))
        assert "requests met v2 | errors: 0/" in status
        assert "harm" in status
        assert "of 40" in status, "two guardrails share alpha 0.05"
        assert "health" in status
        assert "step 3" in status
        assert settled["outcome"] == "promoted"

    def test_numbers_are_never_missing_and_at_most_the_last_lines_show_twice(self, bench):
        plan = bench.plan(champion=bench.crown())
        shown: list[str] = []
        settled = None
        while settled is None:
            lines, settled = run(bench, subject(bench, plan), polls=3)  # each triggerer dies after three polls
            shown += [line for line in lines if line.startswith("[")]
        numbers = [int(line[1 : line.index("]")]) for line in shown]
        told = {event.number for event in Journal(bench.store, plan.directory).after(0) if event.type != "observed"}
        assert set(numbers) == told
        assert max(Counter(numbers).values()) <= 2


class TestSettlement:
    def test_of_a_promotion(self, bench):
        plan = bench.plan(champion=bench.crown())
        _, settled = run(bench, subject(bench, plan))
        assert (settled["champion_version"], settled["previous"], settled["epoch"]) == (2, 1, 2)
        assert settled["exposed_requests"] > 0
        assert len(canonical_json(settled)) < 2_000

    def test_of_a_rollback_counts_who_met_the_candidate(self, bench):
        bench.serving.configure(longest_s=12.0)
        plan = bench.plan(champion=bench.crown())
        bench.serving.behave(plan.candidate, Behaviour(errors=0.6))
        _, settled = run(bench, subject(bench, plan))
        assert (settled["outcome"], settled["cause"], settled["champion_version"]) == ("rolled_back", "harm", 1)
        bench.serving.sleep(60)
        met = [fact for fact in bench.serving.observations(plan.since).requests if fact.variant == "canary"]
        assert settled["exposed_requests"] == len(met), "those under way when it was rolled back are counted too"
        assert settled["exposed_users"] == len({fact.unit for fact in met})
        assert settled["exposed_tokens"] == sum(fact.tokens or 0 for fact in met)
        assert settled["canary_cost"] == 0.0, "nothing has a price"

    def test_asks_and_then_carries_the_answer_out(self, bench):
        plan = bench.plan(champion=bench.crown(), deadline_s=60, on_deadline=OnDeadline.ASK)
        bench.serving.configure(rate=0.001)
        _, settled = run(bench, subject(bench, plan))
        assert settled["status"] == "asking"
        assert "inconclusive" in settled["reason"]
        again = subject(bench, plan)
        again.controller.answer("promote", by="ada")
        _, settled = run(bench, again)
        assert settled["outcome"] == "promoted"


class TestTrouble:
    def test_a_gateway_that_is_down_is_the_trigger_s_to_wait_for(self, bench):
        waiting = subject(bench, bench.plan(champion=bench.crown()))
        waiting.poll()
        bench.serving.configure(gateway_down=True)
        with pytest.raises(GatewayUnavailable):
            waiting.poll()

    def test_cancel_aborts_and_polls_do_nothing_after_it(self, bench):
        plan = bench.plan(champion=bench.crown())
        waiting = subject(bench, plan)
        waiting.poll()
        waiting.cancel("its task is failed")
        assert waiting.poll().lines == []
        lines, settled = run(bench, subject(bench, plan))
        assert settled["outcome"] == "aborted"
        assert settled["reason"] == "its task is failed"
        assert "rolling back (abort): its task is failed" in "\n".join(lines)
        assert bench.serving.status().canary is None
