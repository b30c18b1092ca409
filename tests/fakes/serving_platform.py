"""The serving part of the platform, real, in a folder of a test: supervisord, Envoy, ingest, and servers on demand."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx

from genai_operators.serving.contract import Deployment, GatewaySettings, ServeOptions
from genai_operators.serving.local import LocalServing, platform_programs
from genai_operators.store import MANIFEST_NAME, Store, canonical_json, directory_manifest
from tests.fakes.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
FAKE_SERVER = Path(__file__).with_name("openai_server.py")
WAIT_LIMIT_S = 60.0

Found = TypeVar("Found")


def until(condition: Callable[[], Found], *, what: str, limit_s: float = WAIT_LIMIT_S) -> Found:
    """Wait until a condition is truthy; its value."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit_s:.0f} s in vain: {what}")
        time.sleep(0.05)
    return found


class ServingPlatform:
    """Start it, use it, stop it. Its folder has a short path, for a unix socket's name may have 107 characters."""

    def __init__(self, *, workload_python: str = sys.executable, with_ingest: bool = True) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="genai-serving-"))
        self.store = Store.open(self.folder / "store")
        self.gateway_port, self.admin_port = free_port(), free_port()
        self.settings = GatewaySettings(
            gateway_url=f"http://127.0.0.1:{self.gateway_port}",
            admin_url=f"http://127.0.0.1:{self.admin_port}",
            supervisor=self.folder / "supervisor.sock",
            directory=self.folder / "gateway",
            workload_python=workload_python,
            project_root=ROOT,
        )
        self._with_ingest = with_ingest
        self._supervisor: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=self.settings.gateway_url, timeout=30)

    # --- the platform ------------------------------------------------------------------------------------------

    def start(self) -> None:
        directory = self.settings.directory
        programs = platform_programs(directory, self.store.uri, self.gateway_port, self.admin_port)
        if not self._with_ingest:
            del programs["ingest"]
        sections = [
            f"[unix_http_server]\nfile={self.settings.supervisor}",
            f"[supervisord]\nlogfile={self.folder}/supervisord.log\npidfile={self.folder}/supervisord.pid\nnodaemon=true",
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
            f"[include]\nfiles={directory}/programs.d/*.conf",
        ]
        for name, command in programs.items():
            sections.append(
                f"[program:{name}]\ncommand={' '.join(command)}\nautorestart=true\nstartsecs=0\n"
                f"redirect_stderr=true\nstdout_logfile={directory}/log/{name}.log"
            )
        configuration = self.folder / "supervisord.conf"
        configuration.write_text("\n\n".join(sections) + "\n")
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "plugins")}
        self._supervisor = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self.gateway_answers, what="the gateway answers")

    def gateway_answers(self) -> bool:
        try:
            return self.client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        if self._supervisor is not None:
            self._supervisor.send_signal(signal.SIGTERM)
            self._supervisor.wait(timeout=60)
            self._supervisor = None

    def close(self) -> None:
        self.stop()
        self.client.close()
        shutil.rmtree(self.folder)

    def pid_of(self, program: str) -> int:
        """The process of a program, as the supervisor knows it."""
        from xmlrpc.client import ServerProxy

        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self.settings.supervisor}")
        info = ServerProxy("http://localhost", transport=transport).supervisor.getProcessInfo(program)
        transport.close()
        return int(info["pid"])

    # --- models ------------------------------------------------------------------------------------------------

    def serving(self, model: str = "demo", **options: object) -> LocalServing:
        """The model on this platform, with fake servers as its runtime ``fake``."""
        fake = ("{python}", str(FAKE_SERVER), "--name", "{name}", "--port", "{port}")
        runtimes = {"fake": fake, **options.pop("runtimes", {})}  # type: ignore[dict-item]
        return LocalServing(
            model,
            settings=self.settings,
            store=self.store,
            options=ServeOptions(runtimes=runtimes, **options),  # type: ignore[arg-type]
        )

    def deployment(
        self, version: int, *, model: str = "demo", runtime: str = "fake", model_dir: Path | None = None
    ) -> Deployment:
        """:param model_dir: with real weights; a folder that a fake server does not read if not given."""
        folder = model_dir or self.folder / "models" / f"{model}-{version}"
        if model_dir is None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text(f'{{"version": {version}}}')
        manifest = directory_manifest(folder)
        (folder / MANIFEST_NAME).write_bytes(canonical_json(manifest.to_json()))
        return Deployment(model=model, version=version, digest=manifest.digest, model_dir=str(folder), runtime=runtime)

    def bring_up(self, serving: LocalServing, version: int, slot: str, **kinds: str) -> Deployment:
        """Deploy and wait until it is ready."""
        deployment = self.deployment(version, **kinds)
        serving.deploy(deployment, slot=slot)  # type: ignore[arg-type]
        until(lambda: serving.ready(slot), what=f"{deployment.id} is ready")  # type: ignore[arg-type]
        return deployment

    def port_of(self, deployment: Deployment) -> int:
        """The port of a deployed server."""
        from genai_operators.serving.state import StateDirectory

        state = StateDirectory(self.settings.directory).read(deployment.model)
        assert state is not None
        return next(server.port for server in state.servers if server.deployment.id == deployment.id)

    def faults(self, deployment: Deployment, **faults: object) -> None:
        """Make a fake server misbehave, or behave again."""
        httpx.post(f"http://127.0.0.1:{self.port_of(deployment)}/faults", json=faults).raise_for_status()

    # --- traffic -----------------------------------------------------------------------------------------------

    def ask(self, text: str = "hello", *, model: str = "demo", stream: bool = False, **more: object) -> httpx.Response:
        """One chat through the gateway."""
        headers = more.pop("headers", {})
        body = {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream, **more}
        return self.client.post("/v1/chat/completions", json=body, headers=headers)  # type: ignore[arg-type]
