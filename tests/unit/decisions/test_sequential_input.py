"""Input that cannot have been observed, or a plan that asks nothing: a clear error that names it, never a verdict."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from genai_operators.decisions.sequential import Guardrail, Observations, Plan, start, update
from genai_operators.exceptions import DataError, SpecError

PLAN = Plan(guardrails=(Guardrail(name="errors"),))


def columns(**changes: Any) -> dict[str, Any]:
    return {
        "arrival": np.array([0.0, 1.0, 2.0]),
        "canary": np.array([True, False, False]),
        "propensity": np.array([0.1, 0.1, 0.1]),
        "bad": {"errors": np.array([0, 1, -1])},
        **changes,
    }


class TestObservations:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"propensity": np.array([0.1, 1.2, 0.1])}, r"propensity\[1\] is 1.2, must be in \[0, 1\]"),
            ({"propensity": np.array([0.1, 0.1, -0.1])}, r"propensity\[2\]"),
            ({"propensity": np.array([0.1, math.nan, 0.1])}, r"propensity\[1\] is nan"),
            ({"arrival": np.array([0.0, math.inf, 2.0])}, r"arrival\[1\] is inf"),
            ({"arrival": np.array([0.0, 2.0, 1.0])}, "row 2 arrived at 1.0 before its predecessor at 2.0"),
            ({"arrival": np.array([0.0, 1.0])}, "canary has 3 rows, arrival has 2"),
            ({"bad": {"errors": np.array([0, 2, 0])}}, r"bad\['errors'\]\[1\] is 2"),
            ({"bad": {"errors": np.array([0.0, math.nan, 0.0])}}, r"bad\['errors'\]\[1\] is nan"),
            ({"bad": {"errors": np.array([0, 1])}}, r"bad\['errors'\] has 2 rows"),
            ({"canary": np.array([1, 0, 0])}, "canary must be a boolean array"),
            ({"cause": [None]}, "cause has 1 rows"),
            ({"tokens": np.array([1, -5, 1])}, r"tokens\[1\] is -5"),
            ({"tokens": np.array([1, 2, 2.5])}, r"tokens\[2\] is 2.5, must be a whole number"),
            ({"cost": np.array([1, math.nan, 1])}, r"cost\[1\] is nan"),
            ({"propensity": np.array([[0.1], [0.1], [0.1]])}, "one dimension"),
        ],
    )
    def test_impossible_columns_are_named(self, changes: dict[str, Any], says: str):
        with pytest.raises(DataError, match=says):
            Observations(**columns(**changes))

    def test_a_request_before_the_last_one_of_the_state_is_refused(self):
        state = update(start(PLAN), Observations(**columns(arrival=np.array([10.0, 11.0, 12.0]))))
        with pytest.raises(DataError, match=r"before its predecessor at 12\.0"):
            update(state, Observations(**columns()))

    @pytest.mark.parametrize("names", [(), ("errors", "unheard_of"), ("error",)])
    def test_columns_must_be_those_of_the_plan(self, names: tuple[str, ...]):
        bad = {name: np.zeros(3, dtype=np.int8) for name in names}
        with pytest.raises(DataError, match="the plan's guardrails are errors"):
            update(start(PLAN), Observations(**columns(bad=bad)))


class TestPlan:
    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"harm_ratio": 2.0, "margin": 2.0}, "harm_ratio < margin"),
            ({"harm_ratio": 0.5}, "1 <= harm_ratio"),
            ({"margin": math.inf}, "margin"),
            ({"margin": math.nan}, "margin"),
            ({"ceiling": 0.0}, "ceiling"),
            ({"ceiling": 1.0}, "ceiling"),
            ({"alpha_weight": 0.0}, "alpha_weight"),
            ({"alpha_weight": math.nan}, "alpha_weight"),
            ({"name": ""}, "without a name"),
        ],
    )
    def test_a_guardrail_that_asks_nothing_is_refused(self, changes: dict[str, Any], says: str):
        with pytest.raises(SpecError, match=says):
            Guardrail(**{"name": "errors", **changes})

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"guardrails": ()}, "1 to 8 guardrails, got 0"),
            ({"guardrails": (Guardrail(name="a"), Guardrail(name="a"))}, "must differ"),
            ({"guardrails": tuple(Guardrail(name=str(i)) for i in range(9))}, "got 9"),
            ({"alpha": 0.0}, "alpha"),
            ({"beta": 1.0}, "beta"),
            ({"split_alpha": math.nan}, "split_alpha"),
            ({"incident_window_s": -1.0}, "incident_window_s"),
            ({"warm_up_s": math.inf}, "warm_up_s"),
        ],
    )
    def test_a_plan_that_cannot_be_kept_is_refused(self, changes: dict[str, Any], says: str):
        with pytest.raises(SpecError, match=says):
            Plan(**{"guardrails": (Guardrail(name="errors"),), **changes})

    def test_json_restores_it(self):
        plan = Plan(guardrails=(Guardrail(name="a", alpha_weight=3, ceiling=0.1), Guardrail(name="b")), alpha=0.01)
        assert Plan.from_json(plan.to_json()) == plan
        assert plan.shares == (0.75, 0.25)
