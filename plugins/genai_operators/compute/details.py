"""The page of one workload's run: what a person would otherwise gather from the store and with kubectl.

Made from the store alone, at every look, so it also tells of runs whose pods are long gone. Log lines are the
workload's own, which hold no text of users.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from genai_operators.compute import attempts
from genai_operators.compute.budget import Spent, total, usages
from genai_operators.compute.chunks import read_chunk
from genai_operators.compute.contract import Attempt
from genai_operators.compute.escalation import Ask
from genai_operators.compute.resources import GIB
from genai_operators.compute.watch import describe_progress
from genai_operators.exceptions import ObjectNotFound
from genai_operators.report import Page
from genai_operators.store import Store

SHOWN_LINES = 40
HEADINGS = ("attempt", "where", "asked for", "claimed", "began", "processes", "state", "last figures", "cost")
POD_HEADINGS = ("attempt", "pod", "node", "machine", "GPUs", "from", "time", "GPU-hours", "cost")


def details_page(store: Store, directory: str) -> Page:
    """:param directory: ``workloads/<kind>/<fingerprint>``. :raises ObjectNotFound: there is no such workload."""
    spec = store.find_json(f"{directory}/spec.json")
    if not isinstance(spec, Mapping):
        raise ObjectNotFound(f"there is no workload {directory}")
    found = _attempts(store, directory)
    result = attempts.find_result(store, directory)
    page = Page(f"Run of {spec['kind']}", f"{directory}; as of {_clock(datetime.now(UTC).timestamp())}")
    page.text(_summary(store, directory, found, succeeded=result.attempt if result else None))
    page.heading("Attempts").table(HEADINGS, [_row(attempt) for attempt in found])
    pods = [_pod_row(attempt, usage) for attempt in found for usage in usages(attempt)]
    if pods:
        page.heading("Pods").table(POD_HEADINGS, pods)
    for attempt in found[-1:]:
        lines = _last_lines(attempt)
        page.heading(f"Last lines of attempt {attempt.number}")
        page.table(("line", "text"), [line.split(" ", 1) for line in lines if " " in line])
    return page


def _attempts(store: Store, directory: str) -> list[Attempt]:
    newest = attempts.newest_attempt(store, directory)
    numbers = range(1, newest.number + 1) if newest is not None else ()
    return [attempts.find_attempt(store, directory, number) for number in numbers]


def _summary(store: Store, directory: str, found: list[Attempt], *, succeeded: int | None) -> str:
    state = f"succeeded with attempt {succeeded}" if succeeded else "has no result yet"
    owners = len(store.list_names(f"{directory}/owners"))
    waiting = f"{owners} task{'s' if owners != 1 else ''} waiting" if owners else "nobody waits for it"
    currency = next((attempt.resources.currency for attempt in found if attempt.resources.currency), "")
    spent: Spent = total((usage for attempt in found for usage in usages(attempt)), currency=currency)
    cost = f"; {spent.describe()}, {spent.pods} pod{'s' if spent.pods != 1 else ''}" if spent.pods else ""
    return f"It {state}; {waiting}{cost}."


def _row(attempt: Attempt) -> tuple[object, ...]:
    records = attempts.read_records(attempt)
    heartbeat = records.heartbeat or {}
    started = attempt.store.find_json(attempt.path("started.json")) or {}
    spent = total(usages(attempt), currency=attempt.resources.currency)
    backend: Mapping[str, Any] = attempt.claim.get("backend", {})
    return (
        attempt.number,
        " ".join(str(backend[key]) for key in ("target", "namespace", "queue") if backend.get(key)),
        Ask.of_claim(attempt.claim).describe() or "the machine as it is",
        _clock(attempt.claim.get("at")),
        _clock(started.get("at")) if started.get("process") else "",
        1 + len(attempt.store.list_names(attempt.path("starts"))) if started.get("process") else 0,
        _state(attempt, records, began=bool(started.get("process"))),
        _figures(heartbeat),
        f"{spent.cost:.2f} {spent.currency}".strip() if spent.pods else "",
    )


def _state(attempt: Attempt, records: attempts.Records, *, began: bool) -> str:
    asked = attempt.store.find_json(attempt.path("cancel.json"))
    reason = f"; asked to stop: {asked['reason']}" if asked else ""
    if records.ending is not None:
        return f"ended: {records.ending.describe()}{reason}"
    return ("running" if began else "waiting to begin") + reason


def _figures(heartbeat: Mapping[str, Any]) -> str:
    figures = {**(heartbeat.get("progress") or {}), **(heartbeat.get("gpu") or {})}
    memory = heartbeat.get("peak_memory_bytes") or 0
    told = [describe_progress(figures)] if figures else []
    if memory:
        told.append(f"{memory / GIB:.1f} GiB of the host at most")
    return ", ".join(filter(None, told))


def _pod_row(attempt: Attempt, usage: Any) -> tuple[object, ...]:
    ended = attempts.recorded_ending(attempt) is not None
    gpus = f"{usage.gpu_count} x {usage.gpu or '?'}" if usage.gpu_count else ""
    return (
        attempt.number,
        usage.pod,
        usage.node,
        usage.machine + (" (spot)" if usage.spot else ""),
        gpus,
        _clock(usage.started),
        str(timedelta(seconds=round(usage.seconds))) + ("" if usage.ended or ended else " so far"),
        f"{usage.gpu_hours:.2f}",
        f"{usage.cost:.2f}" if usage.price_per_hour is not None else "no price known",
    )


def _last_lines(attempt: Attempt) -> list[str]:
    """From the newest chunks backwards, until there are enough."""
    prefix = attempt.path("log")
    lines: list[str] = []
    for number in reversed(range(len(attempt.store.list_names(prefix)))):
        lines = [*(read_chunk(attempt.store, prefix, number, "txt") or []), *lines]
        if len(lines) >= SHOWN_LINES:
            break
    return lines[-SHOWN_LINES:]


def _clock(at: float | None) -> str:
    return "" if not at else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
