"""The planner's forecast as a plot: how long each step of a canary takes to find a bad one and to prove a good one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from genai_operators.decisions.planner_forecast import Forecast, StepForecast, Wait, duration
from genai_operators.report import COLOURS, INK, MUTED, Page, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW_HEIGHT_INCHES = 0.16
CERTIFY = "certify"
BROKEN = "half fail"


def add_forecast(page: Page, forecast: Forecast, *, deadline_s: float) -> Page:
    """The plot, what it means for users, and the warnings."""
    page.figure(
        forecast_figure(forecast, deadline_s=deadline_s),
        "Time on a step until harm of a size is proved, or a canary as good as the champion is certified: dot = "
        "median, line = up to nine releases in ten. Grey: the step's minimum. Dashed: the deadline. Missing: never.",
    )
    headers = ("step", "guardrail", "champion's rate", "users that meet x2", "x3", "x5", "certified after")
    page.table(headers, [row for step in forecast.steps for row in _rows(step)])
    page.text(f"A good canary is certified after about {duration(forecast.certified_s)} (median).")
    for name, probability in forecast.harmless_rollback.items():
        page.text(f"{name}: half-way to its margin, a canary is rolled back in {probability:.0%} of cases.")
    for warning in forecast.warnings:
        page.text(f"Warning: {warning}")
    return page


def forecast_figure(forecast: Forecast, *, deadline_s: float) -> Figure:
    """One panel a guardrail; in it one group of lines a step."""
    guardrails = [one.name for one in forecast.steps[0].guardrails]
    waits = len(forecast.steps[0].guardrails[0].detect) + 2
    lines = waits * len(forecast.steps)
    figure = new_figure(rows=len(guardrails), height=0.6 + ROW_HEIGHT_INCHES * lines)
    low, high = _span(forecast, deadline_s)
    for place, (axes, name) in enumerate(zip(figure.axes, guardrails, strict=True)):
        _panel(axes, forecast, place)
        axes.set_title(name, fontsize=9, color=INK, loc="left")
        if math.isfinite(deadline_s):
            axes.axvline(deadline_s, color=MUTED, linewidth=1, linestyle="--")
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.tick_params(axis="y", labelsize=7)
        _duration_ticks(axes)
    return figure


def _panel(axes: Axes, forecast: Forecast, guardrail: int) -> None:
    labels: list[str] = []
    for step in forecast.steps:
        waits = _waits(step, guardrail)
        if step.shortest_s > 0:
            low, high = len(labels) - 0.5, len(labels) + len(waits) - 0.5
            axes.fill_betweenx([low, high], 1e-3, step.shortest_s, color="#d8dee4", alpha=0.45, linewidth=0)
        for name, wait in waits:
            colour = COLOURS[2] if name == CERTIFY else COLOURS[1]
            if math.isfinite(wait.median_s):
                end = wait.p90_s if math.isfinite(wait.p90_s) else wait.median_s
                axes.plot([wait.median_s, end], [len(labels)] * 2, color=colour, linewidth=1.6)
                axes.plot([wait.median_s], [len(labels)], "o", color=colour, markersize=4)
            labels.append(f"{step.step.percent:g} %: {name}")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()


def _span(forecast: Forecast, deadline_s: float) -> tuple[float, float]:
    """Seconds that hold everything, the same for all guardrails, so that they can be compared."""
    shown = [
        seconds
        for step in forecast.steps
        for place in range(len(step.guardrails))
        for _, wait in _waits(step, place)
        for seconds in (wait.median_s, wait.p90_s)
    ]
    shown += [step.shortest_s for step in forecast.steps] + [deadline_s]
    finite = [seconds for seconds in shown if math.isfinite(seconds) and seconds > 0] or [1.0]
    return min(finite) / 2, max(finite) * 1.5


def _waits(step: StepForecast, guardrail: int) -> list[tuple[str, Wait]]:
    one = step.guardrails[guardrail]
    found = [(f"finds x{ratio:g}", wait) for ratio, wait in one.detect.items()]
    return [*found, (f"finds {BROKEN}", one.detect_broken), (CERTIFY, one.certify)]


def _rows(step: StepForecast) -> list[tuple[object, ...]]:
    return [
        (
            f"{step.step.percent:g} %",
            one.name,
            f"{one.base_rate:.2%}",
            *(_users(wait) for wait in list(one.detect.values())[:3]),
            duration(one.certify.median_s) if math.isfinite(one.certify.median_s) else "never",
        )
        for one in step.guardrails
    ]


def _users(wait: Wait) -> str:
    return f"{wait.users:,.0f}" if math.isfinite(wait.users) else "never found"


def _duration_ticks(axes: Axes) -> None:
    low, high = axes.get_xlim()
    marks = [m for m in (1, 10, 60, 600, 3_600, 6 * 3_600, 86_400, 7 * 86_400, 30 * 86_400) if low <= m <= high]
    axes.set_xticks(marks, [duration(mark) for mark in marks])
    axes.minorticks_off()
