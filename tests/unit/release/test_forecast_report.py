"""The planner's page part: every wait that is finite is drawn, and what never happens is said."""

from __future__ import annotations

import math
from typing import Any

from genai_operators.decisions.planner import Forecast, Step, plan_steps
from genai_operators.decisions.sequential import Guardrail, Plan
from genai_operators.release.forecast_report import add_forecast, forecast_figure
from genai_operators.report import Page

PLAN = Plan(guardrails=(Guardrail(name="errors", ceiling=0.05), Guardrail(name="invalid_output", ceiling=None)))
STEPS = (Step(percent=5, minimum_soak_s=600), Step(percent=50, minimum_soak_s=600))


def forecast(**changes: Any) -> Forecast:
    rates = {"errors": 0.01, "invalid_output": 0.02}
    return plan_steps(PLAN, **{"steps": STEPS, "requests_per_s": 10.0, "base_rates": rates, **changes})


class TestFigure:
    def test_one_panel_a_guardrail_with_one_dot_for_each_finite_wait(self) -> None:
        found = forecast()
        figure = forecast_figure(found, deadline_s=86_400)
        assert [axes.get_title(loc="left") for axes in figure.axes] == ["errors", "invalid_output"]
        for place, axes in enumerate(figure.axes):
            waits = [
                wait
                for step in found.steps
                for one in [step.guardrails[place]]
                for wait in (*one.detect.values(), one.detect_broken, one.certify)
            ]
            dots = [line for line in axes.lines if line.get_marker() == "o"]
            assert [dot.get_xdata()[0] for dot in dots] == [w.median_s for w in waits if math.isfinite(w.median_s)]

    def test_all_panels_span_the_same_time_and_the_deadline(self) -> None:
        first, second = forecast_figure(forecast(), deadline_s=86_400).axes
        assert first.get_xlim() == second.get_xlim()
        assert first.get_xlim()[1] > 86_400

    def test_a_champion_without_errors_leaves_gaps_not_infinities(self) -> None:
        found = forecast(base_rates={"errors": 0.0, "invalid_output": 0.0})
        axes = forecast_figure(found, deadline_s=math.inf).axes[0]
        assert all(math.isfinite(limit) for limit in axes.get_xlim())


class TestPage:
    def test_users_certification_and_warnings_are_told(self) -> None:
        found = forecast(deadline_s=60.0, base_rates={"errors": 0.01, "invalid_output": 0.0})
        html = add_forecast(Page("Plan"), found, deadline_s=60.0).html()
        assert "<svg" in html
        assert "users that meet x2" in html
        assert "never found" in html
        assert all(f"Warning: {warning[:40]}" in html for warning in found.warnings)
        assert found.warnings
