"""The stages of the demo, in order. Each waits for what it promises and fails, with what it saw, when it stays away."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from embedded.airflow_api import AirflowApi
from embedded.demo.display import Display
from embedded.demo.evidence import gateway_requests
from embedded.demo.traffic import FEW, LATER, MODEL, RATE, USUAL, Users
from embedded.demo.watch import POLL_INTERVAL_S, DemoFailed, wait_for_run
from embedded.layout import Layout
from genai_operators.release.ledger import Ledger
from genai_operators.store import Store

T = TypeVar("T")

RETRAIN, DRIFT = f"{MODEL}__retrain", f"{MODEL}__drift"
PARSED_TIMEOUT_S = 120.0
DRIFT_TIMEOUT_S = 300.0
#: By the model file.
CHECK_INTERVAL_S = 60.0
#: The check looks each minute at the last one; when it first sees the shift, at least this much of it is shifted. Of
#: less, the new rows that a retraining learns from and is judged by would be mostly old.
LEAST_SHIFTED_S = 40.0
#: Tasks that need the machine for themselves.
HEAVY_TASKS = frozenset({"fine_tune", "evaluate"})
#: The candidate of the bad release is trained with another seed, so that it is a version of its own.
BAD_RELEASE = {"runtime": "unreliable", "seed": 7, "rule_on_new": "non_inferior"}

TITLES = {
    "platform": "start the platform",
    "first_training": "train the first version, deploy it as champion",
    "usual_traffic": "usual traffic: drift stays silent",
    "drift": "traffic shifts: drift notices by itself",
    "retraining": "retrain, evaluate, canary 5 -> 25 -> 50 %, promote",
    "bad_release": "a bad release: canary rolls it back",
    "evidence": "ask every system what happened",
}


@dataclass
class Run:
    """The demo under way, and what it has seen."""

    layout: Layout
    api: AirflowApi
    store: Store
    users: Users
    display: Display
    runs: list[tuple[str, str]] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)

    def champion(self) -> int | None:
        """The present champion, by the ledger."""
        entry = Ledger(self.store, MODEL).champion()
        return entry.version if entry else None

    def follow(self, run_id: str, *, expected: str = "success", look: Callable[[], None] = lambda: None) -> None:
        """Wait for a retraining run and remember it; fewer users come while it trains and evaluates.

        :param look: called as long as it goes on.
        """

        def accompany(task: str | None) -> None:
            self.users.come(FEW if task in HEAVY_TASKS else RATE)
            look()

        self.runs.append((RETRAIN, run_id))
        wait_for_run(
            self.api, RETRAIN, run_id, store=self.store, display=self.display, expected=expected, look=accompany
        )

    def count_at_gateway(self) -> None:
        """Envoy's own counters, which go with a release that is rolled back."""
        counted = self.seen.setdefault("gateway_counted", {})
        with suppress(httpx.TransportError):  # one look the less
            for cluster, requests in gateway_requests(self.layout).items():
                counted[cluster] = max(requests, counted.get(cluster, 0))


def first_training(run: Run) -> None:
    """Somebody triggers the retraining DAG; there is no champion yet."""
    run.display.say("waiting for Airflow to parse the DAGs")
    _wait_until(lambda: run.api.dag_exists(RETRAIN), PARSED_TIMEOUT_S, "Airflow did not parse the model's DAGs")
    run.follow(run.api.trigger(RETRAIN, conf={}))
    run.seen["first_champion"] = run.champion()
    _require(run.seen["first_champion"] is not None, "the first training made no champion")


def usual_traffic(run: Run) -> None:
    """Users come; the scheduled drift check judges their messages and finds nothing."""
    run.users.start(USUAL)
    quiet = _wait_for_check(run, verdict="pass", after=time.time())
    run.runs.append((DRIFT, quiet))
    _require(not _retrainings(run), "the drift check started a retraining on usual traffic")


def drift(run: Run) -> None:
    """Users start to ask differently; the scheduled check raises the alarm and its event starts the retraining."""
    left_s = CHECK_INTERVAL_S - time.time() % CHECK_INTERVAL_S
    if left_s < LEAST_SHIFTED_S:
        run.display.say("waiting for the next check to begin, so that the one after it sees a minute of the shift")
        time.sleep(left_s + 1.0)
    run.users.ask_from(LATER)
    shifted_at = time.time()
    found = _wait_until(lambda: _retrainings(run), DRIFT_TIMEOUT_S, "no retraining was started by a drift alarm")
    run.seen["retraining"] = found[0]["dag_run_id"]
    run.seen["seconds_to_alarm"] = time.time() - shifted_at
    alarm = _wait_for_check(run, verdict="fail", after=0.0)
    run.runs.append((DRIFT, alarm))


def retraining(run: Run) -> None:
    """The retraining that the alarm started runs to its end and promotes a new champion."""
    run.follow(run.seen["retraining"])
    run.seen["second_champion"] = run.champion()
    _require(
        run.seen["second_champion"] not in (None, run.seen["first_champion"]),
        f"the champion is still version {run.seen['first_champion']}",
    )


def bad_release(run: Run) -> None:
    """Somebody releases a candidate whose server fails; the canary rolls it back and the champion stays."""
    run.follow(run.api.trigger(RETRAIN, conf=BAD_RELEASE), expected="failed", look=run.count_at_gateway)
    tasks = {task["task_id"]: task["state"] for task in run.api.tasks(*run.runs[-1])}
    _require(tasks["release"] == "failed", f"the bad candidate did not reach its release: {tasks}")
    _require(run.champion() == run.seen["second_champion"], f"the bad release made version {run.champion()} champion")


def _retrainings(run: Run) -> list[dict[str, Any]]:
    """Runs that an asset event started."""
    return [r for r in run.api.runs(RETRAIN) if r["run_type"] == "asset_triggered"]


def _wait_for_check(run: Run, *, verdict: str, after: float) -> str:
    """Run id of the first drift check that began after a moment and came to a verdict."""

    def find() -> str | None:
        for check in reversed(run.api.runs(DRIFT)):
            reference = run.api.result(DRIFT, check["dag_run_id"], "check") or {}
            counts = run.users.counts()
            run.display.say(f"{counts.get('answered', 0)} answers, {counts.get('wrong', 0)} of them wrong")
            if reference.get("verdict") == verdict and _timestamp(check["start_date"]) >= after:
                return str(check["dag_run_id"])
        return None

    return _wait_until(find, DRIFT_TIMEOUT_S, f"no drift check came to the verdict {verdict!r}")


def _timestamp(text: str | None) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp() if text else 0.0


def _wait_until(condition: Callable[[], T | None], timeout_s: float, message: str) -> T:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise DemoFailed(f"{message} within {timeout_s:.0f} s")
        time.sleep(POLL_INTERVAL_S)
    return found


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise DemoFailed(message)
