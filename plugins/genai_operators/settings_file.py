"""Applies ``airflow_settings.yaml``, the Astro CLI's file of connections, pools and variables, to any Airflow.

``python -m genai_operators.settings_file apply airflow_settings.yaml [--set CONNECTION.FIELD[.KEY]=VALUE ...]``

Uses Airflow's own import commands, in this one process. What is in the file is created or overwritten; what is not in
it stays as it is, so applying it twice changes nothing. Values are never printed. Relative paths are kept as written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from genai_operators.exceptions import ConfigurationError
from genai_operators.spec.problems import Problem, choice, problems_of, show
from genai_operators.spec.section import Section
from genai_operators.spec.yaml_nodes import YamlError, parse_yaml


def _empty_as_none(value: Any) -> Any:
    return None if value == "" else value


def _parsed_extra(value: Any) -> Any:
    """The Astro CLI takes a mapping or a string of JSON."""
    if value in (None, ""):
        return {}
    try:
        return json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError as error:
        raise ValueError(f"write a mapping, or JSON: {error}") from error


def _as_list(value: Any) -> Any:
    return [] if value is None else value


Text = Annotated[str | None, BeforeValidator(_empty_as_none)]


class Connection(Section):
    """One entry of ``connections``; field names are the Astro CLI's."""

    conn_id: str = Field(min_length=1, pattern=r"^[\w.-]+$")
    conn_type: Text = None
    conn_host: Text = None
    conn_schema: Text = None
    conn_login: Text = None
    conn_password: Text = None
    conn_port: Annotated[int | None, BeforeValidator(_empty_as_none)] = None
    conn_uri: Text = None
    conn_extra: Annotated[dict[str, Any], BeforeValidator(_parsed_extra)] = Field(default={})


class Pool(Section):
    """One entry of ``pools``."""

    pool_name: str = Field(min_length=1, max_length=256)
    pool_slot: int = Field(ge=-1)
    pool_description: str | None = ""
    pool_include_deferred: bool = False


class Variable(Section):
    """One entry of ``variables``."""

    variable_name: str = Field(min_length=1)
    variable_value: str | None = ""


class Contents(Section):
    """The three lists; the Astro CLI's template leaves unused ones empty."""

    connections: Annotated[tuple[Connection, ...], BeforeValidator(_as_list)] = ()
    pools: Annotated[tuple[Pool, ...], BeforeValidator(_as_list)] = ()
    variables: Annotated[tuple[Variable, ...], BeforeValidator(_as_list)] = ()


class SettingsFile(Section):
    """The whole file."""

    airflow: Contents


def read_settings(path: Path) -> Contents:
    """Read and check a settings file.

    :raises ConfigurationError: with every problem, its line and the allowed keys.
    """
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
        return SettingsFile.model_validate(document.value or {}).airflow
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} does not exist; name the project's airflow_settings.yaml") from error
    except YamlError as error:
        raise ConfigurationError("\n".join(str(Problem.at(str(path), *found)) for found in error.problems)) from error
    except ValidationError as error:
        problems = problems_of(error, file=str(path), document=document, model=SettingsFile)
        message = "\n".join(map(str, problems))
        for detail in error.errors():
            message = message.replace(show(detail["input"]), "the value")
        raise ConfigurationError(message) from None  # the cause holds values


def override(contents: Contents, assignments: Sequence[str]) -> Contents:
    """Replace fields of connections: ``genai_mlflow.port=5001``, ``genai_gateway.extra.gateway_url=http://...``.

    :raises ConfigurationError: an assignment that does not parse, or names a connection or field that does not exist.
    """
    connections = {connection.conn_id: connection for connection in contents.connections}
    for assignment in assignments:
        target, equals, value = assignment.partition("=")
        name, *keys = target.split(".")
        if not equals or not keys:
            raise ConfigurationError(f"--set {target!r}: write CONNECTION.FIELD=VALUE or CONNECTION.extra.KEY=VALUE")
        if name not in connections:
            raise ConfigurationError(f"--set {target!r}: connection {choice(name, connections)}")
        connections[name] = _replace(connections[name], keys, value, target)
    return contents.model_copy(update={"connections": tuple(connections.values())})


def _replace(connection: Connection, keys: list[str], value: str, target: str) -> Connection:
    record = connection.model_dump()
    fields = [name.removeprefix("conn_") for name in Connection.model_fields if name not in ("conn_id", "conn_uri")]
    if keys[0] not in fields:
        raise ConfigurationError(f"--set {target!r}: field {choice(keys[0], fields)}")
    if keys[0] == "extra":
        if len(keys) != 2:
            raise ConfigurationError(f"--set {target!r}: write {connection.conn_id}.extra.KEY=VALUE")
        record["conn_extra"] = {**record["conn_extra"], keys[1]: value}
    else:
        record[f"conn_{keys[0]}"] = value
    try:
        return Connection.model_validate(record)
    except ValidationError as error:
        raise ConfigurationError(f"--set {target!r}: {error.errors()[0]['msg']}") from error


def apply(contents: Contents) -> None:
    """Write everything into Airflow's database, through the public ``airflow ... import`` commands.

    :raises ConfigurationError: Airflow refused something; the message holds its words.
    """
    exports: dict[str, Any] = {
        "connections": {c.conn_id: _connection_record(c) for c in contents.connections},
        "pools": {
            p.pool_name: {
                "slots": p.pool_slot,
                "description": p.pool_description or "",
                "include_deferred": p.pool_include_deferred,
            }
            for p in contents.pools
        },
        "variables": {v.variable_name: v.variable_value or "" for v in contents.variables},
    }
    # Passwords may be in it, so the folder is private (mkdtemp: mode 0700) and gone at the end.
    with tempfile.TemporaryDirectory(prefix="genai-settings-") as folder:
        for kind, records in exports.items():
            if records:
                file = Path(folder, f"{kind}.json")
                file.write_text(json.dumps(records), encoding="utf-8")
                _run_airflow_command(kind, file)


def _connection_record(connection: Connection) -> dict[str, Any] | str:
    if connection.conn_uri:
        return connection.conn_uri
    record = {
        "conn_type": connection.conn_type or "generic",
        "host": connection.conn_host,
        "schema": connection.conn_schema,
        "login": connection.conn_login,
        "password": connection.conn_password,
        "port": connection.conn_port,
        "extra": json.dumps(connection.conn_extra, sort_keys=True),
    }
    return {key: value for key, value in record.items() if value is not None}


def _run_airflow_command(kind: str, file: Path) -> None:
    import io

    from airflow.cli.cli_parser import get_parser

    arguments = [kind, "import", str(file), *(["--overwrite"] if kind == "connections" else [])]
    options = get_parser().parse_args(arguments)
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            options.func(options)
        except SystemExit as error:
            if error.code not in (None, 0):
                raise ConfigurationError(f"airflow {kind} import: {error.code} {output.getvalue()}") from error
    # `connections import` says so and goes on where it refuses one
    if refused := [line for line in output.getvalue().splitlines() if line.startswith("Could not import")]:
        raise ConfigurationError(f"airflow {kind} import: {'; '.join(refused)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit 1 with a clear message when the file or a ``--set`` is wrong."""
    parser = argparse.ArgumentParser(prog="python -m genai_operators.settings_file", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("apply", help="create or overwrite what the file names")
    command.add_argument("file", type=Path)
    command.add_argument("--set", action="append", default=[], metavar="CONNECTION.FIELD=VALUE", dest="assignments")
    options = parser.parse_args(arguments)
    try:
        contents = override(read_settings(options.file), options.assignments)
        apply(contents)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{options.file}: applied {len(contents.connections)} connections, {len(contents.pools)} pools, "
        f"{len(contents.variables)} variables"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
