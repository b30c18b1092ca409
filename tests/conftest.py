"""Fixtures that every test may use."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")

# Airflow reads its configuration when it is first imported, whichever test does it; never the developer's own.
_AIRFLOW_HOME = tempfile.mkdtemp(prefix="genai-tests-airflow-")
atexit.register(shutil.rmtree, _AIRFLOW_HOME, ignore_errors=True)
os.environ.update(
    {
        "AIRFLOW_HOME": _AIRFLOW_HOME,
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_AIRFLOW_HOME}/airflow.db",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
)


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def workload_python(project_root: Path) -> str:
    """The Python of the workload environment. ``make test`` creates it; without it the test skips, visibly."""
    python = project_root / ".venv-workload" / "bin" / "python"
    if not python.exists():
        pytest.skip(".venv-workload is missing; run `make install`")
    return str(python)


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """An empty Airflow database, made once; for `dag.test()` and Airflow's own API."""
    from airflow.utils.db import initdb

    initdb()
