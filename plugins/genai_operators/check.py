"""``make check``: validates every model file and recipe, and shows what a pull request would change.

``python -m genai_operators.check [--root .] [--store URI] [--base GIT_REF]``

Exit code 1 when a file is wrong, with ``file:line:column: what, the bad value, what is allowed, the nearest spelling``.
Starts nothing, writes nothing, and needs no running Airflow.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from genai_operators.exceptions import GenaiError, SpecError
from genai_operators.release.last_plan import read_last_plan
from genai_operators.release.ledger import Ledger, LedgerEntry
from genai_operators.settings_file import read_settings
from genai_operators.spec.base import Project
from genai_operators.spec.changes import Change, changes_between
from genai_operators.spec.loader import ModelFile, read_models, read_recipe, recipe_names
from genai_operators.spec.model import ModelSpec
from genai_operators.spec.policy import Policy
from genai_operators.spec.quantities import format_duration
from genai_operators.store import Store

STORE_CONNECTION = "genai_store"
NO_BASE = (
    "warning: no git ref to compare with, so changed recipes, suites, prices and removed models are not shown. "
    "Name one: make check BASE=origin/main (a shallow clone of a CI needs `git fetch origin main` and BASE=FETCH_HEAD)"
)


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What is known of a valid model: who serves now, what changes, and what may go wrong at run time."""

    name: str
    spec: ModelSpec
    champion: str
    compared_with: str
    changes: tuple[Change, ...] = ()
    forecast: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def check(root: Path, *, store: Store | None, base: str | None, console: Console) -> int:
    """Check a project and print the result. Returns the exit code: 0, or 1 if a file is wrong.

    :raises ConfigurationError: git does not know ``base``.
    """
    before = None if base is None else Project.at(base, root=root)
    models = list(read_models(root))
    problems = [str(problem) for model in models for problem in model.problems]
    problems += recipe_problems(root)
    for problem in problems:
        console.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
    valid = [model for model in models if model.spec is not None]
    for model in valid:
        _print_outlook(outlook(model, root=root, store=store, base=before), console)
    for line in removed_models({model.name for model in models}, store=store, base=before):
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    if before is None:
        console.print(NO_BASE, style="yellow", markup=False, highlight=False, soft_wrap=True)
    verdict = f"{len(valid)} of {len(models)} model files are valid"
    console.print(f"{verdict}; problems: {len(problems)}" if problems else verdict, highlight=False)
    return 1 if problems else 0


def recipe_problems(root: Path) -> list[str]:
    """What is wrong in include/recipes."""
    problems = []
    for name in recipe_names(root):
        try:
            read_recipe(name, root=root)
        except SpecError as error:
            problems += str(error).splitlines()
    return problems


def removed_models(names: set[str], *, store: Store | None, base: Project | None) -> list[str]:
    """A line for each model that has no file any more: at ``base`` it had, or the ledger knows its champion."""
    lines = []
    champions = {} if store is None else _champions(store)
    gone = (set(champions) | set(base.models if base else ())) - names
    for name in sorted(gone):
        there = f"its file was in {base.where}" if base and name in base.models else "it has no file"
        champion = champions.get(name)
        serving = f"; its champion v{champion.version} serves on until somebody stops it" if champion else ""
        lines.append(f"removed: {name} ({there}): its DAGs go, with their schedules{serving}")
    return lines


def _champions(store: Store) -> dict[str, LedgerEntry]:
    models = store.list_names("ledger")
    return {model: champion for model in models if (champion := Ledger(store, model).champion()) is not None}


def outlook(model: ModelFile, *, root: Path, store: Store | None, base: Project | None) -> Outlook:
    """Compare a model file, and what it names, with ``base`` if given, else with its last run in the store."""
    assert model.spec is not None, "callers pass valid files"
    champion, compared_with, before = "unknown without a store", "nothing", None
    now = model.spec.to_json()
    forecast: tuple[str, ...] = ()
    if store is not None:
        head = Ledger(store, model.name).champion()
        champion = f"v{head.version}" if head else "none yet"
        forecast = _forecast(model.spec, store, head)
        before = read_last_plan(store, model.name)
        compared_with = "its last run, the model file alone" if before else "nothing, it never ran"
    if base is not None:
        before = base.resolved(model.name)
        now = Project.here(root).resolved(model.name) or now
        missing = "was not valid" if model.name in base.models else "is not"
        compared_with = base.where if before else f"nothing, it {missing} in {base.where}"
    changes = tuple(changes_between(before, now)) if before else ()
    return Outlook(
        name=model.name,
        spec=model.spec,
        champion=champion,
        compared_with=compared_with,
        changes=changes,
        forecast=forecast,
        notes=tuple(_notes(model.spec, root)),
    )


def configured_store(root: Path) -> Store | None:
    """The store that ``airflow_settings.yaml`` names; ``None`` if none, or a folder that is not there yet."""
    file = root / "airflow_settings.yaml"
    connections = read_settings(file).connections if file.is_file() else ()
    uri = next((c.conn_extra.get("uri") for c in connections if c.conn_id == STORE_CONNECTION), None)
    if not uri:
        return None
    if "://" in uri:
        return Store.open(uri)
    return Store.open(root / uri) if (root / uri).is_dir() else None


def _forecast(spec: ModelSpec, store: Store, champion: LedgerEntry | None) -> tuple[str, ...]:
    """Whether recent traffic is enough for the canary's question; empty where there was none."""
    from genai_operators.decisions.planner import duration
    from genai_operators.operators.outlook import canary_forecast, recent_traffic

    traffic = recent_traffic(store, champion, canary=spec.canary)
    if traffic is None:
        return ()
    forecast = canary_forecast(spec.canary, traffic)
    certified = f"at {traffic.per_second:.3g} requests/s a good canary takes {duration(forecast.certified_s)} (median)"
    return (certified, *(f"warning: {warning}" for warning in forecast.warnings))


def _notes(spec: ModelSpec, root: Path) -> list[str]:
    files = [*spec.data.train, *([spec.data.evaluation] if spec.data.evaluation else [])]
    missing = [
        name for name in files if "://" not in name and not Path(name).is_absolute() and not (root / name).exists()
    ]
    from genai_operators.release.guardrails import soak_notes

    notes = [f"{name} does not exist here; it must when a run starts" for name in missing]
    return [*notes, *(f"canary: {note}" for note in soak_notes(spec.canary))]


def _print_outlook(item: Outlook, console: Console) -> None:
    spec, canary = item.spec, item.spec.canary
    soak = format_duration(canary.soak)
    requests = sum(step.minimum_requests for step in canary.steps)
    steps = " -> ".join(f"{step.percent:g} %" for step in canary.steps)
    table = Table(title=f"{item.name} (champion: {item.champion})", title_justify="left", box=SIMPLE, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("data", ", ".join(spec.data.train))
    refresh = f", then {spec.train.refresh} once there is a champion" if spec.train.refresh else ""
    table.add_row("training", f"{spec.train.recipe}{refresh}; seed {spec.train.seed}")
    table.add_row("canary", f"{steps} -> 100 %; at least {soak} and {requests} requests of its own")
    table.add_row("by itself", _schedule(spec))
    for change in item.changes:
        table.add_row("changes", f"{change} ({change.effect})")
    if not item.changes:
        table.add_row("changes", f"none; compared with {item.compared_with}")
    for line in item.forecast:
        table.add_row("forecast", line)
    for note in item.notes:
        table.add_row("note", note)
    console.print(table)


def _schedule(spec: ModelSpec) -> str:
    fixed = f"retrains at {spec.schedule.retrain}" if spec.schedule.retrain else ""
    if not spec.schedule.drift:
        return ", ".join(filter(None, ("never checks for drift, so the policy is never asked", fixed)))
    return ", ".join(filter(None, (f"checks for drift ({spec.schedule.drift})", _policy(spec.policy), fixed)))


def _policy(policy: Policy) -> str:
    reasons = ["drift"]
    if policy.maximum_negative_feedback is not None:
        reasons.append(f"over {policy.maximum_negative_feedback:.0%} wrong answers")
    if policy.enough_new_rows is not None:
        reasons.append(f"{policy.enough_new_rows:,} judged answers")
    if policy.maximum_age is not None:
        reasons.append(f"an age of {format_duration(policy.maximum_age)}")
    return f"retrains on {' or '.join(reasons)}, once in {format_duration(policy.cooldown)} at most"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m genai_operators.check", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="the folder that holds include/ (default: here)")
    parser.add_argument("--store", help="URI or folder of the object store (default: as airflow_settings.yaml says)")
    parser.add_argument("--base", metavar="GIT_REF", help="compare with the model files at this ref, e.g. origin/main")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        root = options.root.resolve()
        store = Store.open(options.store) if options.store else configured_store(root)
        return check(root, store=store, base=options.base, console=console)
    except GenaiError as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
