"""The one table at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from embedded.demo.display import Display

#: Fingerprints are longer than this, everything else in a path is shorter.
LONG_NAME = 40
OUTCOME_COLOURS = {"pass": "green", "promoted": "green", "warn": "yellow", "fail": "red", "rolled_back": "red"}


def show(record: dict[str, Any], display: Display, *, path: Path, logs: Path) -> None:
    """Print what ``demo.json`` holds, for people."""
    console = Console()
    console.print(_stages(display))
    if record.get("gates"):
        console.print(_gates(record["gates"]))
    if record.get("traffic"):
        console.print(_traffic(record))
    if "exposed_requests" in record:
        first, second = record["champions"]["first"], record["champions"]["second"]
        console.print(f"champion: version {first} -> version {second}", highlight=False)
        console.print(f"requests that met the bad release: {record['exposed_requests']}", highlight=False)
    if record["ok"]:
        console.print(f"reports: {logs.parent / 'store'}", highlight=False, soft_wrap=True)
        console.print(f"\n[green]everything happened[/] in {record['seconds']:.0f} s. All of it: {path}")
    else:
        console.print(f"\n[red]the demo failed[/]: {record['error']}", markup=True, highlight=False)
        console.print(f"what was seen: {path}; logs of every component: {logs}")


def _stages(display: Display) -> Table:
    table = Table(title="time of each stage", title_justify="left")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for stage in display.stages:
        if stage.seconds is not None:
            table.add_row(stage.title, f"{stage.seconds:.0f}", style="red" if stage.failed else None)
    return table


def _gates(gates: list[dict[str, Any]]) -> Table:
    table = Table(title="gates; reports lie below the store", title_justify="left")
    for header in ("run", "gate", "verdict", "report"):
        table.add_column(header, overflow="fold")
    for gate in gates:
        verdict = str(gate["verdict"] or gate["task_state"])
        colour = OUTCOME_COLOURS.get(verdict.split(" ")[0], "white")
        report = (gate["report"] or "").partition("/store/")[2]
        table.add_row(gate["run"].split("__")[0], gate["gate"], f"[{colour}]{verdict}[/]", shortened(report))
    return table


def shortened(path: str) -> str:
    """A path of the store whose fingerprint is cut: enough to find it, and it fits a line."""
    return "/".join(part if len(part) < LONG_NAME else f"{part[:8]}*" for part in path.split("/"))


def _traffic(record: dict[str, Any]) -> Table:
    table = Table(title="traffic split over time", title_justify="left")
    for header in ("seconds", "canary %", "", "release"):
        table.add_column(header, justify="right" if header in ("seconds", "canary %") else "left")
    start = record["traffic"][0]["at"]
    for row in record["traffic"]:
        bar = "#" * round(row["canary_percent"] / 2)
        table.add_row(f"{row['at'] - start:.0f}", f"{row['canary_percent']:g}", row.get("event") or bar, row["release"])
    return table
