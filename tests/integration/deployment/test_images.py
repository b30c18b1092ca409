"""The images build, and what is in them runs as a cluster runs it. Skipped where nothing builds images."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute import attempts
from genai_operators.compute.contract import Attempt, Workload
from genai_operators.compute.owners import Owner
from genai_operators.store import Store
from tests.fakes import checkpointing
from tests.integration.deployment.builder import Builder, NoContainers, why_not

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=why_not() or "")]

WORKLOAD_USER = 10001
#: What the supervisor and the two-second workload import; no torch, so that the build takes seconds.
LIGHT = ("numpy", "obstore", "psutil", "pydantic", "PyYAML")
# As an emptyDir is: writable by whoever the container runs as.
SCRATCH = ("--tmpfs", "/scratch:rw,mode=1777")


@pytest.fixture(scope="module")
def builder(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    try:
        builder = Builder(tmp_path_factory.mktemp("containers"), cache=project_root / ".run" / "containers")
    except NoContainers as error:
        pytest.skip(f"no container can be run here: {error}")
    yield builder
    builder.remove()


@pytest.fixture(scope="module")
def context(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as the build sees it, but with both lists of requirements cut down to :data:`LIGHT`."""
    folder = tmp_path_factory.mktemp("context")
    ignored = shutil.ignore_patterns("__pycache__", ".*", "results")
    for name in ("plugins", "docker", "dags", "include"):
        shutil.copytree(project_root / name, folder / name, ignore=ignored)
    for name in (
        *("pyproject.toml", "README.md", "LICENSE", ".dockerignore"),
        *("requirements.txt", "constraints.txt", "airflow_settings.yaml"),
    ):
        shutil.copy(project_root / name, folder / name)
    for name, least in (("docker/workload/requirements.txt", len(LIGHT)), ("requirements.txt", 1)):
        requirements = folder / name
        kept = [line for line in requirements.read_text().splitlines() if line.startswith(("-c", *LIGHT))]
        assert len(kept) >= least + 1
        requirements.write_text("\n".join(kept) + "\n")
    return folder


@pytest.fixture(scope="module")
def workload_image(builder: Builder, context: Path) -> str:
    return builder.build(
        context, "docker/workload/Dockerfile", tag="genai-workload:light", BASE_IMAGE=builder.base, TORCH_INDEX=""
    )


@pytest.fixture(scope="module")
def airflow_image(builder: Builder, context: Path) -> str:
    return builder.build(
        context, "docker/airflow/Dockerfile", tag="genai-airflow:light", target="airflow", BASE_IMAGE=builder.base
    )


@pytest.fixture(scope="module")
def model_server_image(builder: Builder, context: Path, workload_image: str) -> str:
    return builder.build(
        context, "docker/model_server/Dockerfile", tag="genai-model-server:light", WORKLOAD_IMAGE=workload_image
    )


def python(builder: Builder, image: str, program: str, **arguments: Any) -> subprocess.CompletedProcess[str]:
    options = ("--entrypoint", "python", *arguments.pop("options", ()))
    return builder.run(image, "-c", program, options=options, **arguments)


class TestWorkloadImage:
    def test_runs_as_a_number_without_any_right(self, builder: Builder, workload_image: str) -> None:
        program = (
            "import os, getpass; print(os.getuid(), getpass.getuser());"
            "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('Cap')])"
        )
        shown = python(builder, workload_image, program)
        assert shown.stdout.splitlines()[0] == f"{WORKLOAD_USER} genai", shown.stderr
        assert set(eval(shown.stdout.splitlines()[1])) == {"0" * 16}

    def test_its_root_cannot_be_written(self, builder: Builder, workload_image: str) -> None:
        for place in ("/opt/genai/x", "/etc/x", "/x"):
            refused = python(builder, workload_image, f"open({place!r}, 'w')", options=SCRATCH)
            assert refused.returncode != 0
            assert "Read-only file system" in refused.stderr or "Permission denied" in refused.stderr

    def test_holds_the_package_from_its_wheel_and_nothing_that_builds(
        self, builder: Builder, workload_image: str
    ) -> None:
        program = (
            "import importlib.metadata as m, importlib.util as u, genai_operators as g, os;"
            "print(m.version('genai-operators'), 'site-packages' in g.__file__);"
            "print([name for name in ('pip', 'airflow', 'pytest') if u.find_spec(name)]);"
            "print([name for name in ('/source', '/wheels', '/requirements', '/tools') if os.path.exists(name)])"
        )
        shown = python(builder, workload_image, program)
        assert shown.stdout.splitlines()[0].endswith("True"), shown.stderr
        assert shown.stdout.splitlines()[1:] == ["[]", "[]"]

    def test_its_entry_is_the_supervisor(self, builder: Builder, workload_image: str) -> None:
        shown = builder.run(workload_image, "--help", options=SCRATCH)
        assert shown.returncode == 0, shown.stderr
        assert "--attempt" in shown.stdout

    def test_a_workload_runs_to_its_result_in_a_store(
        self, builder: Builder, workload_image: str, project_root: Path, tmp_path: Path
    ) -> None:
        store = Store.open(tmp_path / "store")
        attempt = claim_attempt(store)
        give_away(tmp_path / "store")
        done = builder.run(
            workload_image,
            *("--store", "file:///store", "--directory", attempt.directory, "--attempt", "1", "--grace", "5"),
            *("--", "python", "-m", "genai_operators.workloads.main"),
            options=SCRATCH,
            environment={"GENAI_EXTRA_WORKLOADS": checkpointing.EXTRA_WORKLOADS, "PYTHONPATH": "/project"},
            volumes={tmp_path / "store": "/store:rw", project_root / "tests": "/project/tests:ro"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        result = attempts.find_result(store, attempt.directory)
        assert result is not None
        assert result.attempt == 1
        ending = attempts.recorded_ending(attempt)
        assert ending is not None
        assert ending.code == 0
        log = b"".join(store.get(info.path) for info in store.list(attempt.path("log")))
        assert b"line of step 20" in log


class TestAirflowImage:
    """Without Airflow itself, which takes minutes to install: the layout, the user and what may be written."""

    def test_runs_as_the_charts_user_with_the_project_in_place(self, builder: Builder, airflow_image: str) -> None:
        program = (
            "import os; print(os.getuid(), os.getgid(), os.environ['AIRFLOW_HOME']);"
            "import genai_operators as g; print(g.__file__);"
            "print([name for name in ('dags/reconcile.py', 'include/models', 'airflow_settings.yaml')"
            " if not os.path.exists(name)])"
        )
        shown = python(builder, airflow_image, program)
        assert shown.stdout.splitlines() == [
            "50000 0 /opt/airflow",
            "/opt/airflow/plugins/genai_operators/__init__.py",
            "[]",
        ], shown.stderr

    def test_writes_where_it_must_and_nowhere_else(self, builder: Builder, airflow_image: str) -> None:
        folders = ("/opt/airflow/logs", "/var/lib/genai/keys")
        volumes = tuple(word for folder in folders for word in ("--tmpfs", f"{folder}:rw,mode=0770"))
        for folder in folders:
            written = python(builder, airflow_image, f"open('{folder}/x', 'w')", options=volumes)
            assert written.returncode == 0, written.stderr
        refused = python(builder, airflow_image, "open('/opt/airflow/dags/x.py', 'w')")
        assert refused.returncode != 0


class TestModelServerImage:
    def test_says_what_is_missing(self, builder: Builder, model_server_image: str) -> None:
        shown = builder.run(model_server_image, options=SCRATCH)
        assert "set MODEL_NAME" in shown.stderr
        shown = builder.run(model_server_image, options=SCRATCH, environment={"MODEL_NAME": "support_bot"})
        assert "/mnt/models holds no model" in shown.stderr

    def test_is_unhealthy_while_nothing_answers(self, builder: Builder, model_server_image: str) -> None:
        (test, *command) = health_check(builder, model_server_image)
        assert test == "CMD"
        shown = builder.run(model_server_image, *command[1:], options=("--entrypoint", command[0], *SCRATCH))
        assert shown.returncode == 1

    def test_starts_beside_a_link_of_the_models_name(
        self, builder: Builder, model_server_image: str, tmp_path: Path
    ) -> None:
        (tmp_path / "config.json").write_text("{}")
        tmp_path.chmod(0o755)
        shown = builder.run(
            model_server_image,
            options=SCRATCH,
            environment={"MODEL_NAME": "support_bot"},
            volumes={tmp_path: "/mnt/models:ro"},
        )
        # This light image has no transformers, so getting as far as asking for it is all that can be seen.
        assert "transformers" in shown.stderr
        assert "ModuleNotFoundError" in shown.stderr


def health_check(builder: Builder, image: str) -> list[str]:
    configuration: Any = builder.inspect(image)
    checked = configuration.get("Healthcheck") or configuration["Config"]["Healthcheck"]
    return list(checked["Test"])


def claim_attempt(store: Store) -> Attempt:
    """The first attempt at a workload of twenty steps."""
    workload = Workload(kind=checkpointing.KIND, params={"steps": 20, "step_s": 0.02, "witness": "/store/witness"})
    owner = Owner(dag_id="dag", run_id="manual__one", task_id="train")
    attempts.join(store, workload, owner)
    attempt = attempts.claim(
        store, workload.directory, number=1, backend={"target": "local"}, owner=owner, step=-1, stalls=0
    )
    assert attempt is not None
    return attempt


def give_away(folder: Path) -> None:
    """What a volume's ``fsGroup`` does in a cluster: the container's user may write."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, WORKLOAD_USER, WORKLOAD_USER)
    for parent in folder.parents[:1]:
        parent.chmod(0o755)
