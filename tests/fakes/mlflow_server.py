"""A real MLflow server on loopback, for tests that talk to one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.ports import free_port

#: A cold start was measured to take up to 45 s on a loaded machine.
START_TIMEOUT_S = 150.0
POLL_S = 0.25


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Start a server that keeps everything in ``folder``; yields its URI."""
    import httpx

    folder.mkdir(parents=True, exist_ok=True)
    uri = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "server.log").open("wb") as log:
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **quiet}
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(httpx, uri):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MLflow did not start:\n{(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(POLL_S)
        yield uri
    finally:
        _end(server)


def _answers(httpx: object, uri: str) -> bool:
    try:
        return bool(httpx.get(f"{uri}/health", timeout=2).status_code == 200)  # type: ignore[attr-defined]
    except httpx.TransportError:  # type: ignore[attr-defined]
        return False


def _end(server: subprocess.Popen[bytes]) -> None:
    import psutil

    try:
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    server.wait(30)
