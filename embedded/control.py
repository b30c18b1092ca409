"""Start, stop and inspect the embedded platform. Each command is harmless when run twice."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import cast
from xmlrpc.client import Fault, ServerProxy

import psutil

from embedded.configuration import (
    ADMIN,
    PASSWORD_BYTES,
    airflow_programs,
    create_schemas,
    environment,
    keep_database_choice,
    programs,
    write_airflow,
    write_supervisor,
)
from embedded.layout import ROOT, Layout
from embedded.processes import end_all, of_platform
from genai_operators.exceptions import ConfigurationError, GenaiError

#: MLflow's cold start was seen to take 46 s on a loaded machine, and 220 s where twelve others waited for two cores.
READY_TIMEOUT_S = 480.0
POLL_INTERVAL_S = 0.25
#: A checkpoint was measured to take under a second.
CHECKPOINT_PATIENCE_S = 10.0
HTTP_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)

Say = Callable[[str], None]


class PlatformError(GenaiError):
    """A component of the embedded platform does not come up; its log's last lines are in the message."""

    retry_helps = True


def up(directory: Path, *, say: Say = print) -> Layout:
    """Start the platform in ``directory`` and return once every component answers. Running already: nothing changes."""
    layout = Layout.at(directory)
    if layout.ports:
        keep_database_choice(layout)
    if not (layout.ports and supervisor_answers(layout)):
        layout = _begin(layout)
    since = _start_airflow(layout, say=say)
    wait_until_ready(layout, since=since, say=say)
    return layout


def _begin(layout: Layout) -> Layout:
    """Write the configuration and start the supervisor, with all that needs no Airflow."""
    if not layout.workload_python.exists():
        raise ConfigurationError("the workload environment .venv-workload is missing; run `make install`")
    end_all(layout.directory)
    layout = layout.prepared()
    keep_database_choice(layout)
    create_schemas()
    write_airflow(layout)
    write_supervisor(layout)
    _run_logged(layout, "supervisord", [_tool("supervisord"), "-c", str(layout.supervisor_configuration)])
    return layout


def _start_airflow(layout: Layout, *, say: Say) -> float:
    """Start what of Airflow does not run, its database migrated first, while MLflow comes up beside it.

    :return: when, in seconds since the epoch; 0 if all of it runs.
    """
    names = set(airflow_programs(layout))
    stopped = [row["name"] for row in _programs(layout) if row["name"] in names and row["statename"] == "STOPPED"]
    if not stopped:
        return 0.0
    started_at = time.time()
    say("migrating Airflow's database and applying airflow_settings.yaml")
    _run_logged(layout, "migrate", [_tool("airflow"), "db", "migrate"])
    _run_logged(
        layout, "settings", [sys.executable, "-m", "genai_operators.settings_file", "apply", *_settings(layout)]
    )
    with supervisor(layout) as server:
        for name in stopped:
            server.supervisor.startProcess(name, False)
    return started_at


def down(directory: Path) -> int:
    """Stop every process of the platform. Returns how many there were; training that runs writes a checkpoint first."""
    from genai_operators.compute.reconcile import stop_all
    from genai_operators.store import Store

    layout = Layout.at(directory)
    running = len(of_platform(layout.directory))
    try:
        if layout.ports and supervisor_answers(layout):
            _shut_down(layout)
        if layout.store.exists():
            stop_all(Store.open(layout.store), patience_s=CHECKPOINT_PATIENCE_S)
    finally:  # a store that cannot be read keeps nothing running
        ended = end_all(layout.directory)
    layout.remove_socket()
    return max(running, ended)


def wait_until_ready(layout: Layout, *, since: float = 0.0, say: Say = print) -> None:
    """Wait for every component's own sign of life.

    :param since: seconds since the epoch; a heartbeat from before, of a platform that was stopped, is none.
    :raises PlatformError: naming the component that is not up in time or died, with its last lines.
    """
    deadline = time.monotonic() + READY_TIMEOUT_S
    for name, works in signs_of_life(layout, since=since).items():
        say(f"waiting for {name}")
        while not works():
            _raise_if_dead(layout)
            if time.monotonic() > deadline:
                raise PlatformError(f"{name} did not answer within {READY_TIMEOUT_S:.0f} s\n{tail(layout, name)}")
            time.sleep(POLL_INTERVAL_S)


def signs_of_life(layout: Layout, *, since: float) -> dict[str, Callable[[], bool]]:
    """Program name -> whether it works. Airflow's programs without a port write heartbeats, which its API shows."""
    health = f"{layout.airflow_url}/api/v2/monitor/health"
    return {
        "mlflow": lambda: answers(f"{layout.mlflow_url}/health"),
        "envoy": lambda: answers(f"{layout.gateway_admin_url}/ready"),
        "api-server": lambda: answers(health),
        **{
            name: partial(beats, health, name.replace("-", "_"), since=since)
            for name in ("scheduler", "dag-processor", "triggerer")
        },
    }


def beats(url: str, component: str, *, since: float) -> bool:
    """Whether Airflow's health page calls a component healthy and saw a heartbeat of it since a moment."""
    text = _get(url)
    found = json.loads(text).get(component, {}) if text is not None else {}
    heartbeat = found.get(f"latest_{component}_heartbeat")
    if found.get("status") != "healthy" or heartbeat is None:
        return False
    return datetime.fromisoformat(heartbeat).timestamp() >= since


def status(directory: Path) -> list[tuple[str, str, str]]:
    """One row a component: name, state, what the supervisor says of it. Empty when the platform is down."""
    layout = Layout.at(directory)
    if not layout.ports or not supervisor_answers(layout):
        return []
    listed = [(row["name"], row["statename"], row["description"]) for row in _programs(layout)]
    workloads = [process.pid for process in of_platform(layout.directory) if _computes(process)]
    return [*listed, *(("workload", "RUNNING", f"pid {pid}") for pid in workloads)]


def _computes(process: psutil.Process) -> bool:
    """Whether it is a workload's; one that ended since it was listed is none."""
    with suppress(psutil.NoSuchProcess):
        return "genai_operators.workloads.main" in " ".join(process.cmdline())
    return False


def credentials(layout: Layout) -> tuple[str, str]:
    """User name and password of Airflow's UI and API."""
    return ADMIN, layout.secret("airflow_password", size=PASSWORD_BYTES)


def log_files(directory: Path) -> list[Path]:
    """The log files of the components, newest last."""
    return sorted((directory / "logs").glob("*.log"), key=lambda path: path.stat().st_mtime)


def tail(layout: Layout, name: str, *, lines: int = 15) -> str:
    """The last lines of a component's log."""
    path = layout.logs / f"{name}.log"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else f"(no {path})"


def answers(url: str) -> bool:
    """Whether a URL answers with success."""
    return _get(url) is not None


def _get(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=HTTP_TIMEOUT_S) as response:  # noqa: S310  our own loopback URL
            return bytes(response.read()) if response.status == 200 else None
    except (OSError, urllib.error.URLError, ValueError):
        return None


@contextmanager
def supervisor(layout: Layout) -> Iterator[ServerProxy]:
    """The supervisor's XML-RPC interface, over its unix socket."""
    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(None, None, f"unix://{layout.supervisor_socket}")
    try:
        yield ServerProxy("http://supervisor", transport=transport)
    finally:
        transport.close()


def supervisor_answers(layout: Layout) -> bool:
    """Whether the platform's supervisor runs."""
    try:
        with supervisor(layout) as server:
            server.supervisor.getState()
    except (OSError, Fault):
        return False
    return True


def _programs(layout: Layout) -> list[dict[str, str]]:
    """What the supervisor says of each of its programs."""
    with supervisor(layout) as server:
        return cast(list[dict[str, str]], server.supervisor.getAllProcessInfo())


def _shut_down(layout: Layout) -> None:
    try:
        with supervisor(layout) as server:
            server.supervisor.shutdown()
    except (OSError, Fault) as error:
        log.info("the supervisor is going down already: %s", error)


def _raise_if_dead(layout: Layout) -> None:
    ours = programs(layout)  # a model's server that fails is mended by reconcile, once Airflow runs
    for row in _programs(layout):
        if row["statename"] == "FATAL" and row["name"] in ours:
            raise PlatformError(f"{row['name']} does not stay up; its last lines:\n{tail(layout, row['name'])}")


def _settings(layout: Layout) -> list[str]:
    values = {
        "genai_store.extra.uri": layout.store.as_uri(),
        "genai_mlflow.port": str(layout.ports["mlflow"]),
        "genai_gateway.extra.gateway_url": layout.gateway_url,
        "genai_gateway.extra.admin_url": layout.gateway_admin_url,
        "genai_gateway.extra.supervisor": str(layout.supervisor_socket),
        "genai_gateway.extra.directory": str(layout.serving),
        "genai_signing.extra.private_key": str(layout.keys / "signing.pem"),
        "genai_signing.extra.trusted_keys": str(layout.keys / "trusted"),
    }
    changes = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    return [str(ROOT / "airflow_settings.yaml"), *changes]


def _run_logged(layout: Layout, name: str, command: list[str]) -> None:
    with (layout.logs / f"{name}.log").open("ab") as log:
        finished = subprocess.run(command, cwd=ROOT, env=environment(layout), stdout=log, stderr=log, check=False)
    if finished.returncode != 0:
        raise PlatformError(
            f"{' '.join(command[:3])} failed with exit code {finished.returncode}\n{tail(layout, name)}"
        )


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)
