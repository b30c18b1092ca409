"""What DAG files cost the DAG processor: importing our operators, and parsing many model files.

``python benchmarks/parse.py [--json FILE]`` prints each figure, the baseline measured in the same run, and the ratio.
Every measurement is a fresh process, in CPU seconds; the best of a few counts, as others use the machine too. Bytecode
is cached, as in all processes of an Airflow but the first, so whoever forbids that is not heard.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from benchmarks.decisions_figures import Collected, Figure, Report, main  # noqa: E402

ROUNDS = 3
MODELS_COUNT = 200

IMPORT = """
import airflow.sdk, time
begin = time.process_time()
import genai_operators
for name in genai_operators.__all__:
    getattr(genai_operators, name)
print(time.process_time() - begin)
"""

#: What every DAG file needs is imported before the clock starts, for both alike.
PRELUDE = """
import sys, time
from pathlib import Path
from airflow.sdk import DAG, AssetAlias, CronTriggerTimetable, Param
from airflow.providers.standard.operators.empty import EmptyOperator
"""

MODELS = f"""{PRELUDE}
begin = time.process_time()
from genai_operators.lifecycle import lifecycle_dags
dags = lifecycle_dags(Path(sys.argv[1]))
assert len(dags) == 3 * int(sys.argv[2]), len(dags)
print(time.process_time() - begin)
"""

#: The same DAGs, tasks, order, schedules and form fields, of operators that do nothing. With ``usual`` the forms go to
#: the constructor, as everybody writes it; else they are attached to the finished DAG, as ours are.
EMPTY = f"""{PRELUDE}
from airflow.sdk.definitions.param import ParamsDict
usual = "usual" in sys.argv
begin = time.process_time()
TASKS = {{
    "retrain": ["plan", "validate", "fine_tune", "evaluate", "register", "approve", "release"],
    "drift": ["check"],
    "rollback": ["rollback"],
}}
PARAMS = {{"retrain": 8, "drift": 0, "rollback": 2}}
SCHEDULES = {{
    "retrain": lambda number: AssetAlias(f"model_{{number}}_drift"),
    "drift": lambda number: CronTriggerTimetable("@hourly", timezone="UTC"),
    "rollback": lambda number: None,
}}
dags = {{}}
for number in range(int(sys.argv[2])):
    for name, tasks in TASKS.items():
        params = {{f"field_{{i}}": Param("", type="string", title="t") for i in range(PARAMS[name])}}
        schedule = SCHEDULES[name](number)
        given = params if usual else None
        with DAG(f"model_{{number}}__{{name}}", schedule=schedule, params=given, catchup=False, tags=["genai"]) as dag:
            previous = None
            for task_id in tasks:
                task = EmptyOperator(task_id=task_id)
                if previous is not None:
                    previous >> task
                previous = task
        if not usual:
            object.__setattr__(dag, "params", ParamsDict(params))
        dags[dag.dag_id] = dag
print(time.process_time() - begin)
"""

MODEL_FILE = """\
description: Model number {number}
owner: bench
data:
  train: include/data/rows.csv
  output: json
"""


def measure(*, full: bool, report: Report | None = None) -> list[Figure]:
    """Both figures; ``full`` makes no difference."""
    collected = Collected(report)
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        make_project(project, MODELS_COUNT)
        collected.add("importing every operator over airflow.sdk", best(IMPORT, project, 0), "CPU s", target=0.3)
        ours, usual = best(MODELS, project, MODELS_COUNT), best(EMPTY, project, MODELS_COUNT, "usual")
        name = f"parsing {MODELS_COUNT} model files, against the same DAGs of empty operators"
        collected.add(name, ours, "CPU s", baseline=usual, target=1.5 * usual + 0.5)
        attached = best(EMPTY, project, MODELS_COUNT)
        collected.add(f"{name}, their forms attached as ours are", ours, "CPU s", baseline=attached)
    return collected.figures


def make_project(project: Path, count: int) -> None:
    """A project folder with so many model files."""
    for name in ("models", "recipes", "suites"):
        (project / "include" / name).mkdir(parents=True)
    (project / "include/recipes/small.yaml").write_text("max_steps: 10\n")
    (project / "include/suites/messages.yaml").write_text("{}\n")
    for number in range(count):
        (project / f"include/models/model_{number}.yaml").write_text(MODEL_FILE.format(number=number))


def best(program: str, project: Path, count: int, *options: str) -> float:
    """Seconds that the program prints in its last line, the least of a few fresh processes."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(project / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(project / "no-plugins"),
        "PYTHONPATH": str(ROOT / "plugins"),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", program, str(project), str(count), *options]
    seconds = []
    for _ in range(ROUNDS):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        seconds.append(float(done.stdout.splitlines()[-1]))
    return min(seconds)


if __name__ == "__main__":
    main(measure, str(__doc__))
