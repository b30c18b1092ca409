from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from genai_operators.decisions.sequential_latency import QUANTILES
from genai_operators.decisions.sequential_plan import MAXIMUM_GUARDRAILS
from genai_operators.release.evidence import Evidence
from genai_operators.release.facts import cause_of, judge, judge_feedback, pack, unpack
from genai_operators.release.guardrails import guardrail_plans, limit_notes, soak_notes, time_limits
from genai_operators.release.plan import GuardrailPlan, sequential_plans
from genai_operators.release.starting import Intent, freeze_plan, measure, notes, settle_seconds
from genai_operators.serving.contract import FeedbackFact, RequestFact, ServeOptions
from genai_operators.spec.canary import AUTO_LIMITS, MOST_COMPARISONS, Canary
from genai_operators.store import canonical_json
from tests.fakes.releases import OWNER, deployment
from tests.fakes.serving import Behaviour

GUARDRAILS = (
    GuardrailPlan(name="errors"),
    GuardrailPlan(name="invalid_output"),
    GuardrailPlan(name="slow_first_token", limit_ms=500.0),
    GuardrailPlan(name="negative_feedback"),
)


def request(number: int = 1, **changes: Any) -> RequestFact:
    arm = changes.pop("arm", "champion")
    arrived = changes.pop("arrived", 100.0 + number)
    fields = {
        "request_id": f"r{number}",
        "unit": f"u{number}",
        "arrived_at": arrived,
        "completed_at": arrived + changes.pop("seconds", 0.5),
        "variant": arm,
        "deployment": deployment(2 if arm == "canary" else 1).id,
        "propensity": 0.25,
        "route_version": 1,
        "assigned": True,
        "status": 200,
        "attempts": 1,
        "timed_out": False,
        "first_token_ms": 100.0,
        "max_gap_ms": 5.0,
        "tokens": 12,
        "duration_ms": 500.0,
        "valid_output": True,
        **changes,
    }
    return RequestFact(**fields)


def feedback(number: int = 1, *, rating: str = "wrong", at: float = 200.0) -> FeedbackFact:
    return FeedbackFact(request_id=f"r{number}", at=at, rating=rating, corrected=False)


@pytest.fixture
def evidence(bench) -> Evidence:
    return Evidence(bench.plan(champion=bench.crown(), guardrails=GUARDRAILS, settle_s=2.0))


def counts(evidence: Evidence, guardrail: str):
    return evidence.standing().evidence[guardrail].counts


class TestWhatIsBad:
    @pytest.mark.parametrize(
        ("fact", "expected"),
        [
            (request(), (0, 0, 0)),
            (request(status=500, first_token_ms=None, valid_output=None), (1, -1, -1)),
            (request(status=404, first_token_ms=None, valid_output=None), (1, -1, -1)),
            (request(status=499, first_token_ms=None, valid_output=None), (-1, -1, -1)),
            (request(attempts=2), (1, 0, 0)),
            (request(timed_out=True, status=504, first_token_ms=None, valid_output=None), (1, -1, 1)),
            (request(valid_output=False), (0, 1, 0)),
            (request(first_token_ms=501.0), (0, 0, 1)),
        ],
        ids=["good", "error", "refused", "client left", "retried", "timeout", "invalid", "slow"],
    )
    def test_is_told_by_the_facts_alone(self, fact, expected):
        assert tuple(judge(GUARDRAILS, fact).values()) == expected

    def test_feedback(self):
        assert judge_feedback(feedback(rating="wrong")) == 1
        assert judge_feedback(feedback(rating="right")) == 0
        assert judge_feedback(FeedbackFact(request_id="r", at=0.0, rating="right", corrected=True)) == 1

    def test_failures_of_one_outage_share_a_cause_and_a_model_s_own_do_not(self):
        down, own = request(status=503, attempts=0), request(status=500)
        assert cause_of(down) == deployment(1).id
        assert cause_of(own) is None
        assert cause_of(request()) is None


class TestWhatCounts:
    def test_only_requests_whose_arm_was_drawn(self, evidence):
        facts = [
            request(1, arm="canary"),
            request(2, assigned=False, arm="canary"),
            request(3, propensity=0.0),
            request(4, deployment="bot-v0-standard"),
            request(9, arrived=150.0),
        ]
        evidence.absorb(facts, [])
        assert (counts(evidence, "errors").canary, counts(evidence, "errors").champion) == (1, 0)
        assert evidence.exposure.requests == 1

    def test_one_request_on_an_arm_without_weight_breaks_the_split(self, evidence):
        evidence.absorb([request(n, propensity=0.0) for n in range(50)], [])
        assert evidence.standing().split_intact
        assert counts(evidence, "errors").champion == 0, "the champion alone is compared with nobody"
        tester = request(51, propensity=0.0, arm="canary", assigned=False)
        evidence.absorb([tester, request(52, propensity=0.0, arm="canary"), request(53, arrived=160.0)], [])
        assert evidence.states["requests"].split.impossible == 1
        assert not evidence.standing().split_intact

    def test_a_request_waits_until_slower_ones_have_ended_too(self, evidence):
        evidence.absorb([request(1, arrived=100.0), request(2, arrived=101.9)], [])
        assert counts(evidence, "errors").champion == 1, "102.4 - 2 s is the watermark"
        evidence.absorb([request(3, arrived=103.6)], [])
        assert counts(evidence, "errors").champion == 2

    def test_requests_are_judged_in_order_of_arrival_whatever_the_order_of_completion(self, evidence, bench):
        slow = request(1, arrived=100.0, seconds=1.5, arm="canary", status=500)
        fast = request(2, arrived=100.5, seconds=0.1, status=500)
        later = request(3, arrived=110.0)
        evidence.absorb([fast, slow, later], [])
        other = Evidence(evidence._plan)
        other.absorb([slow, fast], [])
        other.absorb([later], [])
        assert canonical_json(evidence.states_to_json()) == canonical_json(other.states_to_json())

    def test_a_straggler_still_counts(self, evidence):
        evidence.absorb([request(2, arrived=110.0), request(3, arrived=120.0)], [])
        evidence.absorb([request(1, arrived=100.0, seconds=25.0, status=500)], [])
        evidence.absorb([request(4, arrived=130.0)], [])
        assert counts(evidence, "errors").champion_bad == 1

    def test_exposure_counts_at_once_and_users_once(self, evidence):
        evidence.absorb([request(n, arm="canary", unit=f"u{n % 2}") for n in range(5)], [])
        assert (evidence.exposure.requests, evidence.exposure.users) == (5, 2)
        assert evidence.exposure.by_percent == {25.0: [0, 5]}


class TestFeedback:
    def test_is_joined_to_its_request_once_in_whatever_order_they_come(self, evidence):
        evidence.absorb([], [feedback(1, at=101.7)])
        evidence.absorb([request(1, arm="canary")], [])
        evidence.absorb([request(2)], [feedback(2), feedback(1), feedback(2, rating="right")])
        evidence.absorb([], [feedback(3)])
        found = counts(evidence, "negative_feedback")
        assert (found.canary, found.canary_bad, found.champion, found.champion_bad) == (1, 1, 1, 1)

    def test_does_not_count_for_the_split(self, evidence):
        evidence.absorb([request(n, arm="canary") for n in range(30)], [feedback(n) for n in range(30)])
        assert evidence.states["requests"].split.requests == evidence.states["requests"].requests
        assert evidence.states["feedback"].requests == 30

    def test_on_one_arm_alone_breaks_no_split_and_its_harm_stands(self, evidence):
        """Angry users of a bad candidate answer more often; that is no fault of the gateway."""
        facts = [request(n, arm="champion" if n % 20 else "canary", propensity=0.05) for n in range(600)]
        answers = [feedback(n, at=700.0 + n) for n in range(0, 600, 20)]
        evidence.absorb([*facts, request(999, arrived=1_500.0)], answers)
        standing = evidence.standing()
        assert standing.split_intact
        assert (standing.harmful, standing.culprit) == (True, "negative_feedback")

    def test_is_void_once_the_requests_show_that_the_split_is_broken(self, evidence):
        facts = [request(n, arm="canary", propensity=0.05) for n in range(30)]
        evidence.absorb([*facts, request(999, arrived=900.0)], [feedback(n, at=700.0 + n) for n in range(30)])
        standing = evidence.standing()
        assert not standing.split_intact
        assert not standing.harmful

    def test_shares_alpha_with_the_other_guardrails(self, evidence):
        alphas = {name: state.plan.alpha for name, state in evidence.states.items()}
        assert alphas == pytest.approx({"requests": 0.05 * 3 / 4, "feedback": 0.05 / 4})


class TestReplay:
    def test_preview_changes_nothing_and_says_what_absorb_gives(self, evidence):
        facts, answers = [request(n, status=500 if n % 3 else 200) for n in range(20)], [feedback(3)]
        before = evidence.states_to_json()
        promised = evidence.preview(facts, answers)
        assert evidence.states_to_json() == before
        evidence.absorb(facts, answers)
        assert evidence.states_to_json() == promised

    def test_batching_changes_nothing(self, evidence):
        facts = [
            request(n, arm="canary" if n % 4 == 0 else "champion", status=500 if n % 7 == 0 else 200) for n in range(60)
        ]
        evidence.absorb(facts, [])
        other = Evidence(evidence._plan)
        for start in range(0, 60, 7):
            other.absorb(facts[start : start + 7], [])
        assert other.states_to_json() == evidence.states_to_json()

    def test_facts_survive_their_record(self):
        facts, answers = [request(1), request(2, status=500, valid_output=None)], [feedback(1)]
        record = pack(facts, answers)
        canonical_json(record)
        assert unpack(record) == (facts, answers)
        assert unpack(pack([], [])) == ([], [])

    def test_states_of_another_version_are_computed_again(self, evidence):
        stale = {name: {**state, "version": 0} for name, state in evidence.states_to_json().items()}
        evidence.absorb([request(1), request(2, arrived=150.0)], [], states=stale)
        assert counts(evidence, "errors").champion == 1


class TestBaseline:
    def test_measures_the_champion_alone(self):
        facts = [request(n, status=500 if n == 1 else 200, first_token_ms=float(n)) for n in range(1, 101)]
        facts.append(request(999, arm="canary", status=500))
        baseline = measure(
            facts,
            [feedback(5), feedback(6, rating="right"), feedback(999)],
            deployment=deployment(1).id,
            guardrails=GUARDRAILS,
        )
        assert (baseline.requests, baseline.seconds) == (100, 99.0)
        assert baseline.bad["errors"] == pytest.approx(0.01)
        assert baseline.bad["negative_feedback"] == pytest.approx(0.5)
        assert baseline.first_token_p50_ms == 51.0
        assert baseline.duration_p99_ms == 500.0

    def test_the_wait_for_slower_requests_follows_the_longest_one(self):
        known = measure([request(1, duration_ms=4_000.0)], [], deployment=deployment(1).id, guardrails=GUARDRAILS)
        unknown = measure([], [], deployment="x", guardrails=GUARDRAILS)
        assert settle_seconds(known, timeout_s=120.0) == 8.0
        assert settle_seconds(known, timeout_s=5.0) == 5.0
        assert settle_seconds(unknown, timeout_s=120.0) == 10.0

    def test_says_what_cannot_be_judged(self):
        baseline = measure([request(1, status=500)], [], deployment=deployment(1).id, guardrails=GUARDRAILS)
        strict = (GuardrailPlan(name="errors", ceiling=0.05), GuardrailPlan(name="negative_feedback"))
        said = notes(baseline, strict)
        assert "above the ceiling" in said[0]
        assert "none of the last 1 requests says anything" in said[1]

    def test_the_model_file_s_guardrails_arrive(self):
        plans = guardrail_plans(
            Canary.model_validate({"guardrails": {"slow_first_token": {"limit": "1s", "margin": 3.0, "ceiling": None}}})
        )
        slow = next(plan for plan in plans if plan.name == "slow_first_token")
        assert (slow.limit_ms, slow.margin, slow.ceiling) == (1000.0, 3.0, None)
        assert [plan.name for plan in plans] == ["errors", "invalid_output", "slow_first_token"]

    def test_no_file_asks_for_more_than_a_release_can_compare(self):
        auto = {"slow_first_token": {}, "long_gap": {}}
        most = guardrail_plans(
            Canary.model_validate({"guardrails": auto}),
            limits_ms={kind: dict.fromkeys(QUANTILES, 100.0) for kind in auto},
        )
        assert (len(most), len(QUANTILES)) == (MAXIMUM_GUARDRAILS, AUTO_LIMITS)
        assert MOST_COMPARISONS == MAXIMUM_GUARDRAILS
        with pytest.raises(ValidationError, match="9 comparisons, and a release makes at most 8: give slow_first"):
            Canary.model_validate({"guardrails": {**auto, "refusal": {}}})
        Canary.model_validate({"guardrails": {**auto, "refusal": {}, "long_gap": {"limit": "1s"}}})


class TestSoakBeforeACeiling:
    """A ceiling that saw only a quiet night must not promote unless the file says so."""

    @pytest.mark.parametrize(
        ("section", "hours", "warns"),
        [
            ({}, 24, False),
            ({"deadline": "3d", "ceiling_soak": "30h"}, 30, False),
            ({"deadline": "2h"}, 0.5, True),
            ({"ceiling_soak": "1h"}, 1, True),
            ({"deadline": "2h", "guardrails": {"errors": {"ceiling": None}, "invalid_output": None}}, 0.5, False),
        ],
        ids=["default", "longer", "no day within the deadline", "shorter", "no ceiling"],
    )
    def test_is_a_day_unless_the_file_says_otherwise(self, bench, section, hours, warns):
        canary = Canary.model_validate(section)
        assert canary.soak_before_ceiling.total_seconds() == hours * 3600
        assert bool(soak_notes(canary)) == warns
        intent = Intent(
            model="bot",
            owner=OWNER,
            candidate=deployment(2),
            champion=bench.crown(),
            ledger_epoch=bench.ledger.epoch(),
            canary=canary,
            serve=ServeOptions(),
        )
        plan = freeze_plan(intent, store=bench.store, serving=bench.serving, clock=bench.serving.clock)
        assert sequential_plans(plan)["requests"].minimum_soak_s == hours * 3600
        assert any("daily peak" in note for note in plan.notes) == warns

    def test_of_an_older_plan_is_its_steps(self, bench):
        plan = bench.plan(champion=bench.crown())
        assert plan.ceiling_soak_s is None
        assert sequential_plans(plan)["requests"].minimum_soak_s == 60

    def test_that_the_deadline_cuts_off_is_refused(self):
        with pytest.raises(ValueError, match="ceiling_soak must be shorter than deadline"):
            Canary.model_validate({"deadline": "1h", "ceiling_soak": "1h"})


class TestAutomaticLimits:
    """``slow_first_token`` without a limit: the champion's own times, frozen before the release."""

    CANARY = Canary.model_validate({"guardrails": {"slow_first_token": {"alpha_weight": 3.0}}})

    def slow(self, count: int, **section: Any) -> list[GuardrailPlan]:
        champion = [request(i, first_token_ms=float(i)) for i in range(count)]
        limits = time_limits(champion, deployment=deployment(1).id)
        canary = Canary.model_validate({"guardrails": {"slow_first_token": section}}) if section else self.CANARY
        plans = guardrail_plans(canary, limits_ms=limits)
        return [plan for plan in plans if plan.judged_as == "slow_first_token"]

    def test_several_quantiles_share_one_weight(self):
        plans = self.slow(1000)
        assert [plan.name for plan in plans] == [f"slow_first_token_above_p{q}" for q in (50, 90, 99)]
        assert [plan.limit_ms for plan in plans] == pytest.approx([499.5, 899.1, 989.01])
        assert sum(plan.alpha_weight for plan in plans) == pytest.approx(3.0)
        for plan, quantile in zip(plans, (0.5, 0.9, 0.99), strict=True):
            assert plan.margin * (1 - quantile) < 1
            assert plan.ceiling is not None
            assert plan.ceiling >= plan.margin * (1 - quantile)

    def test_a_quantile_that_the_times_cannot_tell_is_left_out(self):
        assert [plan.name[-3:] for plan in self.slow(100)] == ["p50", "p90"]

    def test_without_times_it_is_a_fixed_limit_and_the_plan_says_so(self):
        (plan,) = self.slow(3)
        assert (plan.name, plan.limit_ms) == ("slow_first_token", 2000.0)
        assert "slow_first_token: the champion answered too little" in limit_notes(self.CANARY, {})[0]
        assert limit_notes(self.CANARY, {"slow_first_token": {0.5: 100.0}}) == []

    def test_a_limit_of_the_file_stays_what_it_is(self):
        (plan,) = self.slow(1000, limit="1s")
        assert (plan.name, plan.limit_ms) == ("slow_first_token", 1000.0)

    def test_pauses_between_tokens_are_judged_likewise(self):
        champion = [request(i, max_gap_ms=float(i)) for i in range(1000)]
        limits = time_limits(champion, deployment=deployment(1).id)
        canary = Canary.model_validate({"guardrails": {"errors": None, "invalid_output": None, "long_gap": {}}})
        plans = guardrail_plans(canary, limits_ms=limits)
        assert [plan.name for plan in plans] == [f"long_gap_above_p{q}" for q in (50, 90, 99)]
        assert list(judge(plans, request(1, max_gap_ms=950.0)).values()) == [1, 1, 0]
        assert set(judge(plans, request(1, max_gap_ms=None)).values()) == {-1}, "one token has no pauses"

    def test_each_answer_is_judged_against_each_limit(self):
        judged = judge(self.slow(1000), request(1, first_token_ms=950.0))
        assert list(judged.values()) == [1, 1, 0]


def test_the_fake_s_traffic_is_drawn_as_asked(bench):
    champion = bench.crown()
    bench.serving.deploy(deployment(2), slot="canary")
    bench.serving.set_weight(25.0, release="r")
    bench.serving.behave(champion, Behaviour(errors=0.1))
    since = bench.serving.position()
    bench.serving.sleep(200)
    facts = [fact for fact in bench.serving.observations(since).requests if fact.propensity == 0.25]
    canary = sum(fact.variant == "canary" for fact in facts)
    assert len(facts) > 3_000
    assert abs(canary / len(facts) - 0.25) < 0.03
