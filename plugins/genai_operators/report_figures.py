"""Plots of verdicts: differences with their intervals, shares against what is allowed, facts against thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genai_operators.decisions.policy_standing import Standing
from genai_operators.decisions.verdict import Check, Outcome
from genai_operators.report import COLOURS, INK, MUTED, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW_HEIGHT_INCHES = 0.36
LONGEST_LABEL = 48
FULLEST_BAR = 1.3
OUTCOME_COLOURS = {
    Outcome.PASS: COLOURS[2],
    Outcome.FAIL: COLOURS[1],
    Outcome.WARN: COLOURS[4],
    Outcome.INCONCLUSIVE: COLOURS[3],
    Outcome.SKIPPED: MUTED,
}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Candidate minus champion. :param threshold: what the interval must stay above; ``None``: shown only."""

    name: str
    value: float
    interval: tuple[float, float]
    threshold: float | None = None
    outcome: Outcome = Outcome.SKIPPED


def difference_figure(differences: Sequence[Difference], *, xlabel: str) -> Figure:
    """A line for each difference from bound to bound, its limit as a bar across; right of zero is better."""
    figure = new_figure(height=0.8 + ROW_HEIGHT_INCHES * len(differences))
    axes = figure.axes[0]
    axes.axvline(0, color=INK, linewidth=0.8)
    for row, one in enumerate(differences):
        colour = OUTCOME_COLOURS[one.outcome]
        axes.plot(one.interval, (row, row), color=colour, linewidth=2)
        axes.plot([one.value], [row], "o", color=colour, markersize=5)
        if one.threshold is not None:
            axes.plot([one.threshold] * 2, (row - 0.35, row + 0.35), color=COLOURS[1], linewidth=1.4, linestyle="--")
    axes.set_yticks(range(len(differences)), [_short(one.name) for one in differences])
    axes.set(ylim=(len(differences) - 0.5, -0.5), xlabel=xlabel)
    axes.margins(x=0.08)
    return figure


def share_figure(checks: Sequence[Check], *, xlabel: str) -> Figure:
    """A bar for each check whose observed value is a share, and the share that is allowed as a mark."""
    figure = new_figure(height=0.8 + ROW_HEIGHT_INCHES * max(1, len(checks)))
    axes = figure.axes[0]
    for row, check in enumerate(checks):
        axes.barh(row, check.observed or 0.0, height=0.55, color=OUTCOME_COLOURS[check.outcome])
        axes.annotate(
            f"{check.observed or 0.0:.2%} of {check.n:,}" if check.n else f"{check.observed or 0.0:.2%}",
            (check.observed or 0.0, row), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8, color=INK,
        )  # fmt: skip
        if check.threshold is not None:
            axes.plot([check.threshold] * 2, (row - 0.38, row + 0.38), color=INK, linewidth=1.4, linestyle="--")
    axes.set_yticks(range(len(checks)), [_short(check.name) for check in checks])
    largest = max([0.01, *(max(check.observed or 0.0, check.threshold or 0.0) for check in checks)])
    axes.set(ylim=(len(checks) - 0.5, -0.5), xlim=(0, min(1.3, 1.3 * largest)), xlabel=xlabel)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}" if value >= 0.001 or value == 0 else f"{value:.0e}")
    return figure


def standing_figure(standings: Sequence[Standing]) -> Figure:
    """How much of its threshold each fact of the policy has reached: right of the line it counts."""
    figure = new_figure(height=0.8 + ROW_HEIGHT_INCHES * len(standings))
    axes = figure.axes[0]
    for row, one in enumerate(standings):
        reached = COLOURS[3] if one.brake else COLOURS[1]
        axes.barh(row, min(one.share, FULLEST_BAR), height=0.55, color=reached if one.share >= 1 else COLOURS[0])
        axes.annotate(
            one.says, (min(one.share, FULLEST_BAR), row), xytext=(5, 0), textcoords="offset points", va="center",
            fontsize=8, color=INK,
        )  # fmt: skip
    axes.axvline(1, color=INK, linewidth=1.2, linestyle="--")
    axes.set_yticks(range(len(standings)), [_short(one.name) for one in standings])
    axes.set(ylim=(len(standings) - 0.5, -0.5), xlim=(0, 2), xlabel="share of the threshold that is reached")
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_LABEL else f"{name[: LONGEST_LABEL - 1]}…"
