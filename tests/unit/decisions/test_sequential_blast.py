"""A budget in requests, users, tokens and money, independent of every verdict."""

from __future__ import annotations

import math
from typing import Any

import pytest

from genai_operators.decisions.sequential import Exposure, Guardrail, Plan, start, update
from genai_operators.decisions.sequential_blast import BlastRadius
from genai_operators.exceptions import SpecError
from tests.fakes.canary_traffic import canary_traffic

PLAN = Plan(guardrails=(Guardrail(name="errors", ceiling=0.02),), warm_up_s=60.0)


@pytest.fixture(scope="module")
def exposure() -> Exposure:
    traffic = canary_traffic(2_000, seed=4, share=0.25, users=500)
    return update(start(PLAN), traffic).exposure


class TestBlastRadius:
    @pytest.mark.parametrize("limit", [{"requests": 400}, {"users": 100}, {"tokens": 5_000}, {"cost": 1.0}])
    def test_each_limit_is_noticed_by_name(self, exposure: Exposure, limit: dict[str, Any]):
        (reached,) = BlastRadius(**limit).reached(exposure)
        assert reached.startswith(next(iter(limit)))

    def test_what_is_not_used_up_is_not_said(self, exposure: Exposure):
        assert BlastRadius(requests=10_000, users=1_000, tokens=10**9, cost=1e6).reached(exposure) == ()
        assert BlastRadius().reached(exposure) == ()

    def test_the_last_allowed_request_uses_it_up(self, exposure: Exposure):
        assert BlastRadius(requests=exposure.requests).reached(exposure)
        assert not BlastRadius(requests=exposure.requests + 1).reached(exposure)

    @pytest.mark.parametrize("limit", [{"users": 0}, {"cost": math.nan}, {"tokens": -1}])
    def test_a_budget_of_nothing_is_refused(self, limit: dict[str, Any]):
        with pytest.raises(SpecError, match="must be positive"):
            BlastRadius(**limit)
