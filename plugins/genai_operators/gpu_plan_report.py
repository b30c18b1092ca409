"""The page of a GPU plan: cost against GPU type, the chain, and why each other way is out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genai_operators.report import COLOURS, Page, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from genai_operators.decisions.gpu_options import Interval, Option
    from genai_operators.decisions.gpu_plan import GpuPlan

GB = 1e9
BAR_HEIGHT_INCHES = 0.3


def gpu_plan_page(plan: GpuPlan, *, title: str) -> str:
    """A self-contained HTML page. :param title: what is to be trained."""
    return add_gpu_plan(Page(title, f"GPU plan; prices of {plan.prices_of} in {plan.currency}"), plan).html()


def add_gpu_plan(page: Page, plan: GpuPlan) -> Page:
    """The plan as a part of a page."""
    from genai_operators.decisions.gpu_plan import describe, name_of

    page.text(f"{describe(plan.chosen, plan.currency)}; prices of {plan.prices_of}")
    page.figure(cost_figure(plan), "Expected cost of the cheapest way with each GPU type; lines span the interval.")
    page.heading("The chain").text("If one cannot be had or runs out of memory, the next one is tried.")
    headers = ("", "way", "micro-batch", "steps to add up", "sharding", "peak a GPU, GB", "of GB", "time",
               f"cost, {plan.currency}")  # fmt: skip
    page.table(headers, [_row(place, way) for place, way in enumerate(plan.chain, start=1)])
    page.heading("What is not taken, and why")
    return page.table(("way", "reason"), [(name_of(no), no.reason) for no in plan.rejected])


def cost_figure(plan: GpuPlan) -> Figure:
    """Cost against GPU type: the cheapest way of each type and purchase, with its interval."""
    from genai_operators.decisions.gpu_plan import duration

    cheapest: dict[tuple[str, str], Option] = {}
    for way in plan.options:
        cheapest.setdefault((way.gpu, way.purchase), way)
    ways = list(cheapest.values())[::-1]
    figure = new_figure(height=max(2.0, BAR_HEIGHT_INCHES * len(ways) + 0.8))
    axes = figure.axes[0]
    colours = [COLOURS[0] if way is plan.chosen else COLOURS[5] for way in ways]
    expected = [way.cost.expected for way in ways]
    axes.barh([way.name for way in ways], expected, color=colours, height=0.6)
    below = [way.cost.expected - way.cost.lower for way in ways]
    above = [way.cost.upper - way.cost.expected for way in ways]
    axes.errorbar(expected, range(len(ways)), xerr=[below, above], fmt="none", ecolor="#24292f", elinewidth=1)
    for place, way in enumerate(ways):
        axes.annotate(
            duration(way.hours.expected), (way.cost.upper, place), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=8,
        )  # fmt: skip
    axes.set_xlabel(f"cost of the run, {plan.currency}")
    axes.margins(x=0.1)
    axes.set_xlim(left=0)
    return figure


def _row(place: int, way: Option) -> tuple[object, ...]:
    setup = way.setup
    return (
        place, way.name, setup.micro_batch, setup.accumulation, setup.sharding, _span(way.memory, GB),
        way.capacity / GB, _hours(way.hours), _span(way.cost, digits=2),
    )  # fmt: skip


def _span(interval: Interval, unit: float = 1.0, *, digits: int = 1) -> str:
    expected, lower, upper = (
        f"{value / unit:.{digits}f}" for value in (interval.expected, interval.lower, interval.upper)
    )
    return f"{expected} ({lower} to {upper})"


def _hours(interval: Interval) -> str:
    from genai_operators.decisions.gpu_plan import duration

    return f"{duration(interval.expected)} ({duration(interval.lower)} to {duration(interval.upper)})"
