"""Runs the demo: platform up, the stages, the evidence, the summary, and everything down again."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedded import control
from embedded.airflow_api import AirflowApi
from embedded.demo import claims, record, stages, summary
from embedded.demo.display import Display
from embedded.demo.traffic import Users
from embedded.demo.watch import DemoFailed
from embedded.interrupts import Interrupts
from genai_operators.exceptions import GenaiError
from genai_operators.store import Store

STAGES: dict[str, Callable[[stages.Run], None]] = {
    "first_training": stages.first_training,
    "usual_traffic": stages.usual_traffic,
    "drift": stages.drift,
    "retraining": stages.retraining,
    "bad_release": stages.bad_release,
}
#: Fills the record of a demo while it works in a directory; what it raises ends the demo.
Work = Callable[[Display, dict[str, Any], Path], None]


def run_demo(*, directory: Path, keep: bool = False) -> int:
    """Run everything; 0 only if every promise was seen to be kept. Leaves no process behind unless ``keep``.

    :param directory: the platform of the demo; whatever an earlier demo left there is removed. The summary goes beside
        it, into ``<directory>.json``.
    """
    return conclude(_all_stages, directory=directory, keep=keep, interrupts=Interrupts.installed())


def conclude(work: Work, *, directory: Path, interrupts: Interrupts, keep: bool = False) -> int:
    """Do the work and, however it ends, stop the platform, write the record and show it. Returns the exit code."""
    path = directory.with_suffix(".json")
    path.unlink(missing_ok=True)  # an earlier demo's success is not this one's
    seen, display = record.empty(), Display(stages.TITLES)
    try:
        _attempt(work, display, seen, directory)
    finally:
        interrupts.ignore()
        seen["stages"] = [{"name": s.name, "seconds": s.seconds} for s in display.stages if s.seconds is not None]
        seen["seconds"] = display.elapsed
        if not (keep and seen["ok"]):
            _stop(seen, directory)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(seen, indent=2) + "\n")
    summary.show(seen, display, path=path, logs=directory / "logs")
    return 0 if seen["ok"] else 130 if seen["error"] == record.INTERRUPTED else 1


def _attempt(work: Work, display: Display, seen: dict[str, Any], directory: Path) -> None:
    seen["error"] = record.INTERRUPTED  # until the work has said otherwise
    try:
        control.down(directory)
        shutil.rmtree(directory, ignore_errors=True)
        with display:
            work(display, seen, directory)
    except KeyboardInterrupt:
        return
    except Exception as error:  # noqa: BLE001  the edge of the program: any failure ends in the summary and exit code 1
        seen["error"] = f"{type(error).__name__}: {error}"
        if not isinstance(error, GenaiError):  # whose message says all
            seen["traceback"] = traceback.format_exc()
    else:
        seen |= {"ok": True, "error": None}


def _stop(seen: dict[str, Any], directory: Path) -> None:
    try:
        control.down(directory)
    except Exception as error:  # noqa: BLE001  the record is written nevertheless, and says so
        stuck = f"the platform could not be stopped: {type(error).__name__}: {error}"
        seen |= {"ok": False, "error": f"{seen['error']}; {stuck}" if seen["error"] else stuck}


def _all_stages(display: Display, seen: dict[str, Any], directory: Path) -> None:
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
            record.collect(run, seen)
        with display.stage("evidence"):
            _verify(run, seen)


def _verify(run: stages.Run, seen: dict[str, Any]) -> None:
    """Compare what MLflow, the ledger, the gateway and Airflow say with each other.

    :raises DemoFailed: naming every disagreement.
    """
    run.display.say("MLflow, ledger, gateway, Airflow, lineage")
    seen["evidence"] = claims.check(run, seen)
    if wrong := [claim for claim, holds in seen["evidence"].items() if not holds]:
        raise DemoFailed(f"not true: {'; '.join(wrong)}")
