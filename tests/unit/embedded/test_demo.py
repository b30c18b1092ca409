"""The demo says what happened, and leaves nothing behind, however it ends; the whole of it runs in ``tests/e2e``."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from embedded.demo import claims, evidence, lineage, record, stages, summary
from embedded.demo.display import Display
from embedded.demo.run import conclude
from embedded.demo.watch import DemoFailed
from embedded.interrupts import Interrupts
from embedded.processes import end_all
from tests.fakes.workload_run import wait_for

Seen = dict[str, Any]
Name = tuple[str, str]
#: A demo whose platform is one process that does not end when it is asked to.
INTERRUPTED_DEMO = """
import os, signal, subprocess, sys
from pathlib import Path
from embedded import processes
from embedded.demo.run import conclude
from embedded.interrupts import Interrupts

def work(display, seen, directory):
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    environment = {**os.environ, processes.MARKER: str(directory)}
    subprocess.Popen([sys.executable, "-c", stubborn], env=environment, start_new_session=True)
    signal.pause()

processes.TERMINATE_TIMEOUT_S = 1.0
sys.exit(conclude(work, directory=Path(sys.argv[1]), interrupts=Interrupts.installed()))
"""


def failing(error: BaseException) -> Callable[[Display, Seen, Path], None]:
    def work(display: Display, seen: Seen, directory: Path) -> None:
        with display.stage("platform"):
            raise error

    return work


class TestRecord:
    @pytest.mark.parametrize(
        "error",
        [
            httpx.ConnectError("refused"),
            xmlrpc.client.Fault(6, "SHUTDOWN_STATE"),
            DemoFailed("no drift [/] alarm"),
            AssertionError("a mistake of ours"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_of_a_failure_has_every_key_and_nothing_of_an_earlier_success(
        self, tmp_path: Path, error: Exception, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "demo.json"
        path.write_text('{"ok": true}')
        assert conclude(failing(error), directory=tmp_path / "demo", interrupts=Interrupts()) == 1
        seen = json.loads(path.read_text())
        assert not seen["ok"]
        assert type(error).__name__ in seen["error"]
        assert [stage["name"] for stage in seen["stages"]] == ["platform"]
        assert {"gates", "ledger", "traffic", "exposed_requests", "champions"} <= set(seen)
        shown = capsys.readouterr().out
        assert "start the platform" in shown
        assert "the demo failed" in shown

    def test_an_earlier_success_is_gone_before_anything_starts(self, tmp_path: Path) -> None:
        path = tmp_path / "demo.json"
        path.write_text('{"ok": true}')

        def work(display: Display, seen: Seen, directory: Path) -> None:
            assert not path.exists()

        assert conclude(work, directory=tmp_path / "demo", interrupts=Interrupts()) == 0

    def test_what_cannot_be_measured_any_more_hides_no_failure(self, tmp_path: Path) -> None:
        """The platform broke down: nothing answers, and the traffic's status file is cut."""
        layout = stages.Layout(directory=tmp_path, ports={"airflow": 1, "gateway_admin": 1})
        (tmp_path / "traffic-status.json").write_text('{"sent": ')
        store = stages.Store.open(tmp_path / "store")
        api = stages.AirflowApi(layout.airflow_url, user="", password="")
        run = stages.Run(layout, api, store, stages.Users(layout), Display(stages.TITLES))
        run.runs.append((stages.RETRAIN, "r"))
        run.count_at_gateway()
        seen = record.empty()
        record.collect(run, seen)
        assert set(seen["not_measured"]) == {"users", "gates"}
        assert seen["ledger"] == seen["traffic"] == []
        assert seen["exposed_requests"] == 0
        assert list(claims.check(run, seen).values()) == [False]


class TestInterrupts:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
    def test_repeated_ones_leave_no_process_behind(self, tmp_path: Path, project_root: Path, number: int) -> None:
        directory, path = tmp_path / "demo", tmp_path / "demo.json"
        environment = {**os.environ, "PYTHONPATH": f"{project_root / 'plugins'}{os.pathsep}{project_root}"}
        command = [sys.executable, "-c", INTERRUPTED_DEMO, str(directory)]
        with subprocess.Popen(
            command, cwd=project_root, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            while process.poll() is None and not written(path):  # an impatient person at a terminal
                os.killpg(process.pid, number)
            code = process.wait()
        assert end_all(directory) == 0
        assert code == 130
        assert json.loads(path.read_text())["error"] == "interrupted"


def written(path: Path) -> bool:
    """Looks for it for a moment: an endless stream of signals would let nobody do anything else."""
    try:
        wait_for(path.exists, what=str(path), patience_s=0.1, every_s=0.02)
    except AssertionError:
        return False
    return True


def request(deployment: str, *, percent: float, route: int, canary: bool = True, assigned: bool = True) -> Seen:
    return {
        "kind": "request",
        "deployment": deployment,
        "variant": "canary" if canary else "champion",
        "propensity": percent / 100,
        "route_version": route,
        "assigned": assigned,
        "request_id": f"{deployment}{route}",
    }


class TestEvidence:
    def test_the_split_is_what_the_gateway_drew_for_the_canary(self) -> None:
        facts = [
            request("v1", percent=0, route=1, canary=False),
            request("v2", percent=25, route=4),
            request("v2", percent=5, route=3),
            request("v1", percent=5, route=3, canary=False),
            request("v2", percent=50, route=5),
            request("v2", percent=0, route=6, canary=False),
            request("v3", percent=0, route=7, assigned=False),
        ]
        assert evidence.routed(facts) == {"v2": [5.0, 25.0, 50.0]}
        assert evidence.requests_by_deployment(facts) == {"v1": 2, "v2": 4, "v3": 1}

    def test_feedback_counts_as_joined_with_its_request_alone(self) -> None:
        facts = [
            {"kind": "feedback", "request_id": "v11"},
            request("v1", percent=0, route=1),
            {"kind": "feedback", "request_id": "of nobody"},
        ]
        found = evidence.feedback(facts)
        assert found == {"judgements": 2, "joined": 1}
        seen = {"users": {"feedback": 2}, "feedback": found}
        assert list(claims.feedback(seen).values()) == [False]
        assert list(claims.feedback(seen | {"feedback": {"judgements": 2, "joined": 2}}).values()) == [True]
        assert list(claims.feedback(seen | {"feedback": {"judgements": 0, "joined": 0}}).values()) == [False]

    @pytest.mark.parametrize(
        ("new", "old", "held"),
        [(0.1, -0.05, [True, True]), (-0.01, -0.05, [False, True]), (0.1, -0.2, [True, False])],
    )
    def test_better_and_not_inferior_are_read_off_the_intervals(self, new: float, old: float, held: list[bool]) -> None:
        checks = {
            claims.ON_NEW: {"outcome": "pass", "interval": [new, 0.9], "threshold": 0.0},
            claims.ON_OLD: {"outcome": "pass", "interval": [old, 0.1], "threshold": -0.1},
        }
        assert list(claims.better_and_not_inferior(checks, names=("v2", "v1")).values()) == held
        assert list(claims.better_and_not_inferior({}, names=("v2", "v1")).values()) == [False, False]


class TestLineage:
    FILE, MODEL, ENDPOINT = (("file", "/x/first.jsonl"), ("x-mlflow://models", "m"), ("x-genai://endpoints", "m"))

    @staticmethod
    def event(
        inputs: list[tuple[str, str]], outputs: list[tuple[str, str]], *, digest: str, kind: str = "COMPLETE"
    ) -> str:
        def datasets(names: list[tuple[str, str]]) -> list[Seen]:
            versions = {"version": {"datasetVersion": digest}}
            return [
                {"namespace": namespace, "name": name, "facets": {} if namespace == "file" else versions}
                for namespace, name in names
            ]

        return json.dumps({"eventType": kind, "inputs": datasets(inputs), "outputs": datasets(outputs)})

    def test_leads_over_the_very_version_to_the_endpoint(self, tmp_path: Path) -> None:
        events = [
            self.event([self.FILE], [("file", "/x/model")], digest="1"),
            self.event([("file", "/x/model")], [self.MODEL], digest="1"),
            self.event([self.MODEL], [self.ENDPOINT], digest="1"),
            self.event([("file", "/x/model")], [self.MODEL], digest="2"),
            self.event([self.MODEL], [self.ENDPOINT], digest="2", kind="FAIL"),
            self.event([self.MODEL], [self.ENDPOINT], digest="3"),
        ]
        for number, text in enumerate(events):
            (tmp_path / f"events-{number}.json").write_text(text + "\n")
        edges = lineage.read(tmp_path)
        led = {
            digest: lineage.leads_to_endpoint(edges, source="first.jsonl", model="m", digest=digest) for digest in "123"
        }
        assert led == {"1": True, "2": False, "3": False}
        assert not lineage.leads_to_endpoint(edges, source="other.jsonl", model="m", digest="1")


class TestSummary:
    def test_one_table_holds_everything(self, tmp_path: Path) -> None:
        display = Display(stages.TITLES)
        display.stages[0].seconds = 41.2
        release = "b5d98a59e74fbde3"
        report = f"file:///run/store/releases/support_bot/{release}/report.html"
        gate = {"dag": "d", "run": "manual__1", "gate": "release", "task_state": "success", "verdict": "promoted"}
        seen = record.empty() | {
            "ok": True,
            "seconds": 600.0,
            "gates": [gate | {"report": report}],
            "champions": {"first": 1, "second": 2},
            "traffic": [
                {"release": release, "at": 100.0, "canary_percent": 25.0},
                {"release": release, "at": 130.0, "canary_percent": 0.0, "event": "promoted"},
            ],
            "forecast": "a good canary is certified after about 85 s (median)",
            "exposed_requests": 18,
            "requests_by_deployment": {"a": 3216},
        }
        console = Console(width=100, record=True, file=io.StringIO())
        summary.show(seen, display, path=tmp_path / "demo.json", logs=Path(".run/demo/logs"), console=console)
        lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
        for line in (
            "start the platform 41 s",
            "release (manual) promoted releases/support_bot/b5d98a*",
            "report.html of each is below .run/demo/store",
            "after the first training version 1",
            "after the retraining, to the end version 2",
            "0 s b5d98a canary 25 % #####",
            "30 s b5d98a promoted 100 % ####################",
            "foreseen by the planner certified after about 85 s",
            "requests that met it 18 of 3216 in all",
        ):
            assert line in lines
