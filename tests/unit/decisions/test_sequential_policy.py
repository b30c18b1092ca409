"""What a release does, in which order; silence never promotes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from genai_operators.decisions.sequential import Guardrail, Observations, Plan, assess, start, update
from genai_operators.decisions.sequential_policy import Action, BlastRadius, Decision, decide
from genai_operators.exceptions import SpecError
from tests.fakes.canary_traffic import canary_traffic

PLAN = Plan(guardrails=(Guardrail(name="errors", ceiling=0.02),))
GOOD = canary_traffic(20_000, seed=1, share=0.25, champion_rate=0.005)
BAD = canary_traffic(20_000, seed=2, share=0.25, canary_rate=0.2)
FEW = canary_traffic(50, seed=3, share=0.25)


def decided(observations: Observations, **changes: Any) -> Decision:
    state = update(start(PLAN), observations)
    options = {
        "blast_radius": BlastRadius(),
        "elapsed_s": 60.0,
        "deadline_s": 3600.0,
        "on_deadline": "roll_back",
        **changes,
    }
    return decide(assess(state), exposure=state.exposure, **options)


class TestDecide:
    def test_harm_rolls_back(self):
        assert decided(BAD).action is Action.ROLL_BACK
        assert "errors" in decided(BAD).reason

    def test_health_promotes(self):
        assert decided(GOOD).action is Action.PROMOTE

    def test_silence_waits_and_at_the_deadline_does_what_was_declared(self):
        assert decided(FEW).action is Action.CONTINUE
        for choice in ("hold", "ask", "roll_back"):
            decision = decided(FEW, elapsed_s=3600.0, on_deadline=choice)
            assert decision.action is Action(choice)
            assert "deadline reached" in decision.reason

    def test_a_broken_split_holds_even_a_healthy_canary(self):
        n = len(GOOD)
        wrong = Observations(arrival=GOOD.arrival, canary=GOOD.canary, propensity=np.full(n, 0.05), bad=GOOD.bad)
        assert decided(wrong).action is not Action.PROMOTE

    @pytest.mark.parametrize("limit", [{"requests": 1_000}, {"tokens": 5_000}, {"cost": 1.0}])
    def test_the_blast_radius_holds_whatever_the_statistics_say(self, limit: dict[str, Any]):
        decision = decided(GOOD, blast_radius=BlastRadius(**limit))
        assert decision.action is Action.ROLL_BACK
        assert next(iter(limit)) in decision.reason

    def test_users_are_a_budget_too(self):
        sticky = canary_traffic(2_000, seed=4, share=0.25, champion_rate=0.0, users=500)
        assert decided(sticky, blast_radius=BlastRadius(users=50)).action is Action.ROLL_BACK
        assert decided(sticky, blast_radius=BlastRadius(users=1_000)).action is not Action.ROLL_BACK

    def test_a_budget_of_nothing_is_refused(self):
        with pytest.raises(SpecError, match="users must be positive"):
            BlastRadius(users=0)
