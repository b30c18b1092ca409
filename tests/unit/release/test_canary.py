from __future__ import annotations

from pathlib import Path

import pytest

from genai_operators.release.journal import EventType, Journal
from genai_operators.release.progress import Cause, Phase
from tests.fakes.releases import MODEL, Bench, deployment
from tests.fakes.serving import Behaviour


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def types(bench: Bench, plan) -> list[str]:
    events = Journal(bench.store, plan.directory).after(0)
    return [str(event.type) for event in events if event.type is not EventType.OBSERVED]


class TestGoodCandidate:
    def test_goes_through_every_step_once_and_becomes_champion_everywhere(self, bench):
        plan = bench.plan(champion=bench.crown())
        progress = bench.settle(bench.controller(plan))
        assert progress.phase is Phase.PROMOTED
        assert types(bench, plan) == [
            "started",
            "deployed",
            "ready",
            *("weight_set", "step_passed") * 2,
            "weight_set",
            "promoting",
            "promoted",
        ]
        assert bench.serving.weights() == [0.0, 5.0, 25.0, 50.0, 0.0]
        assert bench.ledger.champion().version == 2
        assert bench.ledger.champion().evidence["release"] == plan.release
        assert bench.serving.status().champion.version == 2
        assert bench.serving.status().canary is None
        assert bench.aliases.champion(MODEL) == 2


class TestBadCandidate:
    def test_is_rolled_back_at_the_first_step_and_nothing_else_changes(self, bench):
        plan = bench.plan(champion=bench.crown())
        bench.serving.behave(plan.candidate, Behaviour(errors=0.5))
        progress = bench.settle(bench.controller(plan))
        assert (progress.phase, progress.decision["cause"]) == (Phase.ROLLED_BACK, Cause.HARM)
        assert "errors" in progress.decision["reason"]
        assert bench.serving.weights() == [0.0, 5.0, 0.0]
        assert bench.ledger.champion().version == 1
        assert bench.serving.status().champion == deployment(1)
        assert progress.evidence.exposure.requests > 0
