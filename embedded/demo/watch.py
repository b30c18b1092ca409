"""What is going on right now: the newest progress of training and of a release, read from the object store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from embedded.airflow_api import FINISHED, AirflowApi
from embedded.demo.display import Display
from genai_operators.exceptions import GenaiError
from genai_operators.release.journal import EventType
from genai_operators.store import Store

POLL_INTERVAL_S = 1.0
#: Longest any single run may take before the demo gives up; a whole undisturbed demo takes less.
RUN_TIMEOUT_S = 600.0
LOG_LINES = 25


class DemoFailed(GenaiError):
    """Something that the demo promises did not happen; the message says what was seen instead."""


def wait_for_run(
    api: AirflowApi,
    dag: str,
    run_id: str,
    *,
    store: Store,
    display: Display,
    expected: str = "success",
    look: Callable[[str | None], None],
) -> dict[str, Any]:
    """Follow a run to its end, telling what it does.

    :param look: called once a poll, with the task that works.
    :raises DemoFailed: with the failed task's last lines when it ends otherwise than ``expected``, or in time.
    """
    deadline, since = time.monotonic() + RUN_TIMEOUT_S, datetime.now(tz=UTC)
    while (run := api.run(dag, run_id))["state"] not in FINISHED:
        if time.monotonic() > deadline:
            raise DemoFailed(f"{dag} {run_id} did not end within {RUN_TIMEOUT_S:.0f} s; it is {run['state']}")
        if task := current_task(api.tasks(dag, run_id)):
            display.say(f"{dag}.{task}: {newest_detail(store, task, since=since) or 'running'}")
        look(task)
        time.sleep(POLL_INTERVAL_S)
    if run["state"] != expected:
        raise DemoFailed(f"{dag} {run_id} ended as {run['state']}, expected {expected}\n{failed_log(api, dag, run_id)}")
    return run


def current_task(tasks: list[dict[str, Any]]) -> str | None:
    """The task that works at present."""
    busy = ("running", "deferred", "queued", "up_for_retry")
    found = [task for task in tasks if task["state"] in busy]
    return str(found[0]["task_id"]) if found else None


def failed_log(api: AirflowApi, dag: str, run_id: str) -> str:
    """The last log lines of the first failed task."""
    for task in api.tasks(dag, run_id):
        if task["state"] == "failed":
            log = api.log(dag, run_id, task["task_id"], try_number=task["try_number"])
            return f"{task['task_id']}:\n" + "\n".join(log.splitlines()[-LOG_LINES:])
    return "(no task failed)"


def newest_detail(store: Store, task: str, *, since: datetime) -> str | None:
    """The newest progress line of a workload of that kind, or of a release, if it is newer than ``since``."""
    if task == "release":
        return newest_release_event(store, since=since)
    kind = {"check": "drift"}.get(task, task)
    found = store.list(f"workloads/{kind}")
    chunks = [info for info in found if "/progress/" in info.path and info.last_modified >= since]
    if not chunks:
        return None
    newest = max(chunks, key=lambda info: info.last_modified)
    lines = store.get(newest.path).decode().splitlines()
    return render_progress(json.loads(lines[-1])) if lines else None


def render_progress(record: dict[str, Any]) -> str:
    """``step 120/190, loss 0.31, ETA 5 s`` from a progress record."""
    parts = [f"step {record['step']}/{record.get('total', '?')}"] if "step" in record else []
    if record.get("loss") is not None:
        parts.append(f"loss {record['loss']:.3f}")
    if record.get("eta_s") is not None:
        parts.append(f"ETA {record['eta_s']:.0f} s")
    return ", ".join(parts) or "running"


def newest_release_event(store: Store, *, since: datetime) -> str | None:
    """One line on the release that is under way: its newest event, and the canary's share of the traffic."""
    found = [info for info in store.list("releases") if "/events/" in info.path and info.last_modified >= since]
    if not found:
        return None
    newest = max(found, key=lambda info: (info.last_modified, info.path))
    folder = newest.path.rpartition("/")[0]
    events = [store.get_json(info.path) for info in store.list(folder)]
    shares = [event["data"]["percent"] for event in events if event["type"] == EventType.WEIGHT_SET]
    share = f", canary at {shares[-1]:g} %" if shares else ""
    return f"{events[-1]['type'].replace('_', ' ')}{share}"
