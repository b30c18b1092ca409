"""What runs in the containers beside Airflow: the gateway, the preparation, the health checks, the model server."""

from __future__ import annotations

import json
import shlex
import stat
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from moto.server import ThreadedMotoServer

from genai_operators.serving import gateway
from tests.unit.deployment.programs import load


class TestGateway:
    def test_users_come_in_from_outside_the_container_and_nobody_reaches_the_admin_interface(
        self, tmp_path: Path
    ) -> None:
        found = gateway.bootstrap(tmp_path, gateway_port=8081, admin_port=9901, gateway_address="0.0.0.0")
        (listener,) = found["static_resources"]["listeners"]
        assert listener["address"]["socket_address"] == {"address": "0.0.0.0", "port_value": 8081}
        assert found["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"

    def test_without_being_asked_it_is_loopback(self, tmp_path: Path) -> None:
        found = gateway.bootstrap(tmp_path, gateway_port=8081, admin_port=9901)
        (listener,) = found["static_resources"]["listeners"]
        assert listener["address"]["socket_address"]["address"] == "127.0.0.1"

    def test_the_supervisor_keeps_the_programs_and_takes_in_model_servers(self, tmp_path: Path) -> None:
        command = ["envoy", "--config-path", "/a folder/100%.json"]
        found = load("airflow/gateway.py").configuration(tmp_path, {"envoy": command})
        section = found["program:envoy"]
        assert shlex.split(section["command"].replace("%%", "%")) == command
        assert section["autorestart"] == "true"
        assert found["include"]["files"] == str(tmp_path / "programs.d" / "*.conf")
        assert found["unix_http_server"]["chmod"] == "0700"


class TestHealth:
    @pytest.fixture
    def api(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
        """Airflow's health report, as the API server gives it."""
        report: dict[str, Any] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path == "/api/v2/monitor/health" else 404)
                self.end_headers()
                self.wfile.write(json.dumps(report).encode())

            def log_message(self, *_: Any) -> None:
                """Silent."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AIRFLOW_API_URL", f"http://127.0.0.1:{server.server_port}")
        yield report
        server.shutdown()
        server.server_close()

    def test_a_component_is_as_healthy_as_its_heartbeat(self, api: dict[str, Any]) -> None:
        healthy = load("airflow/healthy.py")
        api |= {
            "scheduler": {"status": "healthy"},
            "triggerer": {"status": "unhealthy"},
            "dag_processor": {"status": None},
        }
        assert healthy.is_healthy("scheduler")
        assert not healthy.is_healthy("triggerer")
        assert not healthy.is_healthy("dag_processor")

    def test_nothing_is_healthy_where_nobody_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        healthy = load("airflow/healthy.py")
        monkeypatch.setenv("AIRFLOW_API_URL", "http://127.0.0.1:1")
        monkeypatch.setattr(healthy, "ANSWERS", {"gateway": "http://127.0.0.1:1/ready"})
        assert not healthy.is_healthy("scheduler")
        assert not healthy.is_healthy("gateway")

    def test_a_wrong_name_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", ["healthy.py", "shceduler"])
        with pytest.raises(SystemExit, match="scheduler"):
            load("airflow/healthy.py").main()


class TestInitialise:
    @pytest.fixture
    def object_store(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        server.start()
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        httpx.post(f"http://{host}:{port}/moto-api/reset").raise_for_status()  # what moto keeps is the whole process's
        yield f"http://{host}:{port}"
        server.stop()

    def test_buckets_are_made_once_and_twice_is_harmless(self, object_store: str) -> None:
        import boto3

        initialise = load("airflow/initialise.py")
        for _ in range(2):
            initialise.create_buckets(["s3://genai/store", "s3://mlflow/artifacts"])
        listed = boto3.client("s3", endpoint_url=object_store).list_buckets()["Buckets"]
        assert {bucket["Name"] for bucket in listed} == {"genai", "mlflow"}

    def test_passwords_are_private(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        initialise = load("airflow/initialise.py")
        monkeypatch.setattr(initialise, "PASSWORDS", tmp_path / "airflow" / "passwords.json")
        monkeypatch.setenv("AIRFLOW_ADMIN_PASSWORD", "swordfish")
        initialise.write_passwords()
        assert json.loads(initialise.PASSWORDS.read_text()) == {"admin": "swordfish"}
        assert stat.S_IMODE(initialise.PASSWORDS.stat().st_mode) == 0o600


class TestModelServer:
    @pytest.fixture
    def environment(self, tmp_path: Path) -> dict[str, str]:
        (tmp_path / "config.json").write_text("{}")
        where = {"HOST": "127.0.0.1", "PORT": "8080", "MODEL_DIRECTORY": str(tmp_path)}
        return {**where, "MODEL_NAME": "support_bot"}

    def test_serves_under_the_name_on_the_address(self, environment: dict[str, str]) -> None:
        command = load("model_server/serve.py").command(environment)
        assert command[-6:] == ["serve", "support_bot", "--host", "127.0.0.1", "--port", "8080"]

    def test_with_a_digest_it_verifies_first(self, environment: dict[str, str]) -> None:
        command = load("model_server/serve.py").command({**environment, "MODEL_DIGEST": "a" * 64})
        assert "genai_operators.serving.verified_start" in command
        assert command.index("--digest") < command.index("--") < command.index("serve")

    @pytest.mark.parametrize("name", ["", "a/b"])
    def test_a_name_that_cannot_be_is_refused(self, environment: dict[str, str], name: str) -> None:
        with pytest.raises(SystemExit, match="MODEL_NAME"):
            load("model_server/serve.py").command({**environment, "MODEL_NAME": name})

    def test_no_model_is_named(self, environment: dict[str, str]) -> None:
        with pytest.raises(SystemExit, match="holds no model"):
            load("model_server/serve.py").command({**environment, "MODEL_DIRECTORY": "/nowhere"})
