"""The page of a drift check: the newest periods over time, each window, what moved, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from genai_operators.decisions.drift import FeatureDrift
from genai_operators.decisions.drift_watch import Look, WatchReport
from genai_operators.decisions.embedding_drift_clusters import ClusterShift
from genai_operators.decisions.policy_brakes import moment
from genai_operators.decisions.policy_facts import Attempt
from genai_operators.decisions.policy_standing import Standing
from genai_operators.decisions.profile import CategoricalProfile, ColumnProfile, ContinuousProfile, Profile
from genai_operators.report import COLOURS, MUTED, Page, new_figure
from genai_operators.report_figures import standing_figure
from genai_operators.spec.quantities import format_duration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_FEATURES = 6
SHOWN_CATEGORIES = 12
SHOWN_CLUSTERS = 8
SHOWN_ATTEMPTS = 10
_QUANTILES = tuple(share / 100 for share in range(0, 101, 2))


class PastPeriod(BaseModel):
    """What one period showed by itself: its most moved feature, and whether it raised an alarm."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    period: int
    feature: str
    effect: float
    low: float
    high: float
    raised: bool = False


@dataclass(frozen=True, kw_only=True)
class AskedPolicy:
    """What the retraining policy said, where each of its facts stands, and the retrainings so far."""

    reason: str
    standings: Sequence[Standing]
    attempts: Sequence[Attempt]


def strongest(report: WatchReport) -> dict[str, Any] | None:
    """The most moved feature of the newest period alone, for later timelines; ``None`` with too few rows."""
    if not report.looks or report.looks[0].window != 1:
        return None
    feature = _most_moved(report.looks[0])
    if feature is None:
        return None
    low, high = feature.interval
    return {"feature": feature.label, "effect": feature.effect, "low": low, "high": high}


def drift_page(
    title: str,
    subtitle: str,
    *,
    report: WatchReport,
    period: int,
    period_s: float,
    minimum_effect: float,
    history: Sequence[PastPeriod],
    sides: tuple[Profile, Profile],
    moved: Sequence[ClusterShift],
    asked: AskedPolicy | None,
) -> Page:
    """The whole page; no text of a user is in it.

    :param sides: profiles of the reference and of the newest period.
    :param moved: clusters of prompts whose share changed.
    :param asked: what the policy says, and where its facts stand.
    """
    page = Page(title, subtitle)
    page.verdict(report.verdict)
    if asked is not None:
        _policy(page, asked)
    length = format_duration(timedelta(seconds=period_s))
    newest = strongest(report)
    shown = [*history, *([PastPeriod(period=period, raised=report.raised, **newest)] if newest else [])]
    if shown:
        page.heading("Over time")
        caption = (
            f"The most moved feature of each period of {length}, with the interval that its share of the year's risk "
            "leaves it; few rows look moved by chance alone. An alarm needs a lower end above the dashed line; a "
            "triangle marks one."
        )
        page.figure(_timeline(shown, period=period, length=length, minimum_effect=minimum_effect), caption)
    if report.looks:
        page.heading("Windows").table(
            ("periods", "rows", "risk spent", "outcome", "most moved", "share that moved", "at least"),
            [_window_row(look) for look in report.looks],
        )
    if moved:
        page.heading("Kinds of prompts that became more or less frequent").table(
            ("cluster", "share learnt", "share now", "changed by at least", "q", "ids of requests near its centre"),
            [_cluster_row(shift) for shift in moved[:SHOWN_CLUSTERS]],
        )
        page.figure(_clusters(moved[:SHOWN_CLUSTERS]), "Their share of the prompts learnt, and of those asked now.")
    _side_by_side(page, report, *sides)
    return page


def _policy(page: Page, asked: AskedPolicy) -> None:
    page.heading("Retrain or wait?").text(asked.reason)
    page.figure(
        standing_figure(asked.standings),
        "Each fact against its threshold. Red: a reason to retrain; purple: a brake that holds it back.",
    )
    if asked.attempts:
        rows = [(moment(one.at), str(one.trigger), str(one.outcome).replace("_", " ")) for one in asked.attempts]
        page.table(("retrained", "because of", "outcome"), rows[-SHOWN_ATTEMPTS:])


def _clusters(moved: Sequence[ClusterShift]) -> Figure:
    figure = new_figure()
    axes = figure.axes[0]
    for offset, (label, shares) in enumerate(
        (
            ("learnt", [shift.reference_share for shift in moved]),
            ("traffic", [shift.current_share for shift in moved]),
        )
    ):
        axes.bar([place + 0.4 * offset for place in range(len(moved))], shares, width=0.38, label=label)
    axes.set_xticks([place + 0.2 for place in range(len(moved))], [f"{shift.cluster:02d}" for shift in moved])
    axes.set(xlabel="cluster of prompts", ylabel="share of rows")
    axes.legend(fontsize=8, frameon=False)
    return figure


def _most_moved(look: Look) -> FeatureDrift | None:
    judged = [feature for feature in look.result.features if feature.enough and not math.isnan(feature.effect)]
    return max(judged, key=lambda feature: (feature.drifted, feature.interval[0], feature.effect), default=None)


def _timeline(shown: Sequence[PastPeriod], *, period: int, length: str, minimum_effect: float) -> Figure:
    figure = new_figure()
    axes = figure.axes[0]
    places = [past.period - period for past in shown]
    effects = [past.effect for past in shown]
    below = [max(0.0, past.effect - past.low) for past in shown]
    above = [max(0.0, past.high - past.effect) for past in shown]
    axes.errorbar(places, effects, yerr=[below, above], fmt="o", markersize=3.5, linewidth=1, color=COLOURS[0])
    axes.axhline(minimum_effect, linestyle="--", linewidth=1, color=MUTED)
    alarms = [past for past in shown if past.raised]
    axes.plot([past.period - period for past in alarms], [1.06] * len(alarms), "v", markersize=7, color=COLOURS[1])
    axes.set(xlabel=f"periods of {length} before this one", ylabel="share that moved", ylim=(-0.02, 1.12))
    axes.set_xlim(min(places) - 0.5, 0.5)
    axes.locator_params(axis="x", integer=True)
    return figure


def _window_row(look: Look) -> tuple[object, ...]:
    feature, verdict = _most_moved(look), look.result.verdict
    rows = max((found.current_rows for found in look.result.features), default=0)
    said: tuple[object, ...] = (look.window, rows, f"{look.level:.1e}", str(verdict.outcome))
    if feature is None:
        return (*said, verdict.summary, None, None)
    return (*said, feature.label, feature.effect, feature.interval[0])


def _cluster_row(shift: ClusterShift) -> tuple[object, ...]:
    shares = f"{shift.reference_share:.1%}", f"{shift.current_share:.1%}", f"{shift.moved:.1%}"
    return (f"{shift.cluster:02d}", *shares, f"{shift.q_value:.1g}", ", ".join(shift.examples))


def _side_by_side(page: Page, report: WatchReport, before: Profile, current: Profile) -> None:
    features = report.looks[0].result.features if report.looks else []
    shown = [feature.name for feature in features if feature.name in current.columns][:SHOWN_FEATURES]
    if not shown or not current.rows:
        return
    page.heading("Side by side")
    for name in shown:
        figure = new_figure()
        _draw(figure.axes[0], before.columns[name], current.columns[name])
        figure.axes[0].legend(fontsize=8, frameon=False)
        page.figure(figure, f"{name}: what the champion learnt, and what users asked in the newest period.")


def _draw(axes: Axes, before: ColumnProfile, current: ColumnProfile) -> None:
    if isinstance(before, ContinuousProfile) and isinstance(current, ContinuousProfile):
        for side, label in ((before, "learnt"), (current, "traffic")):
            axes.plot(side.quantiles(_QUANTILES), _QUANTILES, label=label, linewidth=1.4, drawstyle="steps-post")
        axes.set(xlabel=before.name, ylabel="share of rows at most", ylim=(0, 1.02))
        return
    assert isinstance(before, CategoricalProfile)
    assert isinstance(current, CategoricalProfile)
    names = _largest_categories(before, current)
    for offset, (profile, label) in enumerate(((before, "learnt"), (current, "traffic"))):
        shares = [profile.counts.get(name, 0) / max(1, profile.present) for name in names]
        axes.bar([position + 0.4 * offset for position in range(len(names))], shares, width=0.38, label=label)
    axes.set_xticks([position + 0.2 for position in range(len(names))], names)
    axes.set(xlabel=before.name, ylabel="share of rows")


def _largest_categories(before: CategoricalProfile, current: CategoricalProfile) -> Sequence[str]:
    together = {
        name: before.counts.get(name, 0) + current.counts.get(name, 0) for name in {*before.counts, *current.counts}
    }
    return sorted(together, key=lambda name: (-together[name], name))[:SHOWN_CATEGORIES]
