"""The report of a release: traffic and evidence over time, counts, verdict, and how many requests met the candidate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from genai_operators.decisions.verdict import Verdict
from genai_operators.release.evidence import Evidence, Standing
from genai_operators.release.facts import unpack
from genai_operators.release.journal import Event, EventType, Journal
from genai_operators.release.narrate import describe_event, describe_plan, describe_seconds
from genai_operators.release.plan import ReleasePlan
from genai_operators.release.progress import Phase, Progress
from genai_operators.report import Page, new_figure
from genai_operators.store import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from genai_operators.decisions.sequential import Exposure

REPORT_NAME = "report.html"
#: Points of a curve; a long release has thousands of looks.
MOST_POINTS = 400


@dataclass(frozen=True)
class Look:
    """The standing after one look at the traffic."""

    at: float
    standing: Standing


def write_report(progress: Progress, store: Store) -> str:
    """Write the report beside the release's events; its URI."""
    path = f"{progress.plan.directory}/{REPORT_NAME}"
    store.put(path, render(progress, looks_of(store, progress.plan)).encode())
    return store.uri_of(path)


def render(progress: Progress, looks: Sequence[Look]) -> str:
    """The page, self-contained, without personal data."""
    plan = progress.plan
    page = Page(f"Release of {plan.model} v{plan.candidate.version}", f"{_headline(progress)} · release {plan.release}")
    if (record := progress.decision.get("verdict")) is not None:
        page.verdict(Verdict.from_json(record))
    elif progress.decision:
        page.text(str(progress.decision["reason"]))
    page.table(("", ""), _facts(progress))
    if looks:
        page.heading("Traffic").figure(
            _traffic_figure(progress), "Share of the traffic that the gateway sent to the candidate."
        )
        page.table(("asked", "requests", "to the candidate", "observed"), _split_rows(progress))
        page.heading("Evidence")
        for name in looks[-1].standing.evidence:
            page.figure(
                _evidence_figure(progress, looks, name),
                f"{name}: evidence as e-values over time. Above the upper line harm is proved; above the lower one the "
                "candidate is proved acceptable. Valid at every look.",
            )
        page.heading("Counts").table(_COUNT_HEADERS, _count_rows(looks[-1].standing))
    page.heading("Plan")
    for line in describe_plan(plan):
        page.text(line)
    page.heading("Events").table(
        ("when (UTC)", "after", "what"),
        [
            (_utc(event.at), describe_seconds(event.at - plan.created_at), describe_event(plan, event))
            for event in _told(progress)
        ],
    )
    page.text("Every decision can be taken again from the stored events:").text(
        f"python -m genai_operators.release.replay <store>/{plan.directory}"
    )
    return page.html()


def looks_of(store: Store, plan: ReleasePlan) -> list[Look]:
    """The standing after each look at the traffic, thinned to what a plot can show."""
    evidence, looks = Evidence(plan), list[Look]()
    for event in Journal(store, plan.directory).after(0):
        if event.type is EventType.OBSERVED:
            evidence.absorb(*unpack(event.data["facts"]), states=event.data["states"])
            looks.append(Look(event.at, evidence.standing()))
    every = max(1, math.ceil(len(looks) / MOST_POINTS))
    return [look for number, look in enumerate(looks) if number % every == 0 or look is looks[-1]]


def traffic_of(events: Sequence[Event]) -> list[tuple[float, float]]:
    """(when, percent to the candidate) at each change."""
    changes = []
    for event in events:
        if event.type is EventType.WEIGHT_SET:
            changes.append((event.at, float(event.data["percent"])))
        elif event.type is EventType.PROMOTED:
            changes.append((event.at, 100.0))
        elif event.type in (EventType.RETURNED, EventType.ASKED):
            changes.append((event.at, 0.0))
    return changes


def _headline(progress: Progress) -> str:
    if progress.phase is Phase.PROMOTED:
        return f"promoted in {_duration(progress)}"
    if progress.phase.ended:
        return f"{progress.phase} ({progress.decision.get('cause')}) after {_duration(progress)}"
    return f"under way: {progress.phase}"


def _duration(progress: Progress) -> str:
    return describe_seconds((progress.ended_at or progress.plan.created_at) - progress.plan.created_at)


def _facts(progress: Progress) -> list[tuple[str, Any]]:
    plan, exposure = progress.plan, progress.evidence.exposure
    used = progress.used(now=progress.ended_at or progress.events[-1].at if progress.events else plan.created_at)
    priced = plan.cost_per_hour or plan.cost_per_1k_tokens
    return [
        ("candidate", f"v{plan.candidate.version}, {plan.candidate.runtime}, digest {plan.candidate.digest[:12]}"),
        ("champion before", "none" if plan.champion is None else f"v{plan.champion.version}, {plan.champion.runtime}"),
        ("requests that met the candidate", exposure.requests if plan.champion else "all, from its promotion on"),
        ("users that met the candidate", exposure.users if plan.champion else "all, from its promotion on"),
        *([("tokens that it generated", used.tokens)] if plan.champion else []),
        *([("cost", f"{used.cost:.2f}")] if plan.champion and priced else []),
        *([("blast radius", _budget(plan, used))] if plan.champion else []),
        ("ledger epoch", progress.epoch if progress.epoch is not None else f"{plan.ledger_epoch}, unchanged"),
        ("started by", plan.actor),
    ]


def _budget(plan: ReleasePlan, used: Exposure) -> str:
    """What may meet the candidate, and how much of that did."""
    limits = {
        "requests": (used.requests, plan.blast_requests),
        "users": (used.users_at_most, plan.blast_users),
        "tokens": (used.tokens, plan.blast_tokens),
        "cost": (used.cost, plan.blast_cost),
    }
    said = [f"{name} {amount:,.6g} of {limit:,.6g}" for name, (amount, limit) in limits.items() if limit is not None]
    return ", ".join(said) or "no limit"


def _told(progress: Progress) -> list[Event]:
    return [event for event in progress.events if event.type is not EventType.OBSERVED]


def _split_rows(progress: Progress) -> list[tuple[Any, ...]]:
    rows = []
    for percent, (champion, canary) in sorted(progress.evidence.exposure.by_percent.items()):
        total = champion + canary
        rows.append((f"{percent:g} %", total, canary, f"{100 * canary / total:.1f} %"))
    return rows


_COUNT_HEADERS = ("guardrail", "candidate", "bad", "champion", "bad", "ratio not refuted")


def _count_rows(standing: Standing) -> list[tuple[Any, ...]]:
    rows = []
    for name, one in standing.evidence.items():
        counts, (low, high) = one.counts, one.ratio_interval
        upper = "any" if math.isinf(high) else f"{high:.2g}"
        rows.append(
            (name, counts.canary, counts.canary_bad, counts.champion, counts.champion_bad, f"{low:.2g} to {upper}")
        )
    return rows


def _traffic_figure(progress: Progress) -> Figure:
    figure = new_figure(height=2.2)
    axes = figure.axes[0]
    begin = progress.started_at or progress.plan.created_at
    changes = [(begin, 0.0), *traffic_of(progress.events)]
    end = max(progress.events[-1].at, changes[-1][0])
    times = [at - begin for at, _ in changes] + [end - begin]
    axes.step(times, [percent for _, percent in changes] + [changes[-1][1]], where="post", linewidth=1.6)
    _time_axis(axes)
    axes.set(ylabel="percent", ylim=(-3, 103))
    return figure


def _evidence_figure(progress: Progress, looks: Sequence[Look], name: str) -> Figure:
    figure = new_figure(height=2.6)
    axes = figure.axes[0]
    plan = progress.plan
    begin = progress.started_at or plan.created_at
    times = [look.at - begin for look in looks]
    evidence = [look.standing.evidence[name] for look in looks]
    total = sum(guardrail.alpha_weight for guardrail in plan.guardrails)
    weight = next(guardrail.alpha_weight for guardrail in plan.guardrails if guardrail.name == name)
    for logs, bound, label, colour in (
        ([one.log_harm for one in evidence], total / (plan.alpha * weight), "harm", "#d55e00"),
        ([one.log_health for one in evidence], 1 / plan.beta, "health", "#009e73"),
    ):
        axes.plot(times, [max(value / math.log(10), -3.0) for value in logs], color=colour, linewidth=1.5, label=label)
        axes.axhline(math.log10(bound), color=colour, linewidth=0.9, linestyle="--", label=f"{label} is proved")
    _time_axis(axes)
    axes.set(ylabel="log10 e-value")
    axes.legend(fontsize=7, ncols=4, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def _time_axis(axes: Axes) -> None:
    axes.set(xlabel="seconds since the start")


def _utc(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
