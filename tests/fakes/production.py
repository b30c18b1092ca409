"""A project with one model in production: what its user writes, and what nothing that goes wrong may change."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from genai_operators.compute.contract import Artifact
from genai_operators.hooks.mlflow_rest import RegistryError
from genai_operators.hooks.registry import ModelRegistry
from genai_operators.lifecycle import lifecycle_dags
from genai_operators.release.ledger import Ledger
from genai_operators.release.verification import MODEL_FOLDER, read_manifest
from genai_operators.serving.contract import Deployment
from genai_operators.serving.state import ModelState, Server, StateDirectory
from genai_operators.store import Store
from tests.fakes.dag_runs import run_dag
from tests.fakes.packages import Keys, make_keys, make_model, make_package
from tests.fakes.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Failure:
    """How a task failed, for good. :param tries: how often it was tried."""

    task: str
    error: BaseException
    tries: int = 1


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the outside world goes by. :param versions: every version in the registry, complete or not."""

    ledger: tuple[bytes, ...]
    versions: tuple[tuple[int, bool], ...]
    traffic: tuple[tuple[str, bytes], ...]
    results: tuple[str, ...]


class Production:
    """Version 1 is champion: in the ledger, in a real MLflow, and in the gateway's state. The gateway itself is down.

    So whatever tried to move traffic would end as ``GatewayUnavailable``, and its traces would be in the gateway's
    files.
    """

    def __init__(
        self,
        folder: Path,
        *,
        mlflow_uri: str,
        setenv: Callable[[str, str], None],
        disk: Callable[[AbstractContextManager[None]], None],
    ) -> None:
        """Make it.

        :param setenv: as pytest's ``monkeypatch.setenv``; Airflow's connections are environment variables here.
        :param disk: mounts a disk until the test is over.
        """
        self.folder, self.setenv, self.disk = folder, setenv, disk
        self.model = f"bot_{secrets.token_hex(4)}"
        self.project = folder / "project"
        self.store = Store.open(folder / "store")
        self.ledger = Ledger(self.store, self.model)
        self.registry = ModelRegistry(mlflow_uri)
        self.keys = make_keys(folder / "keys")
        self._make_project()
        self._connect(mlflow_uri)
        self.crown()

    # --- what is there before ----------------------------------------------------------------------------------

    def _make_project(self) -> None:
        for name in ("dags", "include/models", "include/data"):
            (self.project / name).mkdir(parents=True)
        for name in ("include/recipes", "include/suites"):
            shutil.copytree(ROOT / name, self.project / name)

    def _connect(self, mlflow_uri: str) -> None:
        self.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(self.project / "dags"))
        self.setenv("GENAI_SCRATCH_ROOT", str(self.folder / "scratch"))
        dead = f"http://127.0.0.1:{free_port()}"
        self.connection("store", extra={"uri": self.store.uri})
        self.registry_at(int(mlflow_uri.rsplit(":", 1)[1]))
        self.connection(
            "gateway",
            extra={
                "gateway_url": dead,
                "admin_url": dead,
                "supervisor": str(self.folder / "supervisor.sock"),
                "directory": str(self.folder / "gateway"),
            },
        )
        self.connection("compute_local", extra={})
        keys = {"private_key": str(self.keys.private_key), "trusted_keys": str(self.keys.trusted_keys)}
        self.connection("signing", extra=keys)

    def connection(self, name: str, **fields: Any) -> None:
        """Set the Airflow connection ``genai_<name>``."""
        self.setenv(f"AIRFLOW_CONN_GENAI_{name.upper()}", json.dumps({"conn_type": "generic", **fields}))

    def registry_at(self, port: int) -> None:
        """Where Airflow believes MLflow to be."""
        self.connection("mlflow", host="127.0.0.1", port=port, schema="http")

    def crown(self) -> None:
        """Version 1 becomes champion."""
        package = make_package(self.folder / secrets.token_hex(4), keys=self.keys, content=self.model)
        champion = self.registry.register(self.model, package, tags={}, metrics={})
        evidence = {"runtime": "standard", "release": "the first"}
        self.ledger.append(
            "promote", champion.version, champion.digest, actor="a", reason="r", evidence=evidence, expected_epoch=0
        )
        deployment = Deployment(
            model=self.model,
            version=champion.version,
            digest=champion.digest,
            model_dir=str(package / MODEL_FOLDER),
            runtime="standard",
        )
        server = Server(deployment=deployment, port=free_port(), command=("serve", "{port}"))
        StateDirectory(self.folder / "gateway").write(ModelState(model=self.model, champion=server, route_version=1))

    def candidate(self, *, keys: Keys | None = None) -> int:
        """One more version in the registry, by default signed with the trusted key."""
        package = make_package(self.folder / secrets.token_hex(4), keys=keys or self.keys, content="candidate")
        return self.registry.register(self.model, package, tags={}, metrics={}).version

    def trained(self) -> tuple[str, Path]:
        """A finished fine-tuning: the URI of its result, and where the store keeps its weights."""
        prefix = "workloads/fine_tune/done"
        local = make_model(self.folder / "trained", content="trained")
        digest = read_manifest(local).digest
        self.store.upload_directory(local, f"{prefix}/output/model")
        output = Artifact(self.store.uri_of(f"{prefix}/output/model"), digest)
        self.store.put_json(f"{prefix}/spec.json", {"fingerprint": "done", "params": {}, "inputs": {}})
        result = {"version": 1, "attempt": 1, "outputs": {"model": output.to_json()}}
        self.store.put_json(f"{prefix}/result.json", result)
        return self.store.uri_of(f"{prefix}/result.json"), self.folder / "store" / prefix / "output/model"

    def write(self, path: str, content: str | bytes) -> Path:
        """A file of the project."""
        target = self.project / path
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def model_file(self, text: str) -> None:
        """What the user wrote of the model."""
        self.write(f"include/models/{self.model}.yaml", text)

    # --- what happens ------------------------------------------------------------------------------------------

    def retrain(self) -> list[Failure]:
        """Run ``<model>__retrain``, as it is made of the model file."""
        return self.run(lifecycle_dags(self.project)[f"{self.model}__retrain"])

    def run(self, dag: DAG) -> list[Failure]:
        """Run a DAG to its end; what failed, as Airflow tells a failure callback."""
        failures: list[Failure] = []
        for task in dag.tasks:
            task.on_failure_callback = [  # type: ignore[assignment]
                lambda context: failures.append(
                    Failure(context["ti"].task_id, context["exception"], context["ti"].try_number)
                )
            ]
        run_dag(dag)
        return failures

    # --- what must not change ----------------------------------------------------------------------------------

    def standing(self) -> Standing:
        """Read all of it from where it is kept."""
        gateway = self.folder / "gateway"
        return Standing(
            ledger=tuple(entry.to_bytes() for entry in self.ledger.verify()),
            versions=self._versions(),
            traffic=tuple(
                (path.relative_to(gateway).as_posix(), path.read_bytes())
                for path in sorted(gateway.rglob("*"))
                # the lock is empty; downloaded packages serve nobody
                if path.is_file() and path.name != "gateway.lock" and "packages" not in path.parts
            ),
            results=tuple(info.path for info in self.store.list("workloads") if info.path.endswith("/result.json")),
        )

    def _versions(self) -> tuple[tuple[int, bool], ...]:
        try:
            found = self.registry.rest.get("/model-versions/search", filter=f"name = '{self.model}'", max_results="100")
        except RegistryError:
            return ()
        versions = found.get("model_versions", [])
        tags = [{tag["key"]: tag["value"] for tag in version.get("tags", [])} for version in versions]
        return tuple(
            sorted((int(v["version"]), t.get("genai.complete") == "true") for v, t in zip(versions, tags, strict=True))
        )
