"""Runs the demo: platform up, the stages, the evidence, the summary, and everything down again."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from embedded import control
from embedded.airflow_api import AirflowApi
from embedded.demo import evidence, stages, summary
from embedded.demo.display import Display
from embedded.demo.traffic import MODEL, Users
from embedded.demo.watch import DemoFailed
from embedded.layout import Layout
from genai_operators.exceptions import GenaiError
from genai_operators.store import Store

STAGES: dict[str, Callable[[stages.Run], None]] = {
    "first_training": stages.first_training,
    "usual_traffic": stages.usual_traffic,
    "drift": stages.drift,
    "retraining": stages.retraining,
    "bad_release": stages.bad_release,
}


def run_demo(*, directory: Path, keep: bool = False) -> int:
    """Run everything; 0 only if every promise was seen to be kept. Leaves no process behind unless ``keep``.

    :param directory: the platform of the demo; whatever an earlier demo left there is removed. The summary goes beside
        it, into ``<directory>.json``.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    control.down(directory)
    shutil.rmtree(directory, ignore_errors=True)
    record: dict[str, Any] = {"ok": False, "error": None}
    display = Display(stages.TITLES)
    try:
        with display:
            _all_stages(display, record, directory)
        record["ok"] = True
    except (GenaiError, KeyError, OSError, ValueError, RuntimeError) as error:
        record["error"] = f"{type(error).__name__}: {error}"
    except KeyboardInterrupt:
        record["error"] = "interrupted"
    finally:
        record["stages"] = [{"name": s.name, "seconds": s.seconds} for s in display.stages if s.seconds is not None]
        record["seconds"] = display.elapsed
        if not (keep and record["ok"]):
            control.down(directory)
    path = directory.with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")
    summary.show(record, display, path=path, logs=directory / "logs")
    return 0 if record["ok"] else 130 if record["error"] == "interrupted" else 1


def _all_stages(display: Display, record: dict[str, Any], directory: Path) -> None:
    with display.stage("platform"):
        layout = control.up(directory, say=display.say)
    user, password = control.credentials(layout)
    users = Users(layout)
    with AirflowApi(layout.airflow_url, user=user, password=password) as api:
        run = stages.Run(layout, api, Store.open(layout.store), users, display)
        try:
            for name, stage in STAGES.items():
                with display.stage(name):
                    stage(run)
        finally:
            users.stop()
            _collect(run, record)
        with display.stage("evidence"):
            _verify(layout, run, record)


def _collect(run: stages.Run, record: dict[str, Any]) -> None:
    """Everything that was measured, also when a stage failed."""
    record["airflow"] = {"url": run.layout.airflow_url, "runs": [list(r) for r in run.runs]}
    record["champions"] = {"first": run.seen.get("first_champion"), "second": run.seen.get("second_champion")}
    record["seconds_to_alarm"] = run.seen.get("seconds_to_alarm")
    record["users"] = {k: v for k, v in run.users.counts().items() if isinstance(v, (int, float))}
    record["ledger"] = evidence.ledger(run.store, MODEL)
    record["traffic"] = evidence.traffic(run.store, MODEL)
    record["requests_by_deployment"] = evidence.requests_by_deployment(run.store, MODEL)
    record["exposed_requests"] = exposed(record["requests_by_deployment"])
    record["gates"] = evidence.gates(run.api, run.store, MODEL, run.runs)
    record["reports"] = [gate["report"] for gate in record["gates"] if gate["report"]]


def exposed(requests: dict[str, int]) -> int:
    """Requests that met the bad release, by the gateway's access log."""
    return sum(count for deployment, count in requests.items() if deployment.endswith("-unreliable"))


def _verify(layout: Layout, run: stages.Run, record: dict[str, Any]) -> None:
    """Compare what MLflow, the ledger, the gateway and Airflow say with each other.

    :raises DemoFailed: naming every disagreement.
    """
    run.display.say("MLflow, ledger, gateway, Airflow, lineage")
    registry = evidence.registry(layout, MODEL)
    record["mlflow"] = {"champion": registry["champion"], "versions": list(registry["versions"])}
    promoted = [entry["version"] for entry in record["ledger"] if entry["action"] == "promote"]
    first, second = run.seen["first_champion"], run.seen["second_champion"]
    known = evidence.gateway_requests(layout)
    ending = evidence.releases(run.store, MODEL)[run.runs[-1][1]]["verdict"]
    events = [event for event in run.api.asset_events() if event["source_dag_id"] == stages.DRIFT]
    claims = {
        f"the ledger holds two promotions, {first} and {second}": promoted == [first, second],
        f"MLflow's alias champion points at {second}": registry["champion"] == second,
        "every promoted version is complete in MLflow": all(
            registry["versions"].get(v, {}).get("genai.complete") == "true" for v in promoted
        ),
        "one drift alarm, no more": len(events) == 1,
        f"the gateway knows version {second} and not the first": any(f"-v{second}-" in c for c in known)
        and not any(f"-v{first}-" in c for c in known),
        "the bad release met requests and has gone": record["exposed_requests"] > 0
        and not any(c.endswith("-unreliable") for c in known),
        "the canary rolled it back, for harm or at its budget": ending
        in ("rolled_back (harm)", "rolled_back (blast_radius)"),
        "Airflow has no import errors": not run.api.import_errors(),
        "lineage events were written": any(layout.lineage.iterdir()),
    }
    record["evidence"] = claims
    if wrong := [claim for claim, holds in claims.items() if not holds]:
        raise DemoFailed(f"not true: {'; '.join(wrong)}")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    sys.stdout.flush()
    raise KeyboardInterrupt
