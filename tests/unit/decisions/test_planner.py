"""The forecast agrees with simulated releases, and says when the traffic is too small."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.sequential_simulation import fixed, simulate_harm, simulate_health
from genai_operators.decisions.planner import Step, plan_steps
from genai_operators.decisions.planner_lattice import passage
from genai_operators.decisions.sequential import Guardrail, Plan
from genai_operators.exceptions import SpecError

ERRORS = Plan(guardrails=(Guardrail(name="errors", ceiling=0.01),))
STEPS = (Step(percent=5, minimum_soak_s=600), Step(percent=25, minimum_soak_s=600), Step(percent=50))


def forecast(plan: Plan = ERRORS, **changes: Any) -> Any:
    options = {"steps": STEPS, "requests_per_s": 10.0, "base_rates": {"errors": 0.01}, **changes}
    return plan_steps(plan, **options)


class TestAgainstSimulation:
    @pytest.mark.parametrize(("ratio", "tolerance"), [(2.0, 0.1), (3.0, 0.1), (5.0, 0.15)])
    def test_detection(self, ratio: float, tolerance: float):
        runs = simulate_harm(releases=800, events=6_000, controller=fixed(0.05), ratio=ratio, seed=1)
        wait = forecast().steps[0].guardrails[0].detect[ratio]
        assert wait.median == pytest.approx(np.median(runs.requests), rel=tolerance)
        assert wait.p90 == pytest.approx(np.quantile(runs.requests, 0.9), rel=tolerance)
        assert wait.canary_requests == pytest.approx(0.05 * wait.median)
        assert wait.median_s == pytest.approx(wait.median / 10.0)

    def test_certification(self):
        requests = simulate_health(
            releases=1_500, events=5_000, controller=fixed(0.25), base_rate=0.01, ratio=1.0, ceiling=0.01, seed=2
        )
        wait = forecast().steps[1].guardrails[0].certify
        assert wait.median == pytest.approx(np.median(requests), rel=0.2)

    def test_a_harmless_ratio_between_the_limits(self):
        """Both proofs race; the share that harm wins, by simulation of the same races."""
        random = np.random.default_rng(3)
        ratio, share = math.sqrt(2.0), 0.5
        race = passage(
            propensity=share, ratio=ratio, harm_ratio=1.0, harm_threshold=20.0, margin=2.0, health_threshold=40.0
        )
        bad = random.random((400, 3_000)) < share * ratio / (share * ratio + 1 - share)
        assert race.harm[-1] + race.health[-1] >= 0.95
        lost = np.mean([_harm_wins(row, share) for row in bad])
        assert race.harm[-1] == pytest.approx(lost, abs=0.07)
        assert 0.2 < forecast().harmless_rollback["errors"] < 0.8


def _harm_wins(canary: np.ndarray, share: float) -> bool:
    from genai_operators.decisions.sequential_harm import RATIOS, WEIGHTS
    from genai_operators.decisions.sequential_health import relative_prior

    c, n = canary.cumsum(), np.arange(1, len(canary) + 1)

    def log_e(ratios: np.ndarray, weights: np.ndarray, null: float) -> np.ndarray:
        loss = np.log((share * ratios + 1 - share) / (share * null + 1 - share))
        logs = np.log(weights)[:, None] + np.outer(np.log(ratios / null), c) - np.outer(loss, n)
        return np.logaddexp.reduce(logs, axis=0)

    harm = np.flatnonzero(log_e(RATIOS, WEIGHTS, 1.0) >= math.log(20))
    health = np.flatnonzero(log_e(*relative_prior(2.0), 2.0) >= math.log(40))
    return bool(len(harm) and (not len(health) or harm[0] < health[0]))


class TestWhatItSays:
    def test_more_guardrails_take_longer(self):
        names = [f"g{number}" for number in range(6)]
        six = Plan(guardrails=tuple(Guardrail(name=name, ceiling=0.01) for name in names))
        many = forecast(six, base_rates=dict.fromkeys(names, 0.01)).steps[0].guardrails[0]
        one = forecast().steps[0].guardrails[0]
        assert many.detect[3.0].median > 1.3 * one.detect[3.0].median
        assert many.certify.median == one.certify.median  # all are required, each at its own level

    def test_worse_canaries_are_found_earlier_and_meet_fewer_users(self):
        found = forecast(requests_per_user=4.0).steps[0].guardrails[0]
        waits = [found.detect[ratio] for ratio in (2.0, 3.0, 5.0)] + [found.detect_broken]
        assert [wait.median for wait in waits] == sorted((wait.median for wait in waits), reverse=True)
        assert waits[0].users == pytest.approx(waits[0].canary_requests / 4)
        assert found.detect_broken.median < 120

    def test_enough_traffic_needs_no_warning(self):
        assert forecast(requests_per_s=100.0, deadline_s=86_400.0).enough_traffic

    def test_traffic_too_small_for_the_deadline_is_said(self):
        small = forecast(requests_per_s=0.05, deadline_s=3_600.0)
        assert not small.enough_traffic
        assert "too few for the question" in small.warnings[0]
        assert "deadline is 60 min" in small.warnings[0]
        assert "warning:" in small.render_text()

    def test_a_step_too_short_to_notice_a_broken_canary_is_said(self):
        steps = (Step(percent=1, minimum_soak_s=5), Step(percent=50))
        assert any("step 1 %" in warning for warning in forecast(steps=steps).warnings)

    def test_a_median_as_threshold_is_no_broken_canary(self):
        plan = Plan(guardrails=(Guardrail(name="slow", margin=1.5, ceiling=0.75),))
        found = forecast(plan, base_rates={"slow": 0.5})
        assert math.isfinite(found.steps[0].guardrails[0].detect_broken.median)
        assert found.enough_traffic

    def test_a_champion_without_errors_needs_a_ceiling(self):
        blind = Plan(guardrails=(Guardrail(name="errors"),))
        assert any("nothing can certify it" in w for w in forecast(blind, base_rates={"errors": 0.0}).warnings)
        silent = forecast(base_rates={"errors": 0.0}).steps[-1].guardrails[0]
        assert silent.certify.canary_requests == pytest.approx(396, abs=8)  # exact: 390
        assert math.isinf(silent.detect[3.0].median)  # three times nothing
        assert silent.detect_broken.median < 50

    def test_the_soak_of_a_ceiling_is_waited_for(self):
        slow = Plan(guardrails=(Guardrail(name="errors", ceiling=0.01),), minimum_soak_s=86_400.0)
        assert forecast(slow, base_rates={"errors": 0.0}).certified_s >= 86_400.0


class TestMonotone:
    @settings(max_examples=8, deadline=None)
    @given(
        rate=st.floats(0.002, 0.03),
        worse=st.floats(1.2, 3.0),
        traffic=st.floats(1.0, 20.0),
        more=st.floats(1.1, 5.0),
    )
    def test_more_errors_or_more_traffic_never_take_longer(
        self, rate: float, worse: float, traffic: float, more: float
    ):
        def waits(rate: float, traffic: float) -> Any:
            return forecast(base_rates={"errors": rate}, requests_per_s=traffic).steps[0].guardrails[0]

        usual, frequent, busy = waits(rate, traffic), waits(rate * worse, traffic), waits(rate, traffic * more)
        for ratio, wait in usual.detect.items():
            assert frequent.detect[ratio].median <= wait.median * (1 + 1e-9)
            assert busy.detect[ratio].median_s <= wait.median_s * (1 + 1e-9)
            assert busy.detect[ratio].median == pytest.approx(wait.median)
            assert wait.median <= wait.p90
        by_ratio = [usual.detect[ratio].median for ratio in sorted(usual.detect)]
        assert by_ratio == sorted(by_ratio, reverse=True)


class TestInput:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"steps": ()}, "steps"),
            ({"deadline_s": math.nan}, "deadline_s"),
            ({"deadline_s": 0.0}, "deadline_s"),
            ({"ratios": (2.0, math.nan)}, "ratios"),
            ({"ratios": (-1.0,)}, "ratios"),
            ({"requests_per_s": 0.0}, "requests_per_s must be positive"),
            ({"requests_per_s": math.nan}, "requests_per_s must be positive"),
            ({"base_rates": {}}, "'errors' needs a rate"),
            ({"base_rates": {"errors": 1.0}}, "'errors' needs a rate"),
            ({"base_rates": {"errors": math.nan}}, "'errors' needs a rate"),
            ({"requests_per_user": 0.5}, "requests_per_user"),
        ],
    )
    def test_what_cannot_be_planned_is_named(self, changes: dict[str, Any], says: str):
        with pytest.raises(SpecError, match=says):
            forecast(**changes)

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"percent": 100.0}, "between 0 and 100"),
            ({"percent": math.nan}, "between 0 and 100"),
            ({"minimum_soak_s": -1.0}, "minimum_soak_s"),
            ({"minimum_soak_s": math.nan}, "minimum_soak_s"),
            ({"minimum_requests": -1}, "minimum_requests"),
        ],
    )
    def test_a_step_that_cannot_be_is_refused(self, changes: dict[str, Any], says: str):
        with pytest.raises(SpecError, match=says):
            Step(**{"percent": 5.0, **changes})
