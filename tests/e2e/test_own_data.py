"""A user's own data, through the same DAGs: validated, trained, evaluated with intervals, registered, released.

``GENAI_TEST_OWN_DATA`` names a folder with ``train.csv`` and ``test.csv``, columns ``text`` and ``category``, some ten
thousand rows; training takes about ten minutes on one core. Without it the test skips.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.airflow_api import FINISHED, AirflowApi
from embedded.layout import Layout
from embedded.processes import end_all, of_platform
from genai_operators.release.ledger import Ledger
from genai_operators.store import Store, locate
from tests.fakes.serving_platform import until

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.workload_env]

VARIABLE = "GENAI_TEST_OWN_DATA"
MODEL = "banking"
EXACT_MATCH = 0.85
RUN_TIMEOUT_S = 3000.0

MODEL_FILE = """\
schema_version: 1
data:
  train: {folder}/train.csv
  evaluation: {folder}/test.csv
  prompt: "{{text}}"
  answer: "{{category}}"
train:
  recipe: small
evaluate:
  maximum_items: 4000
"""


@pytest.fixture
def project(project_root: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the project with one more model file."""
    data = os.environ.get(VARIABLE)
    if not data:
        pytest.skip(f"{VARIABLE} names no folder with train.csv and test.csv")
    copy = tmp_path / "project"
    tracked = subprocess.run(["git", "ls-files"], cwd=project_root, capture_output=True, text=True, check=True)
    for name in tracked.stdout.splitlines():
        if not name.startswith("tests/") and (project_root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(project_root / name, copy / name)
    for environment in (".venv", ".venv-workload"):
        (copy / environment).symlink_to(project_root / environment)
    (copy / f"include/models/{MODEL}.yaml").write_text(MODEL_FILE.format(folder=Path(data).resolve()))
    yield copy
    end_all(copy / ".run" / "platform")
    assert not of_platform(copy / ".run" / "platform")


def test_own_data_goes_through_the_same_dags(project: Path, workload_python: str) -> None:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    variables["PYTHONPATH"] = f"{project / 'plugins'}{os.pathsep}{project}"
    subprocess.run([str(project / ".venv/bin/python"), "-m", "embedded", "up"], cwd=project, env=variables, check=True)
    layout = Layout.at(project / ".run" / "platform")
    with AirflowApi(layout.airflow_url, user="admin", password=layout.secret("airflow_password")) as api:
        dag = f"{MODEL}__retrain"
        until(lambda: api.dag_exists(dag), what="the DAG is parsed", limit_s=120)
        run = api.trigger(dag, conf={})
        until(lambda: api.run(dag, run)["state"] in FINISHED, what="the run ends", limit_s=RUN_TIMEOUT_S)
        states = {task["task_id"]: task["state"] for task in api.tasks(dag, run)}
        assert api.run(dag, run)["state"] == "success", states
        reference = api.result(dag, run, "evaluate")
    store, path = locate(reference["result"])
    result = store.get_json(path)
    print(json.dumps(result["metrics"]))
    assert result["metrics"]["exact_match_old"] >= EXACT_MATCH
    assert any(check["interval"] for check in result["verdict"]["checks"])
    champion = Ledger(Store.open(layout.store), MODEL).champion()
    assert champion is not None
    assert champion.version == 1
