"""The client of Airflow's API against a server that loses answers, as a busy one does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from embedded import airflow_api
from embedded.airflow_api import AirflowApi
from embedded.layout import HOST


class ForgetfulAirflow(HTTPServer):
    """Takes every request, and drops the first answer to each kind of it."""

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Handler)
        self.received: list[str] = []
        self.runs: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: ForgetfulAirflow

    def do_GET(self) -> None:
        self._answer(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/auth/token":
            self._answer(201, {"access_token": "t"})
            return
        known = body["dag_run_id"] in self.server.runs
        self.server.runs.add(body["dag_run_id"])
        self._answer(409 if known else 200, body)

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        first = f"{self.command} {self.path}" not in self.server.received
        self.server.received.append(f"{self.command} {self.path}")
        if first:
            self.close_connection = True
            return
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[ForgetfulAirflow]:
    monkeypatch.setattr(airflow_api, "RETRY_PAUSE_S", 0.0)
    with ForgetfulAirflow() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_every_lost_answer_is_asked_for_again_and_no_run_is_started_twice(airflow: ForgetfulAirflow) -> None:
    with AirflowApi(airflow.url, user="admin", password="x") as api:
        assert api.dag_exists("bot__retrain")
        run = api.trigger("bot__retrain", conf={})
    assert airflow.runs == {run}
    assert airflow.received == [
        *["POST /auth/token"] * 2,
        *["GET /api/v2/dags/bot__retrain"] * 2,
        *["POST /api/v2/dags/bot__retrain/dagRuns"] * 2,
    ]
