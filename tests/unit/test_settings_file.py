from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genai_operators.exceptions import ConfigurationError
from genai_operators.settings_file import Contents, override, read_settings

FILE = """\
airflow:
  connections:
    - conn_id: genai_mlflow
      conn_type: http
      conn_host: 127.0.0.1
      conn_port: 5000
    - conn_id: genai_store
      conn_type: generic
      conn_extra: {uri: .run/store}
    - conn_id: legacy
      conn_uri: postgresql://u:hunter2-xyzzy@db/x
    - conn_id: as_text
      conn_extra: '{"a": 1}'
      conn_login:
      conn_port: ""
  pools:
    - {pool_name: gpu, pool_slot: 2, pool_description: cards, pool_include_deferred: true}
    - {pool_name: plain, pool_slot: 3}
  variables:
    - {variable_name: colour, variable_value: blue}
"""


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    file = tmp_path / "airflow_settings.yaml"
    file.write_text(FILE)
    return read_settings(file)


class TestReading:
    def test_takes_what_the_astro_cli_takes(self, contents: Contents) -> None:
        by_id = {connection.conn_id: connection for connection in contents.connections}
        assert by_id["as_text"].conn_extra == {"a": 1}
        assert by_id["as_text"].conn_port is None
        assert by_id["genai_store"].conn_extra == {"uri": ".run/store"}

    def test_the_projects_own_file_is_valid(self, project_root: Path) -> None:
        names = {connection.conn_id for connection in read_settings(project_root / "airflow_settings.yaml").connections}
        assert names == {
            "genai_store", "genai_mlflow", "genai_gateway", "genai_compute_local", "genai_kubernetes", "genai_signing"
        }  # fmt: skip

    def test_empty_lists_of_the_astro_template_are_fine(self, tmp_path: Path) -> None:
        file = tmp_path / "airflow_settings.yaml"
        file.write_text("airflow:\n  connections:\n  pools:\n  variables:\n")
        assert read_settings(file) == Contents()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "airflow: {conections: []}\n",
                r"s.yaml:1:11: unknown key 'conections' in airflow; did you mean 'connections'",
            ),
            ("airflow:\n  pools:\n    - {pool_name: a}\n", r"s.yaml:3:7: airflow.pools.0.pool_slot is missing"),
            ("airflow:\n  connections:\n    - {conn_id: a, conn_extra: '{'}\n", "write a mapping, or JSON"),
            ("airflow:\n\tpools:\n", "a tab indents"),
        ],
    )
    def test_a_wrong_file_names_the_line(self, tmp_path: Path, text: str, message: str) -> None:
        file = tmp_path / "s.yaml"
        file.write_text(text)
        with pytest.raises(ConfigurationError, match=message):
            read_settings(file)

    def test_a_message_holds_no_value(self, tmp_path: Path) -> None:
        file = tmp_path / "s.yaml"
        fields = """conn_password: [hunter2], conn_extra: '{"token": "hunter2", }', conn_uri: {a: hunter2}"""
        file.write_text(f"airflow:\n  connections:\n    - {{conn_id: a, {fields}}}\n")
        with pytest.raises(ConfigurationError, match="conn_password: the value should be") as raised:
            read_settings(file)
        assert "hunter2" not in str(raised.value)
        with pytest.raises(ConfigurationError, match=r"'b\.password'") as raised:
            override(Contents(), ["b.password=hunter2"])
        assert "hunter2" not in str(raised.value)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="does not exist"):
            read_settings(tmp_path / "nothing.yaml")


class TestOverriding:
    def test_replaces_a_field_or_an_extra_and_nothing_else(self, contents: Contents) -> None:
        changed = override(contents, ["genai_mlflow.port=5001", "genai_store.extra.uri=file:///x=y"])
        by_id = {connection.conn_id: connection for connection in changed.connections}
        assert by_id["genai_mlflow"].conn_port == 5001
        assert by_id["genai_mlflow"].conn_host == "127.0.0.1"
        assert by_id["genai_store"].conn_extra == {"uri": "file:///x=y"}
        assert changed.pools == contents.pools

    @pytest.mark.parametrize(
        ("assignment", "message"),
        [
            ("genai_mlfow.port=1", "did you mean 'genai_mlflow'"),
            ("genai_mlflow.prt=1", "did you mean 'port'"),
            ("genai_mlflow.port=x", "valid integer"),
            ("genai_mlflow.port", "write CONNECTION.FIELD=VALUE"),
            ("genai_store.extra=1", "extra.KEY=VALUE"),
        ],
    )
    def test_says_what_it_does_not_understand(self, contents: Contents, assignment: str, message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            override(contents, [assignment])


@pytest.mark.slow
class TestApplying:
    def test_twice_leaves_airflow_as_once_did(self, tmp_path: Path, project_root: Path) -> None:
        file = tmp_path / "airflow_settings.yaml"
        file.write_text(FILE)
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "no-plugins"),
            "PYTHONPATH": str(project_root / "plugins"),
        }

        def python(*arguments: str) -> str:
            command = [sys.executable, *arguments]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert "hunter2-xyzzy" not in done.stdout + done.stderr
            return done.stdout

        python("-m", "airflow", "db", "migrate")
        states = []
        for _ in range(2):
            said = python("-m", "genai_operators.settings_file", "apply", str(file), "--set", "genai_mlflow.port=5001")
            assert "4 connections, 2 pools, 1 variables" in said
            states.append(json.loads(python("-c", STATE).splitlines()[-1]))
        assert states[0] == states[1]
        assert states[0]["connections"]["genai_mlflow"] == ["http", "127.0.0.1", 5001, {}]
        assert states[0]["connections"]["genai_store"] == ["generic", None, None, {"uri": ".run/store"}]
        assert states[0]["connections"]["legacy"][:2] == ["postgres", "db"]
        assert states[0]["pools"]["gpu"] == [2, True]
        assert states[0]["pools"]["plain"] == [3, False]
        assert states[0]["variables"] == {"colour": "blue"}


# Asks Airflow's own database what it holds now, not our importer.
STATE = """
import json
from airflow.models import Connection, Pool, Variable
from airflow.utils.session import create_session
from sqlalchemy import select
with create_session() as session:
    print(json.dumps({
        "connections": {c.conn_id: [c.conn_type, c.host, c.port, c.extra_dejson]
                        for c in session.scalars(select(Connection))},
        "pools": {p.pool: [p.slots, p.include_deferred] for p in session.scalars(select(Pool))},
        "variables": {v.key: v.val for v in session.scalars(select(Variable))},
    }))
"""
