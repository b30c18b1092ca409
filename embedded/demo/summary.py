"""The one table at the end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embedded.demo.display import Display

FINGERPRINT = re.compile(r"\b([0-9a-f]{6})[0-9a-f]{10,}\b")
OUTCOME_COLOURS = {"pass": "green", "promoted": "green", "warn": "yellow", "fail": "red", "rolled_back": "red"}
#: Percent of the traffic that one character of the bar stands for.
PERCENT_PER_MARK = 5
#: What, result, more about it.
Row = tuple[str, str, str]


def show(record: dict[str, Any], display: Display, *, path: Path, logs: Path, console: Console | None = None) -> None:
    """Print what ``demo.json`` holds, for people."""
    console = console or Console()
    console.print(table(record, display, store=logs.parent / "store"))
    if record["ok"]:
        console.print(
            f"\n[green]everything happened[/] in {record['seconds']:.0f} s. All of it: {path}", soft_wrap=True
        )
    else:
        console.print(f"\n[red]the demo failed[/]: {escape(record['error'])}", highlight=False, soft_wrap=True)
        console.print(f"what was seen: {path}; logs of every component: {logs}", soft_wrap=True)


def table(record: dict[str, Any], display: Display, *, store: Path) -> Table:
    """One section for each kind of fact; a kind of which nothing is known has none."""
    sections = {
        "time of each stage": _stages(display),
        "gates": _gates(record["gates"], store=store),
        "champion": _champions(record["champions"]),
        "traffic over time": _traffic(record["traffic"], forecast=record["forecast"]),
        "bad release": _exposed(record),
    }
    found = Table(title="support_bot, what happened", title_justify="left", box=box.SIMPLE, show_header=False)
    for justify in ("left", "right", "left"):
        found.add_column(justify=justify, overflow="fold")
    for name, rows in sections.items():
        if rows:
            found.add_row(f"[bold]{name}[/]")
            for what, result, more in rows:
                found.add_row(f"  {what}", result, more)
            found.add_section()
    return found


def _stages(display: Display) -> list[Row]:
    return [
        (f"[red]{stage.title}[/]" if stage.failed else stage.title, f"{stage.seconds:.0f} s", "")
        for stage in display.stages
        if stage.seconds is not None
    ]


def _gates(gates: list[dict[str, Any]], *, store: Path) -> list[Row]:
    rows = []
    for gate in gates:
        verdict = str(gate["verdict"] or gate["task_state"])
        colour = OUTCOME_COLOURS.get(verdict.split(" ")[0], "white")
        report = (gate["report"] or "").partition("/store/")[2].removesuffix("/report.html")
        run = gate["run"].split("__")[0].replace("_", " ")
        rows.append((f"{gate['gate']} ({run})", f"[{colour}]{verdict}[/]", shortened(report)))
    return [*rows, ("report.html of each is below", "", str(store))] if rows else []


def shortened(path: str) -> str:
    """A path of the store whose fingerprints are cut: enough to find it, and it fits a line."""
    return FINGERPRINT.sub(r"\1*", path)


def _champions(champions: dict[str, int | None]) -> list[Row]:
    names = {"first": "after the first training", "second": "after the retraining, to the end"}
    return [(names[which], f"version {version}", "") for which, version in champions.items() if version is not None]


def _traffic(traffic: list[dict[str, Any]], *, forecast: str | None) -> list[Row]:
    """Seconds count from the moment when the first version got all traffic."""
    rows = []
    for row in traffic:
        event = row.get("event")
        percent = 100.0 if event == "promoted" else row["canary_percent"]
        bar = "#" * round(percent / PERCENT_PER_MARK)
        told = event.replace("_", " ") if event else "canary"
        rows.append((f"{row['at'] - traffic[0]['at']:4.0f} s  {row['release'][:6]} {told}", f"{percent:g} %", bar))
    if forecast:
        foreseen = forecast.removeprefix("a good canary is ").removesuffix(" (median)")
        rows.append(("foreseen by the planner", "", foreseen))
    return rows


def _exposed(record: dict[str, Any]) -> list[Row]:
    answered = sum(record["requests_by_deployment"].values())
    if not answered:
        return []
    return [("requests that met it", str(record["exposed_requests"]), f"of {answered} in all")]
