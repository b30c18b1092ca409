from __future__ import annotations

import pytest

from genai_operators.exceptions import RegistryUnavailable
from genai_operators.release.ledger import Action
from genai_operators.release.progress import Phase
from genai_operators.release.reconcile import reconcile_releases
from genai_operators.release.rollback import PendingRollback
from tests.fakes.releases import MODEL, OWNER, POLL_S, Bench, Surroundings, deployment
from tests.fakes.serving import Behaviour
from tests.unit.release.test_canary import crash_before, until


def reconcile(bench: Bench, state: str | None = "deferred") -> list[str]:
    return reconcile_releases(bench.store, lambda _owner: state, Surroundings(bench))


class TestReleasesWithoutATask:
    @pytest.mark.parametrize("state", ["failed", "success", "skipped", "removed"])
    def test_are_aborted_and_the_champion_has_everything(self, bench, state):
        plan = bench.plan(champion=bench.crown())
        until(bench, bench.controller(plan), Phase.OBSERVING, step=1)
        lines = reconcile(bench, state)
        assert lines == [
            f"aborted release {plan.release} of bot v2: its task bot__retrain / manual__1 / release is {state}"
        ]
        status = bench.serving.status()
        assert (status.champion, status.canary, status.percent) == (deployment(1), None, 0.0)
        assert bench.store.exists(f"{plan.directory}/report.html")
        assert reconcile(bench, state) == []

    @pytest.mark.parametrize("state", ["deferred", "running", "up_for_retry", "scheduled", "awaiting_input", None])
    def test_a_living_task_is_left_alone_also_while_no_triggerer_lives(self, bench, state):
        plan = bench.plan(champion=bench.crown())
        until(bench, bench.controller(plan), Phase.OBSERVING)
        assert reconcile(bench, state) == []
        assert bench.serving.status().percent == 5.0

    def test_one_that_nobody_looks_at_is_driven_so_that_harm_is_noticed(self, bench):
        plan = bench.plan(champion=bench.crown())
        until(bench, bench.controller(plan), Phase.OBSERVING)
        bench.serving.behave(plan.candidate, Behaviour(errors=0.9))
        bench.serving.sleep(120)
        assert "drove release" in reconcile(bench, "deferred")[0]
        assert bench.serving.status().percent == 0.0
        assert bench.serving.status().canary is None

    def test_a_promotion_that_was_decided_is_finished(self, bench):
        plan = bench.plan(champion=bench.crown())
        crash_before(bench, bench.controller(plan), "promote")
        assert "finished release" in reconcile(bench, "failed")[0]
        assert bench.serving.status().champion == deployment(2)
        assert bench.aliases.champion(MODEL) == 2

    def test_one_that_only_took_its_turn_frees_it(self, bench):
        champion = bench.crown()
        plan = bench.plan(champion=champion)
        crash_before(bench, bench.controller(plan), "deploy")
        assert "aborted" in reconcile(bench, "failed")[0]
        later = bench.plan(candidate=3, champion=champion, ledger_epoch=1)
        assert bench.settle(bench.controller(later)).phase is Phase.PROMOTED


class TestTheLedgerIsTheTruth:
    def test_alias_and_gateway_follow_it_step_by_step(self, bench):
        bench.crown()
        bench.ledger.append(Action.PROMOTE, 5, "digest-5", actor="ada", reason="by hand", evidence={}, expected_epoch=1)
        said: list[str] = []
        for _ in range(4):
            said += reconcile(bench)
            bench.serving.sleep(POLL_S)
        assert said[0] == "moving the gateway from bot-v1-standard to bot-v5-standard, as the ledger says"
        assert "set the alias champion of bot to v5, as the ledger says" in said
        assert bench.serving.status().champion == deployment(5)
        assert reconcile(bench) == []

    def test_an_empty_gateway_gets_the_champion_back(self, bench):
        bench.crown()
        bench.serving.retire("champion")
        assert reconcile(bench) == ["moved the gateway from nothing to bot-v1-standard, as the ledger says"]

    def test_a_canary_without_a_release_is_removed(self, bench):
        bench.crown()
        bench.serving.deploy(deployment(2), slot="canary")
        bench.serving.set_weight(50.0, release="nobody")
        assert reconcile(bench) == ["removed bot-v2-standard from the gateway: no release is under way"]
        assert bench.serving.status().percent == 0.0

    def test_but_not_the_target_of_a_rollback_under_way(self, bench):
        bench.crown()
        bench.serving.deploy(deployment(2), slot="canary")
        PendingRollback(model=MODEL, owner=OWNER).remember(bench.store)
        assert reconcile(bench, "running") == []
        assert "removed" in reconcile(bench, "failed")[0]

    def test_a_model_in_trouble_does_not_keep_the_others_waiting(self, bench):
        class Away:
            def set_champion(self, model, version):
                raise RegistryUnavailable("MLflow does not answer")

        class WithoutRegistry(Surroundings):
            def parts(self, _model, _serve):
                return bench.parts(aliases=Away())

        bench.crown()
        bench.store.put("ledger/broken/00000001.json", b"{}")
        lines = reconcile_releases(bench.store, lambda _owner: None, WithoutRegistry(bench))
        assert lines[0] == f"{MODEL}: RegistryUnavailable: MLflow does not answer"
        assert lines[1].startswith("broken: LedgerCorrupt")

    def test_nothing_to_do_says_nothing(self, bench):
        assert reconcile(bench) == []
        bench.crown()
        assert reconcile(bench) == []
