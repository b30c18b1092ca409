"""The wheel: any Airflow can ``pip install`` the operators; together with the plugins folder it is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BUILD_TIMEOUT_S = 300


@pytest.fixture(scope="module")
def wheel(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that the checkout stays clean."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project_root / name, source / name)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(project_root / "plugins", source / "plugins", ignore=ignored)
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(target), str(source)]
    subprocess.run(command, check=True, timeout=BUILD_TIMEOUT_S)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def empty_airflow(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment that has Airflow and the wheel, no checkout, no plugins folder."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    # Airflow and its dependencies come from this environment by a path file; installing them again takes minutes.
    (site / "airflow.pth").write_text(str(Path(pytest.__file__).parents[1]))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    home = tmp_path_factory.mktemp("airflow")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW") and k != "PYTHONPATH"}
    return {**environment, "AIRFLOW_HOME": str(home), "GENAI_TEST_PYTHON": str(folder / "bin" / "python")}


def run_airflow(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [environment["GENAI_TEST_PYTHON"], "-m", "airflow", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
    )


def test_the_wheel_holds_the_package_and_all_that_is_not_python(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "genai_operators/serving/gateway.lua" in names
    assert "genai_operators/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "dags", "include", "embedded"))]
    assert "genai_plugin.py" not in names


def test_airflow_finds_provider_and_plugin(empty_airflow: dict[str, str]) -> None:
    providers = run_airflow(empty_airflow, "providers", "list", "--output", "json")
    assert "genai-operators" in {row["package_name"] for row in json.loads(providers.stdout)}, providers.stderr
    plugins = run_airflow(empty_airflow, "plugins", "--output", "json")
    assert "genai" in {row["name"] for row in json.loads(plugins.stdout)}, plugins.stderr


def test_the_wheel_together_with_the_plugins_folder_is_refused(
    empty_airflow: dict[str, str], project_root: Path
) -> None:
    environment = {**empty_airflow, "AIRFLOW__CORE__PLUGINS_FOLDER": str(project_root / "plugins")}
    program = "from airflow import plugins_manager as p; print(p.get_import_errors())"
    command = [environment["GENAI_TEST_PYTHON"], "-c", program]
    shown = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=True
    )
    assert "remove one: `pip uninstall genai-operators`, or the folder" in shown.stdout
