from __future__ import annotations

import re
import threading
from dataclasses import replace

import pytest

from genai_operators.exceptions import GatewayUnavailable, RegistryUnavailable, SignatureInvalid, UnsafeWeights
from genai_operators.release.canary import Controller
from genai_operators.release.decision import PROMOTE, ROLL_BACK, decide
from genai_operators.release.journal import EventType, Journal, JournalCorrupt, Turns
from genai_operators.release.ledger import Action
from genai_operators.release.narrate import describe_plan
from genai_operators.release.plan import GuardrailPlan, ReleasePlan, Step
from genai_operators.release.progress import Cause, Phase, Progress
from genai_operators.release.starting import Intent, freeze_plan
from genai_operators.serving.contract import ServeOptions
from genai_operators.spec.canary import Canary, OnDeadline
from tests.fakes.releases import MODEL, OWNER, POLL_S, Bench, deployment
from tests.fakes.serving import Behaviour

EVERY_STEP = ["started", "deployed", "ready", *("weight_set", "step_passed") * 2, "weight_set", "promoting", "promoted"]


def types(bench: Bench, plan: ReleasePlan) -> list[str]:
    events = Journal(bench.store, plan.directory).after(0)
    return [str(event.type) for event in events if event.type is not EventType.OBSERVED]


def until(bench: Bench, controller: Controller, phase: Phase, *, step: int = 0):
    """Tick until the release is in a phase (and at a step)."""
    for _ in range(500):
        progress = controller.tick()
        if progress.phase is phase and progress.step >= step:
            return progress
        assert not progress.phase.ended, progress.decision
        bench.serving.sleep(POLL_S)
    raise AssertionError(f"never {phase}")


def assert_champion_has_everything(bench: Bench, version: int) -> None:
    status = bench.serving.status()
    assert (status.champion.version, status.canary, status.percent) == (version, None, 0.0)
    assert bench.ledger.champion().version == version


class TestGoodCandidate:
    def test_goes_through_every_step_once_and_becomes_champion_everywhere(self, bench):
        plan = bench.plan(champion=bench.crown())
        progress = bench.settle(bench.controller(plan))
        assert progress.phase is Phase.PROMOTED
        assert types(bench, plan) == EVERY_STEP
        assert bench.serving.weights() == [0.0, 5.0, 25.0, 50.0, 0.0]
        assert_champion_has_everything(bench, 2)
        assert bench.aliases.champion(MODEL) == 2

    def test_ledger_says_who_why_and_on_what(self, bench):
        plan = bench.plan(champion=bench.crown(), evidence={"model": "file:///m", "dataset": "file:///d"})
        bench.settle(bench.controller(plan))
        entry = bench.ledger.champion()
        assert (entry.action, entry.version, entry.digest, entry.actor) == (
            Action.PROMOTE,
            2,
            plan.candidate.digest,
            "bot__retrain/manual__1/release",
        )
        assert "every guardrail is proved acceptable" in entry.reason
        assert entry.evidence["model"] == "file:///m"
        assert entry.evidence["release"] == plan.release
        assert entry.evidence["runtime"] == "standard"

    def test_each_step_kept_its_soak_and_its_count(self, bench):
        plan = bench.plan(
            champion=bench.crown(),
            steps=(
                Step(percent=5, minimum_soak_s=60, minimum_requests=1),
                Step(percent=50, minimum_soak_s=1, minimum_requests=300),
            ),
        )
        progress = bench.settle(bench.controller(plan))
        events = [event for event in progress.events if event.type is not EventType.OBSERVED]
        by_type = [(str(event.type), event.at, event.data) for event in events]
        set_at = next(at for name, at, _ in by_type if name == "weight_set")
        passed_at, passed = next((at, data) for name, at, data in by_type if name == "step_passed")
        assert passed_at - set_at >= 60
        assert passed["requests"] >= 1
        assert progress.on_step >= 300


class TestBadCandidate:
    @pytest.mark.parametrize(
        ("behaviour", "culprit"), [(Behaviour(errors=0.5), "errors"), (Behaviour(invalid=0.6), "invalid_output")]
    )
    def test_is_rolled_back_at_the_first_step_and_the_champion_never_changes(self, bench, behaviour, culprit):
        plan = bench.plan(champion=bench.crown())
        bench.serving.behave(plan.candidate, behaviour)
        progress = bench.settle(bench.controller(plan))
        assert (progress.phase, progress.decision["cause"]) == (Phase.ROLLED_BACK, Cause.HARM)
        assert "harm proved at request" in progress.decision["reason"]
        assert culprit in progress.decision["reason"]
        assert bench.serving.weights() == [0.0, 5.0, 0.0]
        assert_champion_has_everything(bench, 1)
        assert bench.aliases.champion(MODEL) == 1
        assert 0 < progress.evidence.exposure.requests < 60

    def test_answers_that_decline_are_harm_where_the_file_asks(self, bench):
        guardrails = (GuardrailPlan(name="errors", ceiling=0.05), GuardrailPlan(name="refusal", ceiling=0.05))
        plan = bench.plan(champion=bench.crown(), guardrails=guardrails)
        bench.serving.behave(plan.candidate, Behaviour(refused=0.6))
        progress = bench.settle(bench.controller(plan))
        assert (progress.phase, progress.decision["cause"]) == (Phase.ROLLED_BACK, Cause.HARM)
        assert "refusal" in progress.decision["reason"]

    def test_bad_answers_show_in_the_users_feedback(self, bench):
        guardrails = (GuardrailPlan(name="errors", ceiling=0.05), GuardrailPlan(name="negative_feedback", ceiling=0.1))
        plan = bench.plan(champion=bench.crown(), guardrails=guardrails)
        bench.serving.behave(plan.candidate, Behaviour(wrong=0.8))
        progress = bench.settle(bench.controller(plan))
        assert progress.decision["cause"] == Cause.HARM
        assert "negative_feedback" in progress.decision["reason"]

    def test_late_first_tokens_count_against_the_limit_of_the_plan(self, bench):
        guardrails = (GuardrailPlan(name="slow_first_token", ceiling=0.1, limit_ms=500.0),)
        plan = bench.plan(champion=bench.crown(), guardrails=guardrails)
        bench.serving.behave(plan.candidate, Behaviour(slow=0.7))
        assert bench.settle(bench.controller(plan)).decision["cause"] == Cause.HARM

    def test_late_first_tokens_count_against_the_champions_own_times(self, bench):
        champion = bench.crown()
        bench.serving.sleep(60)
        intent = Intent(
            model=MODEL,
            owner=OWNER,
            candidate=deployment(2),
            champion=champion,
            ledger_epoch=bench.ledger.epoch(),
            canary=Canary.model_validate({"guardrails": {"slow_first_token": {}}}),
            serve=ServeOptions(),
        )
        plan = freeze_plan(intent, store=bench.store, serving=bench.serving, clock=bench.serving.clock)
        (slow,) = [one for one in plan.guardrails if one.judged_as == "slow_first_token"]
        assert (slow.name, slow.limit_ms) == ("slow_first_token_above_p90", 100.0), "300 requests tell no p99"
        assert "slow_first_token_above_p90 below 2 x champion or 20.00% (bad: longer than 100 ms)" in " ".join(
            describe_plan(plan)
        )
        bench.serving.behave(plan.candidate, Behaviour(slow=0.7))
        progress = bench.settle(bench.controller(plan))
        assert progress.decision["cause"] == Cause.HARM
        assert slow.name in progress.decision["reason"]
        assert freeze_plan(intent, store=bench.store, serving=bench.serving, clock=bench.serving.clock) == plan


class TestFirstVersion:
    def test_is_deployed_and_promoted_without_a_canary(self, bench):
        plan = bench.plan(candidate=1)
        progress = bench.settle(bench.controller(plan))
        assert progress.phase is Phase.PROMOTED
        assert types(bench, plan) == ["started", "deployed", "promoting", "promoted"]
        assert_champion_has_everything(bench, 1)
        assert bench.serving.calls("set_weight") == []

    def test_a_server_that_dies_leaves_nothing_behind(self, bench):
        plan = bench.plan(candidate=1)
        bench.serving.behave(plan.candidate, Behaviour(dead=True))
        progress = bench.settle(bench.controller(plan))
        assert (progress.phase, progress.decision["cause"]) == (Phase.ROLLED_BACK, Cause.SERVING)
        assert "out of memory" in progress.decision["reason"]
        assert bench.serving.status().champion is None
        assert bench.ledger.entries() == []


class TestSilence:
    def run(self, bench: Bench, on_deadline: OnDeadline, **changes):
        plan = bench.plan(champion=bench.crown(), on_deadline=on_deadline, deadline_s=120, **changes)
        return plan, bench.controller(plan)

    def no_traffic(self, bench: Bench) -> None:
        bench.serving.configure(rate=0.001)

    def test_never_promotes_but_rolls_back_at_the_deadline(self, bench):
        _plan, controller = self.run(bench, OnDeadline.ROLL_BACK)
        self.no_traffic(bench)
        progress = bench.settle(controller)
        assert (progress.phase, progress.decision["cause"]) == (Phase.ROLLED_BACK, Cause.DEADLINE)
        assert "inconclusive at the deadline" in progress.decision["reason"]
        assert_champion_has_everything(bench, 1)

    def test_no_harm_through_every_step_is_no_proof_of_health(self, bench):
        steps = tuple(Step(percent=percent, minimum_soak_s=10, minimum_requests=1) for percent in (5.0, 50.0))
        bench.serving.configure(rate=0.2)
        plan = bench.plan(champion=bench.crown(), steps=steps, deadline_s=1_000)
        progress = bench.settle(bench.controller(plan))
        assert progress.is_last_step
        assert progress.on_step >= 1
        assert progress.decision["cause"] == Cause.DEADLINE
        assert "not yet proved acceptable" in progress.decision["reason"]

    def test_hold_stays_at_its_share_and_promotes_when_health_is_proved_after_all(self, bench):
        plan, controller = self.run(bench, OnDeadline.HOLD)
        self.no_traffic(bench)
        for _ in range(100):
            progress = controller.tick()
            bench.serving.sleep(POLL_S)
        assert (progress.phase, progress.held, progress.percent) == (Phase.OBSERVING, True, 5.0)
        bench.serving.configure(rate=20.0)
        assert bench.settle(controller).phase is Phase.PROMOTED
        assert types(bench, plan).count("held") == 1

    def test_hold_still_rolls_back_harm(self, bench):
        plan, controller = self.run(bench, OnDeadline.HOLD)
        bench.serving.behave(plan.candidate, Behaviour(errors=0.6))
        self.no_traffic(bench)
        for _ in range(100):
            controller.tick()
            bench.serving.sleep(POLL_S)
        bench.serving.configure(rate=20.0)
        assert bench.settle(controller).decision["cause"] == Cause.HARM

    @pytest.mark.parametrize(("answer", "phase"), [(PROMOTE, Phase.PROMOTED), (ROLL_BACK, Phase.ROLLED_BACK)])
    def test_ask_takes_the_canary_out_of_traffic_and_does_what_the_person_says(self, bench, answer, phase):
        _plan, controller = self.run(bench, OnDeadline.ASK)
        self.no_traffic(bench)
        until(bench, controller, Phase.ASKING)
        controller.tick()
        assert bench.serving.status().percent == 0.0
        controller.answer(answer, by="ada")
        controller.answer(PROMOTE if answer == ROLL_BACK else ROLL_BACK, by="too late")
        progress = bench.settle(controller)
        assert progress.phase is phase
        assert "ada decided so" in progress.decision["reason"]
        assert_champion_has_everything(bench, 2 if phase is Phase.PROMOTED else 1)


#: Nothing can prove it within a release of these tests.
NEVER_HEALTHY = (GuardrailPlan(name="errors", margin=1.01, ceiling=0.0001),)


def units_of_canary(bench: Bench, plan: ReleasePlan) -> set[str]:
    facts = bench.serving.observations(plan.since).requests
    return {fact.unit for fact in facts if fact.variant == "canary"}


class TestBlastRadius:
    @pytest.mark.parametrize(("budget", "what"), [({"blast_requests": 30}, "requests"), ({"blast_users": 20}, "users")])
    def test_is_kept_whatever_the_statistics_say(self, bench, budget, what):
        plan = bench.plan(champion=bench.crown(), **budget)
        progress = bench.settle(bench.controller(plan))
        assert progress.decision["cause"] == Cause.BLAST_RADIUS
        assert what in progress.decision["reason"]
        limit = next(iter(budget.values()))
        used = getattr(progress.evidence.exposure, what)
        assert limit <= used < limit + 20, "it stops at the first look after the budget"
        assert_champion_has_everything(bench, 1)

    def test_tokens_count_as_the_canary_generates_them(self, bench):
        plan = bench.plan(champion=bench.crown(), blast_tokens=360)
        progress = bench.settle(bench.controller(plan))
        assert progress.decision["cause"] == Cause.BLAST_RADIUS
        assert re.search(r"before .* promoted: tokens \d+ of 360", progress.decision["reason"])
        assert 360 <= progress.evidence.exposure.tokens < 360 + 30 * 12
        assert_champion_has_everything(bench, 1)

    def test_money_for_tokens_is_a_budget(self, bench):
        # 12 tokens a request at 1 per thousand: 0.24 is twenty requests.
        plan = bench.plan(champion=bench.crown(), blast_cost=0.24, cost_per_1k_tokens=1.0)
        progress = bench.settle(bench.controller(plan))
        assert progress.decision["cause"] == Cause.BLAST_RADIUS
        assert 20 <= progress.evidence.exposure.requests < 40
        assert progress.used(now=0.0).cost == pytest.approx(progress.evidence.exposure.tokens / 1000)
        assert any("cost at most 0.24 of money" in line for line in describe_plan(plan))

    def test_a_server_that_waits_for_traffic_costs_too(self, bench):
        plan = bench.plan(champion=bench.crown(), blast_cost=1.0, cost_per_hour=36.0, deadline_s=3_600.0)
        bench.serving.configure(rate=0.001)
        progress = bench.settle(bench.controller(plan))
        assert progress.decision["cause"] == Cause.BLAST_RADIUS
        spent = progress.used(now=progress.ended_at).cost
        assert 1.0 <= spent < 1.1, "a hundred seconds of it, and the last look"
        assert progress.evidence.exposure.requests == 0

    def test_many_users_are_counted_by_their_upper_bound(self, bench):
        plan = bench.plan(champion=bench.crown(), blast_users=300, guardrails=NEVER_HEALTHY)
        progress = bench.settle(bench.controller(plan))
        assert progress.decision["cause"] == Cause.BLAST_RADIUS
        used = progress.used(now=progress.ended_at)
        assert used.users_at_most >= 300
        assert 200 < len(units_of_canary(bench, plan)) < 285, "an estimate alone would let in some more"

    def test_a_proof_that_comes_with_the_last_allowed_request_comes_too_late(self, bench):
        """Between two looks the budget was used up and health was proved: the budget is kept."""
        plan = bench.plan(champion=bench.crown())
        whole = bench.settle(bench.controller(plan))
        assert whole.phase is Phase.PROMOTED
        used = whole.evidence.exposure.requests
        spent = replace(whole, plan=plan.model_copy(update={"blast_requests": used}), phase=Phase.OBSERVING)
        decided = decide(spent, now=whole.ended_at)
        assert (decided.type, decided.data["cause"]) == (EventType.ROLLING_BACK, Cause.BLAST_RADIUS)
        left = replace(whole, plan=plan.model_copy(update={"blast_requests": used + 1}), phase=Phase.OBSERVING)
        assert decide(left, now=whole.ended_at).type is EventType.PROMOTING

    def test_a_candidate_that_is_proved_healthy_by_then_is_promoted(self, bench):
        plan = bench.plan(champion=bench.crown(), blast_requests=10_000)
        assert bench.settle(bench.controller(plan)).phase is Phase.PROMOTED


class TestPlanOfAnOlderVersion:
    """A release that was frozen before an upgrade goes on after it, by what was frozen."""

    def old(self, bench, plan):
        """The record as version 1 wrote it."""
        path = f"{plan.directory}/plan.json"
        record = bench.store.get_json(path)
        record["version"] = 1
        for name in ("blast_tokens", "blast_cost", "cost_per_hour", "cost_per_1k_tokens"):
            del record[name]
        del record["baseline"]["limits_ms"]
        for guardrail in record["guardrails"]:
            del guardrail["kind"]
        bench.store.put_json(path, record)

    def test_a_live_release_goes_on(self, bench):
        plan = bench.plan(champion=bench.crown())
        until(bench, bench.controller(plan), Phase.OBSERVING, step=1)
        self.old(bench, plan)
        loaded = ReleasePlan.load(bench.store, MODEL, plan.release)
        assert loaded.version == 1
        assert loaded.model_copy(update={"version": plan.version}) == plan
        assert bench.settle(bench.controller(loaded)).phase is Phase.PROMOTED

    def test_its_blast_radius_still_holds(self, bench):
        plan = bench.plan(champion=bench.crown(), blast_requests=30)
        self.old(bench, plan)
        loaded = ReleasePlan.load(bench.store, MODEL, plan.release)
        assert bench.settle(bench.controller(loaded)).decision["cause"] == Cause.BLAST_RADIUS

    def test_one_of_a_later_version_is_refused(self, bench):
        plan = bench.plan(champion=bench.crown())
        path = f"{plan.directory}/plan.json"
        bench.store.put_json(path, {**bench.store.get_json(path), "version": 3})
        with pytest.raises(ValueError, match="release plan version 3"):
            ReleasePlan.load(bench.store, MODEL, plan.release)


class TestBrokenSplit:
    def test_holds_the_step_and_never_promotes(self, bench):
        plan = bench.plan(champion=bench.crown(), deadline_s=600)
        bench.serving.configure(sends={"5.0": 20.0})
        progress = bench.settle(bench.controller(plan))
        assert progress.decision["cause"] == Cause.DEADLINE
        assert "the split is not the asked one" in progress.decision["reason"]
        assert bench.serving.weights() == [0.0, 5.0, 0.0]

    def test_identical_arms_are_not_called_harmful_for_it(self, bench):
        """Twice the share means twice the failures; only the asked share makes that look like harm."""
        champion = bench.crown()
        plan = bench.plan(champion=champion, deadline_s=600)
        for one in (champion, plan.candidate):
            bench.serving.behave(one, Behaviour(errors=0.2))
        bench.serving.configure(sends={"5.0": 12.0})
        progress = bench.settle(bench.controller(plan))
        assert progress.decision["cause"] == Cause.DEADLINE
        assert "the split is not the asked one" in progress.decision["reason"]

    def test_its_blast_radius_still_holds(self, bench):
        plan = bench.plan(champion=bench.crown(), blast_requests=300)
        bench.serving.configure(sends={"5.0": 20.0})
        progress = bench.settle(bench.controller(plan))
        assert progress.decision["cause"] == Cause.BLAST_RADIUS
        assert not progress.evidence.standing().split_intact


class TestServers:
    def test_a_candidate_that_is_never_ready_is_given_up(self, bench):
        plan = bench.plan(champion=bench.crown(), ready_timeout_s=60)
        bench.serving.behave(plan.candidate, Behaviour(ready_after_s=1e9))
        progress = bench.settle(bench.controller(plan))
        assert progress.decision["cause"] == Cause.SERVING
        assert "did not answer within 60 s" in progress.decision["reason"]
        assert bench.serving.weights() == [0.0]

    def test_a_candidate_whose_server_dies_for_good_is_rolled_back_with_its_last_words(self, bench):
        plan = bench.plan(champion=bench.crown())
        controller = bench.controller(plan)
        until(bench, controller, Phase.OBSERVING)
        bench.serving.behave(plan.candidate, Behaviour(dead=True))
        progress = bench.settle(controller)
        assert progress.decision["cause"] == Cause.SERVING
        assert "out of memory" in progress.decision["reason"]
        assert_champion_has_everything(bench, 1)

    def test_a_canary_that_somebody_removed_is_rolled_back(self, bench):
        controller = bench.controller(bench.plan(champion=bench.crown()))
        until(bench, controller, Phase.OBSERVING)
        bench.serving.rollback()
        assert "changed by hand" in bench.settle(controller).decision["reason"]

    def test_a_weight_that_somebody_changed_is_put_right(self, bench):
        controller = bench.controller(bench.plan(champion=bench.crown()))
        until(bench, controller, Phase.OBSERVING)
        bench.serving.set_weight(80.0, release="a late controller")
        controller.tick()
        assert bench.serving.status().percent == 5.0

    def test_a_champion_that_the_gateway_lost_is_deployed_again_first(self, bench):
        champion = bench.crown()
        bench.serving.retire("champion")
        bench.settle(bench.controller(bench.plan(champion=champion)))
        assert ["deploy", champion.id, "champion"] in bench.serving.calls("deploy")

    def test_a_gateway_that_is_down_moves_nothing_and_the_release_goes_on_after_it(self, bench):
        plan = bench.plan(champion=bench.crown())
        controller = bench.controller(plan)
        until(bench, controller, Phase.OBSERVING)
        bench.serving.configure(gateway_down=True)
        before = types(bench, plan)
        for _ in range(3):
            with pytest.raises(GatewayUnavailable):
                controller.tick()
        assert types(bench, plan) == before
        bench.serving.configure(gateway_down=False)
        assert bench.settle(controller).phase is Phase.PROMOTED
        assert types(bench, plan) == EVERY_STEP


class TestVerification:
    @pytest.mark.parametrize("error", [SignatureInvalid("not signed"), UnsafeWeights("a pickle")])
    def test_nothing_unverified_is_started(self, bench, error):
        def refuse(_deployment):
            raise error

        plan = bench.plan(champion=bench.crown())
        controller = Controller(plan, bench.parts(verify=refuse))
        progress = bench.settle(controller)
        assert (progress.decision["cause"], progress.decision["reason"]) == (Cause.VERIFICATION, str(error))
        assert ["deploy", plan.candidate.id, "canary"] not in bench.serving.calls("deploy")
        assert_champion_has_everything(bench, 1)

    def test_a_broken_ledger_promotes_nothing(self, bench):
        plan = bench.plan(champion=bench.crown())
        controller = bench.controller(plan)
        until(bench, controller, Phase.OBSERVING)
        record = bench.store.get_json(f"ledger/{MODEL}/00000001.json")
        bench.store.put_json(f"ledger/{MODEL}/00000001.json", {**record, "epoch": 7})
        progress = bench.settle(controller)
        assert progress.decision["cause"] == Cause.CONFLICT
        assert "00000001.json" in progress.decision["reason"]
        assert bench.serving.status().champion.version == 1


class TestAbort:
    @pytest.mark.parametrize("phase", [Phase.PLANNED, Phase.WARMING_UP, Phase.OBSERVING])
    def test_returns_everything_to_the_champion_from_any_phase(self, bench, phase):
        plan = bench.plan(champion=bench.crown())
        controller = bench.controller(plan)
        if phase is not Phase.PLANNED:
            until(bench, controller, phase)
        progress = controller.cancel("marked failed")
        assert (progress.phase, progress.decision["reason"]) == (Phase.ABORTED, "marked failed")
        assert_champion_has_everything(bench, 1)

    def test_by_one_controller_stops_the_other(self, bench):
        plan = bench.plan(champion=bench.crown())
        controller = bench.controller(plan)
        until(bench, controller, Phase.OBSERVING, step=1)
        bench.controller(plan, name="other").cancel("marked failed")
        assert controller.tick().phase is Phase.ABORTED
        assert types(bench, plan).count("rolling_back") == 1

    def test_of_a_release_that_never_had_its_turn_touches_nobody_else_s_canary(self, bench):
        champion = bench.crown()
        first = bench.plan(champion=champion)
        until(bench, bench.controller(first), Phase.OBSERVING)
        second = bench.plan(candidate=3, champion=champion)
        assert bench.controller(second).cancel("not wanted").phase is Phase.ABORTED
        assert bench.serving.status().canary == first.candidate

    def test_comes_too_late_once_the_promotion_is_decided(self, bench):
        plan = bench.plan(champion=bench.crown())
        controller = bench.controller(plan)
        crash_before(bench, controller, "promote")
        assert bench.controller(plan).cancel("marked failed").phase is Phase.PROMOTED
        assert_champion_has_everything(bench, 2)

    def test_the_same_run_finds_its_aborted_release_and_the_next_run_makes_a_new_one(self, bench):
        champion = bench.crown()
        plan = bench.plan(champion=champion)
        bench.controller(plan).cancel("marked failed")
        assert bench.plan(champion=champion).release == plan.release
        assert bench.settle(bench.controller(bench.plan(champion=champion))).phase is Phase.ABORTED
        again = bench.plan(champion=champion, owner=OWNER.__class__(**{**OWNER.to_json(), "run_id": "manual__2"}))
        assert again.release != plan.release
        assert bench.settle(bench.controller(again)).phase is Phase.PROMOTED


def crash_before(bench: Bench, controller: Controller, call: str) -> None:
    """Drive a release up to a call of the serving target, and die there."""

    class Crash(BaseException):
        pass

    def crash(*_args, **_more):
        raise Crash

    serving = controller._parts.serving
    broken = type(serving)(bench.folder / "serving")
    setattr(broken, call, crash)
    dying = Controller(controller.plan, bench.parts(serving=broken))
    with pytest.raises(Crash):
        bench.settle(dying)


class TestPromotion:
    def test_a_crash_between_ledger_and_gateway_is_finished_by_the_next_controller(self, bench):
        plan = bench.plan(champion=bench.crown())
        controller = bench.controller(plan)
        crash_before(bench, controller, "promote")
        assert bench.ledger.champion().version == 2
        assert bench.serving.status().champion.version == 1
        assert bench.settle(bench.controller(plan)).phase is Phase.PROMOTED
        assert_champion_has_everything(bench, 2)
        assert len(bench.ledger.verify()) == 2, "the ledger has one entry for it, not two"

    def test_a_registry_that_is_away_delays_the_alias_only(self, bench):
        class Away:
            def set_champion(self, model, version):
                raise RegistryUnavailable("MLflow does not answer")

        plan = bench.plan(champion=bench.crown())
        progress = bench.settle(Controller(plan, bench.parts(aliases=Away())))
        assert progress.phase is Phase.PROMOTED
        assert progress.events[-1].data["alias"] == "pending"

    def test_a_champion_that_changed_meanwhile_makes_it_give_way(self, bench):
        plan = bench.plan(champion=bench.crown())
        controller = bench.controller(plan)
        until(bench, controller, Phase.OBSERVING)
        bench.ledger.append(Action.PROMOTE, 9, "digest-9", actor="ada", reason="by hand", evidence={}, expected_epoch=1)
        progress = bench.settle(controller)
        assert (progress.phase, progress.decision["cause"]) == (Phase.ROLLED_BACK, Cause.CONFLICT)
        assert "expected epoch 1, found epoch 2: promote v9 by ada" in progress.decision["reason"]
        assert bench.ledger.champion().version == 9
        assert bench.serving.status().canary is None

    def test_a_plan_that_is_outdated_when_its_turn_comes_is_not_started(self, bench):
        plan = bench.plan(champion=bench.crown())
        bench.ledger.append(Action.PROMOTE, 9, "digest-9", actor="ada", reason="by hand", evidence={}, expected_epoch=1)
        progress = bench.settle(bench.controller(plan))
        assert progress.decision["cause"] == Cause.CONFLICT
        assert bench.serving.calls("set_weight") == []


class TestSeveralControllers:
    def test_ticking_in_turn_take_every_step_once(self, bench):
        plan = bench.plan(champion=bench.crown())
        controllers = [bench.controller(plan, name=name) for name in "abc"]
        for number in range(2_000):
            progress = controllers[number % 3].tick()
            if progress.phase.ended:
                break
            bench.serving.sleep(POLL_S)
        assert types(bench, plan) == EVERY_STEP
        assert bench.serving.weights() == [0.0, 5.0, 25.0, 50.0, 0.0]

    def test_racing_in_threads_agree_on_one_history(self, bench):
        plan = bench.plan(champion=bench.crown())
        ended: list[Progress] = []

        def drive(name: str) -> None:
            controller = bench.controller(plan, name=name)
            while not controller.tick().phase.ended:
                bench.serving.sleep(POLL_S / 3)
            ended.append(controller.progress)

        threads = [threading.Thread(target=drive, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert types(bench, plan) == EVERY_STEP
        assert bench.serving.weights() == [0.0, 5.0, 25.0, 50.0, 0.0]
        states = [progress.evidence.states_to_json() for progress in ended]
        assert len(states) == 3
        assert states[0] == states[1] == states[2]

    def test_one_that_slept_through_two_steps_changes_nothing(self, bench):
        plan = bench.plan(champion=bench.crown())
        sleeper = bench.controller(plan, name="sleeper")
        until(bench, sleeper, Phase.SHIFTING) if sleeper.tick().phase is Phase.SHIFTING else None
        until(bench, bench.controller(plan, name="awake"), Phase.OBSERVING, step=2)
        assert sleeper.tick().step == 2
        assert bench.serving.weights() == [0.0, 5.0, 25.0, 50.0]

    def test_one_that_wakes_in_the_middle_of_an_action_is_put_right(self, bench):
        plan = bench.plan(champion=bench.crown())
        awake = bench.controller(plan, name="awake")
        until(bench, awake, Phase.OBSERVING, step=2)
        bench.serving.set_weight(25.0, release=plan.release)
        assert not Journal(bench.store, plan.directory).append(awake.progress.events[-1])
        awake.tick()
        assert bench.serving.status().percent == 50.0


class TestTurns:
    def test_a_second_release_waits_for_the_first(self, bench):
        champion = bench.crown()
        first = bench.controller(bench.plan(champion=champion))
        until(bench, first, Phase.OBSERVING)
        second = bench.controller(bench.plan(candidate=3, champion=champion))
        for _ in range(3):
            assert second.tick().phase is Phase.PLANNED
        assert bench.serving.status().canary.version == 2
        bench.settle(first)
        assert bench.settle(second).decision["cause"] == Cause.CONFLICT, "its champion is no longer champion"

    def test_a_turn_is_taken_by_one_of_many(self, bench):
        turns = Turns(bench.store, MODEL)
        assert [turns.take(name, at=0.0) for name in ("a", "b", "a")] == [1, None, 1]
        assert turns.live() == "a"
        assert turns.all() == ["a"]


class TestFrozenPlan:
    def test_a_second_freeze_changes_nothing(self, bench):
        champion = bench.crown()
        plan = bench.plan(champion=champion)
        again = bench.plan(champion=champion, alpha=0.5, deadline_s=1.0)
        assert again == plan

    def test_survives_the_store_exactly(self, bench):
        plan = bench.plan(champion=bench.crown())
        assert ReleasePlan.load(bench.store, MODEL, plan.release) == plan


class TestJournal:
    def test_an_event_that_does_not_fit_is_refused(self, bench):
        plan = bench.plan(champion=bench.crown())
        progress = bench.settle(bench.controller(plan))
        fresh = Progress.begin(plan)
        fresh.apply(progress.events[0])
        with pytest.raises(JournalCorrupt, match="expected number 2"):
            fresh.apply(progress.events[2])
        promoted = progress.events[-1]
        with pytest.raises(JournalCorrupt, match="cannot happen while the release is deploying"):
            fresh.apply(type(promoted)(**{**vars(promoted), "number": 2}))

    def test_an_event_that_cannot_be_read_is_named(self, bench):
        plan = bench.plan(champion=bench.crown())
        controller = bench.controller(plan)
        controller.tick()
        path = f"{plan.directory}/events/000002.json"
        bench.store.put_json(path, {**bench.store.get_json(path), "type": "of tomorrow"})
        with pytest.raises(JournalCorrupt, match=r"000002\.json cannot be read.*another version of this code"):
            bench.controller(plan).tick()

    def test_a_new_controller_stands_where_the_old_one_stood(self, bench):
        plan = bench.plan(champion=bench.crown())
        old = bench.controller(plan)
        until(bench, old, Phase.OBSERVING, step=1)
        new = bench.controller(plan)
        new.refresh()
        for name in ("number", "phase", "step", "step_since", "percent", "cursor", "on_step", "turn"):
            assert getattr(new.progress, name) == getattr(old.progress, name)
        assert new.progress.evidence.states_to_json() == old.progress.evidence.states_to_json()
        assert new.progress.evidence.exposure == old.progress.evidence.exposure
        assert deployment(2) == new.plan.candidate
