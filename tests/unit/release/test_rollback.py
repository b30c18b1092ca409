from __future__ import annotations

from typing import Any

import pytest

from genai_operators.exceptions import GateFailed, LedgerConflict
from genai_operators.release.ledger import Action
from genai_operators.release.progress import Phase
from genai_operators.release.rollback import RollbackSubject, pending_rollbacks
from tests.fakes.releases import MODEL, OWNER, POLL_S, Bench, deployment
from tests.fakes.serving import Behaviour
from tests.unit.release.test_canary import until

ROLLBACK_OWNER = OWNER.__class__(dag_id="bot__rollback", run_id="manual__7", task_id="rollback")


@pytest.fixture
def reigned(bench: Bench) -> Bench:
    """Version 1 was champion, 2 is."""
    plan = bench.plan(champion=bench.crown(), evidence={"model": "file:///two"})
    bench.settle(bench.controller(plan))
    return bench


def subject(bench: Bench, *, version: int = 1, epoch: int = 2, **changes: Any) -> RollbackSubject:
    arguments = {
        "store": bench.store.uri,
        "target": deployment(version).to_json(),
        "expected_epoch": epoch,
        "owner": ROLLBACK_OWNER.to_json(),
        "reason": "answers got worse",
        "serve": {},
        "ready_timeout_s": 60.0,
        "began_at": bench.serving.clock(),
        "parts": bench.description(),
        **changes,
    }
    return RollbackSubject(**arguments)


def run(bench: Bench, rollback: RollbackSubject):
    for _ in range(200):
        poll = rollback.poll()
        if poll.settled is not None:
            return poll.settled
        bench.serving.sleep(POLL_S)
    raise AssertionError("never settled")


class TestRollback:
    def test_gives_all_traffic_to_the_earlier_version_and_says_so_everywhere(self, reigned):
        settled = run(reigned, subject(reigned))
        assert (settled["outcome"], settled["champion_version"], settled["epoch"]) == ("rolled_back", 1, 3)
        assert settled["previous"] == 2
        assert reigned.serving.status().champion == deployment(1)
        assert reigned.serving.status().canary is None
        assert reigned.aliases.champion(MODEL) == 1
        entry = reigned.ledger.champion()
        assert (entry.action, entry.reason, entry.actor) == (
            Action.ROLLBACK,
            "answers got worse",
            "bot__rollback/manual__7/rollback",
        )
        assert list(pending_rollbacks(reigned.store, MODEL)) == []

    def test_the_champion_serves_until_the_earlier_one_answers(self, reigned):
        rollback = subject(reigned)
        rollback.poll()
        status = reigned.serving.status()
        assert (status.champion, status.canary, status.percent) == (deployment(2), deployment(1), 0.0)
        assert reigned.ledger.epoch() == 2

    def test_keeps_what_was_known_of_the_version(self, reigned):
        run(reigned, subject(reigned))
        run(reigned, subject(reigned, version=2, epoch=3, owner={**ROLLBACK_OWNER.to_json(), "run_id": "manual__8"}))
        assert reigned.ledger.champion().evidence["model"] == "file:///two"

    def test_is_instant_when_the_gateway_still_serves_it(self, reigned):
        reigned.serving.deploy(deployment(1), slot="canary")
        reigned.serving.promote()
        assert subject(reigned).poll().settled["champion_version"] == 1

    def test_a_repetition_finds_what_the_first_try_did(self, reigned):
        run(reigned, subject(reigned))
        assert run(reigned, subject(reigned))["epoch"] == 3
        assert reigned.ledger.epoch() == 3

    def test_stops_a_release_under_way_first(self, reigned):
        release = reigned.plan(candidate=3, champion=deployment(2))
        until(reigned, reigned.controller(release), Phase.OBSERVING)
        run(reigned, subject(reigned))
        assert reigned.controller(release).tick().phase is Phase.ABORTED
        assert reigned.serving.status().champion == deployment(1)


class TestRollbackThatCannotBe:
    def test_a_version_that_does_not_start_leaves_the_champion_alone(self, reigned):
        reigned.serving.behave(deployment(1), Behaviour(ready_after_s=1e9))
        with pytest.raises(GateFailed, match="did not answer within 60 s; the champion serves on"):
            run(reigned, subject(reigned))
        assert reigned.serving.status().champion == deployment(2)
        assert reigned.serving.status().canary is None
        assert reigned.ledger.epoch() == 2

    def test_a_promotion_meanwhile_is_a_conflict(self, reigned):
        rollback = subject(reigned)
        rollback.poll()
        reigned.ledger.append(
            Action.PROMOTE, 9, "digest-9", actor="ada", reason="by hand", evidence={}, expected_epoch=2
        )
        reigned.serving.sleep(60)
        with pytest.raises(LedgerConflict, match="promote v9 by ada"):
            rollback.poll()

    def test_a_cancelled_one_takes_its_server_away(self, reigned):
        rollback = subject(reigned)
        rollback.poll()
        rollback.cancel("its task is failed")
        assert reigned.serving.status().canary is None
        assert list(pending_rollbacks(reigned.store, MODEL)) == []
