"""What the README tells a stranger to type, write or open works; and the project speaks of itself alone."""

from __future__ import annotations

import csv
import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

import genai_operators
from embedded.configuration import database_url
from embedded.layout import Layout
from genai_operators.lifecycle import lifecycle_dags
from genai_operators.settings_file import read_settings
from genai_operators.spec.data import DataFormat
from genai_operators.spec.loader import read_model
from genai_operators.spec.model import ModelSpec
from genai_operators.workloads.mapping import RowMapping, map_rows
from genai_operators.workloads.sources import read_rows

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ("README.md", "CONTRIBUTING.md", "docs/architecture.md")

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(README)
#: Code within a sentence; a line break in it is a space.
SPANS = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", BLOCK.sub("", README))]
COMMANDS = [
    line.partition("#")[0].strip() for language, text in BLOCKS if language == "sh" for line in text.splitlines()
]

#: Written apart, so that this file does not say them either.
FOREIGN = ("/wo" + "rk/", "/ro" + "ot/", "sub" + "agent", "../sha" + "red")


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS if found == language]


def spans(pattern: str) -> list[re.Match[str]]:
    """Matches in commands and in code within sentences, each once."""
    found = {match[0]: match for text in [*COMMANDS, *SPANS] for match in re.finditer(pattern, text)}
    return list(found.values())


def outside_make() -> dict[str, str]:
    """``make test`` runs this, and its flags are not for the makes that are started here."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


@functools.cache
def make_help() -> str:
    done = subprocess.run(["make", "help"], cwd=ROOT, env=outside_make(), capture_output=True, text=True, check=True)
    return done.stdout


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project elsewhere, so that its commands meet no platform of a developer; with this one's environments."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in tracked():
        if not name.startswith("tests/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(Path(sys.prefix))
    return copy


class TestCommands:
    @pytest.mark.parametrize(
        ("target", "told"),
        [
            ("help", "make demo "),
            ("status", "the platform is down"),
            ("logs", "no logs in"),
            ("down", "nothing was running"),
            ("check", "support_bot"),
            ("schema", ""),
            ("clean", "nothing was running"),
        ],
    )
    def test_what_harms_nothing_runs_twice(self, checkout: Path, target: str, told: str) -> None:
        schema = "include/schema/model.schema.json"
        for _ in range(2):
            done = subprocess.run(
                ["make", "--assume-old=install", target],
                cwd=checkout,
                env=outside_make(),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert told in done.stdout
        assert (checkout / schema).read_bytes() == (ROOT / schema).read_bytes()
        assert not (checkout / ".run").exists()

    @pytest.mark.parametrize("target", sorted(match[1] for match in spans(r"\bmake ([a-z]+(?:-[a-z]+)*)")))
    def test_make_knows_the_target_and_explains_it(self, target: str) -> None:
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=ROOT, env=outside_make(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert f"make {target} " in make_help()

    @pytest.mark.parametrize("command", sorted(match[1] for match in spans(r"\bpython -m ([^`)]+)")))
    def test_a_program_has_the_options_and_files_that_it_is_given(self, command: str) -> None:
        module, *arguments = command.split()
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "plugins")}
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments, "--help"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "usage" in done.stdout.lower()
        for argument in arguments:
            assert argument in done.stdout or (ROOT / argument).exists(), f"{argument} is neither option nor file"

    def test_the_shell_blocks_hold_nothing_else(self) -> None:
        assert COMMANDS
        assert all(re.fullmatch(r"make [a-z]+", command) for command in COMMANDS)

    def test_the_database_can_be_named_as_shown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (named,) = spans(r"PLATFORM_DATABASE_URL=(\S+)")
        monkeypatch.setenv("PLATFORM_DATABASE_URL", named[1])
        assert database_url(Layout.at(tmp_path), "airflow").startswith(named[1])


class TestModelFiles:
    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        for name in ("include/recipes", "include/suites"):
            shutil.copytree(ROOT / name, tmp_path / name)
        (tmp_path / "include/models").mkdir()
        (tmp_path / "include/data").mkdir()
        return tmp_path

    @pytest.mark.parametrize("text", blocks("yaml"))
    def test_a_block_is_a_whole_model_file_that_reads_its_data(self, project: Path, text: str) -> None:
        path = project / "include/models/tickets.yaml"
        path.write_text(text)
        model = read_model(path, root=project)
        assert model.spec is not None, model.message
        data = model.spec.data
        mapping = RowMapping.of(prompt=data.prompt, answer=data.answer, system=data.system, output=data.output)
        columns = [*mapping.prompt.columns, *mapping.answer.columns]
        (train,) = data.train
        with (project / train).open("w", newline="") as file:
            csv.writer(file).writerows([columns, [f"the {column}" for column in columns]])
        rows = read_rows(project / train, name=train, declared=DataFormat(data.format))
        (record,) = map_rows(rows, mapping, source="train")
        assert record.messages[0].content == data.prompt.format(**{column: f"the {column}" for column in columns})
        assert record.answer == f"the {mapping.answer.columns[0]}"

    def test_five_lines_make_the_dags_that_are_named(self, project: Path) -> None:
        text = blocks("yaml")[0]
        assert len(text.splitlines()) == 5
        (project / "include/models/tickets.yaml").write_text(text)
        named = {match[1] for match in spans(r"<name>(__\w+)")}
        assert set(lifecycle_dags(project)) == {f"tickets{name}" for name in named}

    def test_the_fields_that_are_named_exist(self) -> None:
        fields = [span for span in SPANS if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", span) and not (ROOT / span).exists()]
        assert fields
        for field in fields:
            section: Any = ModelSpec
            for part in field.split("."):
                assert part in section.model_fields, field
                section = section.model_fields[part].annotation

    def test_text_of_users_is_kept_for_as_long_as_is_said(self) -> None:
        (days,) = re.findall(r"`serve\.capture\.retention`\s+\((\d+) days by default\)", README)
        spec = ModelSpec.model_validate({"data": {"train": "rows.csv"}})
        assert spec.serve.capture.retention == timedelta(days=int(days))


class TestPython:
    @pytest.mark.parametrize("text", blocks("python"))
    def test_a_block_is_a_pipeline_in_its_order(self, text: str) -> None:
        with DAG("readme", schedule=None) as dag:
            exec(compile(text, "README.md", "exec"), {})  # the block is what is tested
        assert [task.task_id for task in dag.topological_sort()] == ["validate", "fine_tune", "evaluate"]

    def test_the_operators_that_are_named_are_public_and_documented(self) -> None:
        names = {match[0] for match in spans(r"\b[A-Z]\w+Operator\b")}
        assert names
        for name in names:
            assert name in genai_operators.__all__
            assert getattr(genai_operators, name).__doc__, name


class TestPlaces:
    @pytest.mark.parametrize("page", PAGES)
    def test_links_lead_somewhere(self, page: str) -> None:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if "://" not in target:
                assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"

    def test_files_and_folders_that_are_named_exist(self) -> None:
        folders = "benchmarks|dags|docker|docs|embedded|include|plugins|tests"
        places = [match[0] for match in spans(rf"(?<![\w./])(?:{folders})/[\w./-]*(?![\w<])")]
        assert {"include/suites/", "plugins/"} <= set(places)
        for place in places:
            assert (ROOT / place).exists(), place

    def test_connections_and_dags_that_are_named_exist(self) -> None:
        connections = {connection.conn_id for connection in read_settings(ROOT / "airflow_settings.yaml").connections}
        dags = {path.read_text(encoding="utf-8") for path in (ROOT / "dags").glob("*.py")}
        for name in {match[0] for match in spans(r"\bgenai_(?!operators)\w+")}:
            assert name in connections or any(f'"{name}"' in text for text in dags), name


def texts() -> Iterator[tuple[str, str]]:
    for name in tracked():
        try:
            yield name, (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not text


def test_the_project_speaks_of_itself_alone() -> None:
    found = [
        f"{name}:{number}: {phrase}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        for phrase in FOREIGN
        if phrase in line.lower()
    ]
    assert not found, "\n".join(found)
