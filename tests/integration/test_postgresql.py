"""The platform on PostgreSQL: Airflow and MLflow in one database, a schema each. Skipped where none is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from embedded import control
from embedded.airflow_api import FINISHED, AirflowApi
from embedded.layout import HOST, free_port
from embedded.processes import of_platform
from tests.fakes.serving_platform import until

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

DRY_RUN_TIMEOUT_S = 300.0


def postgresql_binaries() -> Path | None:
    """Folder of `initdb` and `pg_ctl`: on the path, or where Debian puts them."""
    if found := shutil.which("pg_ctl"):
        return Path(found).parent
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return candidates[-1].parent if candidates else None


@pytest.fixture
def database_url() -> Iterator[str]:
    binaries = postgresql_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql-15)")
    folder = Path(tempfile.mkdtemp(prefix="genai-postgresql-"))
    as_owner: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        as_owner = ["runuser", "-u", "postgres", "--"]
    port = free_port(0, taken=set())
    data = folder / "data"
    options = f"-c listen_addresses={HOST} -c port={port} -c unix_socket_directories={folder} -c fsync=off"
    control_command = [*as_owner, str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log")]
    initialise = [*as_owner, str(binaries / "initdb"), "-D", str(data), "-U", "genai", "--auth=trust", "-E", "UTF8"]
    subprocess.run(initialise, check=True, capture_output=True, cwd=folder)
    subprocess.run([*control_command, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    try:
        yield f"postgresql+psycopg://genai@{HOST}:{port}/postgres"
    finally:
        subprocess.run([*control_command, "-m", "immediate", "stop"], check=True, capture_output=True, cwd=folder)
        shutil.rmtree(folder)


def test_airflow_runs_a_dag_and_mlflow_registers_on_postgresql(
    database_url: str, workload_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PLATFORM_DATABASE_URL", database_url)
    directory = tmp_path / "platform"
    try:
        layout = control.up(directory)
        user, password = control.credentials(layout)
        with AirflowApi(layout.airflow_url, user=user, password=password) as api:
            dag = "support_bot__retrain"
            until(lambda: api.dag_exists(dag), what="the DAG is parsed", limit_s=DRY_RUN_TIMEOUT_S)
            run = api.trigger(dag, conf={"dry_run": True})
            until(lambda: api.run(dag, run)["state"] in FINISHED, what="the dry run ends", limit_s=DRY_RUN_TIMEOUT_S)
            states = {task["task_id"]: task["state"] for task in api.tasks(dag, run)}
        assert states["plan"] == "success"
        assert {state for task, state in states.items() if task != "plan"} == {"skipped"}
        created = httpx.post(f"{layout.mlflow_url}/api/2.0/mlflow/registered-models/create", json={"name": "m"})
        assert created.status_code == 200
        assert not (layout.airflow_home / "airflow.db").exists()
        assert not (directory / "mlflow.db").exists()
        assert tables(database_url) >= {("airflow", "dag_run"), ("mlflow", "registered_models")}
    finally:
        control.down(directory)
    assert not of_platform(directory)


def tables(url: str) -> set[tuple[str, str]]:
    import psycopg

    with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://")) as connection:
        rows = connection.execute("select schemaname, tablename from pg_tables").fetchall()
    return {(str(schema), str(table)) for schema, table in rows}
