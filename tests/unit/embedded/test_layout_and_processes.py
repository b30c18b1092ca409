"""The embedded platform keeps to itself: its ports, its secrets, its processes."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from embedded import control
from embedded.configuration import (
    PASSWORD_BYTES,
    database_url,
    environment,
    keep_database_choice,
    programs,
    write_airflow,
    write_supervisor,
)
from embedded.layout import HOST, MAX_SOCKET_PATH_BYTES, Layout, free_port
from embedded.processes import MARKER, end_all, of_platform
from genai_operators.exceptions import ConfigurationError
from tests.fakes.workload_run import wait_for


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.at(tmp_path / "platform").prepared()


class TestPorts:
    def test_a_taken_port_is_replaced_and_the_new_one_is_kept(self, tmp_path: Path) -> None:
        with socket.create_server((HOST, 0)) as taken:
            port = taken.getsockname()[1]
            assert free_port(port, taken=set()) != port
        layout = Layout.at(tmp_path / "platform").prepared()
        assert len(set(layout.ports.values())) == len(layout.ports)
        assert Layout.at(tmp_path / "platform").ports == layout.ports

    def test_a_long_path_gets_its_socket_elsewhere_in_a_private_folder(self, tmp_path: Path) -> None:
        layout = Layout.at(tmp_path / ("deep" * 25)).prepared()
        assert len(os.fsencode(layout.supervisor_socket)) <= MAX_SOCKET_PATH_BYTES
        assert stat.S_IMODE(layout.supervisor_socket.parent.stat().st_mode) == 0o700
        layout.supervisor_socket.parent.chmod(0o755)
        with pytest.raises(ConfigurationError, match="not private"):
            layout.prepared()
        layout.supervisor_socket.touch()
        for _ in range(2):
            control.down(layout.directory)
            assert not layout.supervisor_socket.parent.exists()


class TestSecrets:
    def test_are_made_once_and_only_their_owner_reads_them(self, layout: Layout) -> None:
        password = layout.secret("airflow_password", size=PASSWORD_BYTES)
        assert Layout.at(layout.directory).secret("airflow_password") == password
        write_airflow(layout)
        for path in (layout.directory / "secrets.json", *layout.airflow_home.glob("*.*")):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path

    def test_nobody_else_enters_the_platforms_folder(self, layout: Layout) -> None:
        assert stat.S_IMODE(layout.directory.stat().st_mode) == 0o700

    def test_a_password_of_the_database_is_on_no_command_line(
        self, layout: Layout, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = "postgresql+psycopg://u:hidden%40word@127.0.0.1/db"
        monkeypatch.setenv("PLATFORM_DATABASE_URL", url)
        assert not any("hidden" in word for command in programs(layout).values() for word in command)
        write_supervisor(layout)
        options = ServerOptions()
        options.realize(["-c", str(layout.supervisor_configuration)])
        (group,) = [group for group in options.process_group_configs if group.name == "mlflow"]
        given = group.process_configs[0].environment["MLFLOW_BACKEND_STORE_URI"]
        assert given == f"{url}?options=-csearch_path%3Dmlflow"

    def test_are_not_in_the_environment_of_the_processes(self, layout: Layout) -> None:
        write_airflow(layout)
        secrets = {layout.secret(name) for name in ("jwt", "api", "fernet", "internal_api")}
        assert not secrets & set(environment(layout).values())

    def test_another_airflows_settings_and_the_databases_url_are_not_inherited(
        self, layout: Layout, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")
        monkeypatch.setenv("PLATFORM_DATABASE_URL", "postgresql+psycopg://u:hidden@127.0.0.1/db")
        monkeypatch.setenv("LANG", "C.UTF-8")
        inherited = environment(layout)
        assert inherited["LANG"] == "C.UTF-8"
        assert not {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "PLATFORM_DATABASE_URL"} & set(inherited)


class TestDatabase:
    def test_is_a_file_unless_the_variable_names_another(self, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PLATFORM_DATABASE_URL", raising=False)
        assert database_url(layout, "mlflow") == f"sqlite:///{layout.directory}/mlflow.db"
        monkeypatch.setenv("PLATFORM_DATABASE_URL", "postgresql+psycopg://u@127.0.0.1/db")
        assert database_url(layout, "airflow").endswith("/db?options=-csearch_path%3Dairflow")

    def test_another_driver_is_refused_with_what_to_write(
        self, layout: Layout, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PLATFORM_DATABASE_URL", "mysql://u@127.0.0.1/db")
        with pytest.raises(ConfigurationError, match=r"must start with postgresql\+psycopg://"):
            database_url(layout, "airflow")

    @pytest.mark.parametrize(
        ("first", "then", "message"),
        [
            ("", "postgresql+psycopg://u:hidden@127.0.0.1/db", r"in SQLite, but .*u@127.0.0.1/db.*unset PLATFORM"),
            (
                "postgresql+psycopg://u:hidden@127.0.0.1/db",
                "",
                r"in postgresql\+psycopg://u@127.0.0.1/db, but .* SQLite",
            ),
            ("postgresql+psycopg://u@127.0.0.1/db", "postgresql+psycopg://u@127.0.0.1/other", "/other"),
        ],
    )
    def test_another_one_than_at_the_first_start_is_refused(
        self, layout: Layout, monkeypatch: pytest.MonkeyPatch, first: str, then: str, message: str
    ) -> None:
        monkeypatch.setenv("PLATFORM_DATABASE_URL", first)
        keep_database_choice(layout)
        monkeypatch.setenv("PLATFORM_DATABASE_URL", then)
        with pytest.raises(ConfigurationError, match=message) as refused:
            control.up(layout.directory)
        assert "hidden" not in str(refused.value)
        assert not (layout.airflow_home / "airflow.cfg").exists()

    def test_the_choice_is_kept_without_the_password_which_may_change(
        self, layout: Layout, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PLATFORM_DATABASE_URL", "mysql://u@127.0.0.1/db")
        with pytest.raises(ConfigurationError, match="must start with"):
            keep_database_choice(layout)
        for password in ("hidden", "another%40one"):
            monkeypatch.setenv("PLATFORM_DATABASE_URL", f"postgresql+psycopg://u:{password}@127.0.0.1/db")
            keep_database_choice(layout)
        assert "hidden" not in (layout.directory / "database.json").read_text()


class TestHealth:
    @pytest.fixture
    def health(self) -> Iterator[HTTPServer]:
        """Airflow's health page, whose body a test sets."""

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(self.server.body).encode())  # type: ignore[attr-defined]

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        with HTTPServer((HOST, 0), Page) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server
            server.shutdown()

    def test_only_a_fresh_heartbeat_is_a_sign_of_life(self, health: HTTPServer) -> None:
        url = f"http://{HOST}:{health.server_port}"
        heard = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
        for status, after_s, works in (("healthy", -1, True), ("healthy", 1, False), ("unhealthy", -1, False)):
            scheduler = {"status": status, "latest_scheduler_heartbeat": heard.isoformat()}
            health.body = {"scheduler": scheduler, "triggerer": {"status": None}}  # type: ignore[attr-defined]
            assert control.beats(url, "scheduler", since=heard.timestamp() + after_s) is works
            assert not control.beats(url, "triggerer", since=0.0)
        assert not control.beats(f"http://{HOST}:{free_port(0, taken=set())}", "scheduler", since=0.0)

    @pytest.mark.parametrize(
        ("dead", "told"), [("mlflow", "mlflow does not stay up"), ("bot-v1-standard", "mlflow did not answer within")]
    )
    def test_a_component_that_dies_ends_the_wait_and_a_models_server_does_not(
        self, layout: Layout, monkeypatch: pytest.MonkeyPatch, dead: str, told: str
    ) -> None:
        layout.supervisor_configuration.write_text(
            f"[supervisord]\nlogfile={layout.logs}/supervisord.log\npidfile={layout.directory}/supervisord.pid\n"
            f"[unix_http_server]\nfile={layout.supervisor_socket}\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[program:{dead}]\ncommand=/bin/false\nstartretries=0\n"
        )
        supervisord = str(Path(sys.executable).parent / "supervisord")
        command = [supervisord, "-c", str(layout.supervisor_configuration)]
        subprocess.run(command, env=environment(layout), check=True, capture_output=True)
        try:
            wait_for(lambda: control.status(layout.directory)[0][1] == "FATAL", what="a dead component")
            monkeypatch.setattr(control, "READY_TIMEOUT_S", 0.5)
            with pytest.raises(control.PlatformError, match=told):
                control.wait_until_ready(layout)
        finally:
            assert control.down(layout.directory) > 0


class TestProcesses:
    @pytest.fixture
    def stubborn(self, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
        """A process that ignores SIGTERM, with a child in a session of its own."""
        program = (
            "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            "subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'], start_new_session=True);"
            "print('up', flush=True); signal.pause()"
        )
        environment = {**os.environ, MARKER: str(tmp_path)}
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
            process.kill()

    def test_all_of_a_platform_end_and_nobody_elses(
        self, stubborn: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("embedded.processes.TERMINATE_TIMEOUT_S", 0.2)
        assert end_all(tmp_path / "another") == 0
        assert stubborn.poll() is None
        assert len(of_platform(tmp_path)) == 2
        assert end_all(tmp_path) == 2
        assert not of_platform(tmp_path)
        assert end_all(tmp_path) == 0
