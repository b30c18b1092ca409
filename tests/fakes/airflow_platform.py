"""A small, real Airflow: API server, scheduler, DAG processor and triggerers as processes that a test may kill.

Loopback only, on ports that are free when it starts; SQLite; LocalExecutor. Its one DAG file is a test's own, or holds
``checkpointing_deferred`` and ``checkpointing_on_worker``, whose runs are configured by ``{"settings", "store"}``.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.ports import free_port
from tests.fakes.workload_run import environment, wait_for

DAG_FILE = """
from datetime import timedelta

from airflow.sdk import DAG

from tests.fakes.checkpointing_operator import CheckpointingOperator

for name, deferrable in (("deferred", True), ("on_worker", False)):
    with DAG(f"checkpointing_{name}", schedule=None, render_template_as_native_obj=True):
        CheckpointingOperator(
            task_id="train",
            settings="{{ dag_run.conf['settings'] }}",
            store="{{ dag_run.conf['store'] }}",
            compute={"target": "local", "grace_s": 5.0},
            poll_interval=0.5,
            deferrable=deferrable,
            retries=3,
            retry_delay=timedelta(seconds=1),
        )
"""
COMPONENTS = {
    "api": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
    "second triggerer": ["triggerer", "--skip-serve-logs"],
}
REQUEST_TIMEOUT_S = 120.0
START_PATIENCE_S = 180.0


class AirflowPlatform:
    """Everything of it lies in a folder."""

    def __init__(
        self,
        folder: Path,
        project_root: Path,
        *,
        dag_file: str = DAG_FILE,
        dag: str = "checkpointing_deferred",
        task: str = "train",
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, without a triggerer.

        :param dag: one of the file; there is a platform once it is known.
        :param task: which task of a DAG is looked at and meddled with.
        :param env: more environment of its processes, e.g. connections.
        """
        self.folder = folder
        self.watched = task
        self.port = free_port()
        self.password = secrets.token_hex(8)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "dags").mkdir()
        (folder / "dags" / "crash.py").write_text(dag_file)
        (folder / "passwords.json").write_text(json.dumps({"admin": self.password}))
        settings = self._configuration(project_root)
        self.env = {**os.environ, **environment(folder, project_root), **settings, **(env or {})}
        subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"], env=self.env, check=True, capture_output=True
        )
        for component in ("api", "scheduler", "dag-processor"):
            self.start(component)
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=REQUEST_TIMEOUT_S)
        token = wait_for(self._log_in, what="the API server", patience_s=START_PATIENCE_S)
        self._client.headers["Authorization"] = f"Bearer {token}"
        parsed = f"/api/v2/dags/{dag}"
        wait_for(lambda: self._client.get(parsed).is_success, what="the DAG", patience_s=START_PATIENCE_S)

    def _configuration(self, project_root: Path) -> dict[str, str]:
        url = f"http://127.0.0.1:{self.port}"
        settings = {
            "CORE": {
                "DAGS_FOLDER": str(self.folder / "dags"),
                "PLUGINS_FOLDER": str(project_root / "plugins"),
                "LOAD_EXAMPLES": "False",
                "EXECUTOR": "LocalExecutor",
                "PARALLELISM": "2",
                "DAGS_ARE_PAUSED_AT_CREATION": "False",
                "SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
                "SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.folder / "passwords.json"),
                "EXECUTION_API_SERVER_URL": f"{url}/execution/",
                "INTERNAL_API_SECRET_KEY": secrets.token_hex(16),
            },
            "DATABASE": {"SQL_ALCHEMY_CONN": f"sqlite:///{self.folder}/airflow.db?timeout=60"},
            "API": {"HOST": "127.0.0.1", "PORT": str(self.port), "BASE_URL": url, "WORKERS": "1"},
            "API_AUTH": {"JWT_SECRET": secrets.token_hex(32)},
            "SCHEDULER": {"SCHEDULER_IDLE_SLEEP_TIME": "0.3", "SCHEDULER_HEALTH_CHECK_THRESHOLD": "10"},
            "TRIGGERER": {"JOB_HEARTBEAT_SEC": "1", "TRIGGERER_HEALTH_CHECK_THRESHOLD": "5", "ON_KILL_TIMEOUT": "120"},
            "LOGGING": {"BASE_LOG_FOLDER": str(self.folder / "logs")},
            "OPENLINEAGE": {"DISABLED": "True"},
            "USAGE_DATA_COLLECTION": {"ENABLED": "False"},
        }
        flat = {f"AIRFLOW__{part}__{key}": value for part, keys in settings.items() for key, value in keys.items()}
        return {"AIRFLOW_HOME": str(self.folder), "SPT_NOENV": "1", **flat}

    # --- processes ---------------------------------------------------------------------------------------------

    def start(self, component: str) -> None:
        log = (self.folder / f"{component}.log").open("ab")
        self.processes[component] = subprocess.Popen(
            [sys.executable, "-m", "airflow", *COMPONENTS[component]],
            env=self.env,
            cwd=self.folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()

    def signal(self, component: str, number: int) -> None:
        """To the component and all processes that it started (not to workloads: they left its group)."""
        os.killpg(self.processes[component].pid, number)

    def kill(self, component: str) -> None:
        if component in self.processes:
            self.signal(component, signal.SIGKILL)
            self.processes.pop(component).wait()

    def end(self) -> None:
        for component in list(self.processes):
            self.kill(component)
        self._client.close()

    # --- what a user does --------------------------------------------------------------------------------------

    def trigger(self, dag: str, **conf: Any) -> str:
        return str(self._send("POST", f"/dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})["dag_run_id"])

    def run_state(self, dag: str, run: str) -> str:
        return str(self._send("GET", f"/dags/{dag}/dagRuns/{run}")["state"])

    def task(self, dag: str, run: str) -> dict[str, Any]:
        return self._send("GET", f"/dags/{dag}/dagRuns/{run}/taskInstances/{self.watched}")

    def mark(self, dag: str, run: str, state: str) -> None:
        self._send("PATCH", f"/dags/{dag}/dagRuns/{run}/taskInstances/{self.watched}", {"new_state": state})

    def clear(self, dag: str, run: str) -> None:
        body = {"dry_run": False, "task_ids": [self.watched], "dag_run_id": run, "only_failed": False}
        self._send("POST", f"/dags/{dag}/clearTaskInstances", body)

    def log(self, dag: str, run: str, try_number: int) -> str:
        path = f"/dags/{dag}/dagRuns/{run}/taskInstances/{self.watched}/logs/{try_number}"
        return json.dumps(self._send("GET", path))

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        response = self._client.request(method, f"/api/v2{path}", json=body)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        found: dict[str, Any] = response.json()
        return found

    def _log_in(self) -> str | None:
        assert self.processes["api"].poll() is None, (self.folder / "api.log").read_text()[-2000:]
        try:
            answer = self._client.post("/auth/token", json={"username": "admin", "password": self.password})
        except httpx.TransportError:
            return None
        return answer.json()["access_token"] if answer.is_success else None
