"""Program files, read back by the supervisor's own reader; and what a start of the platform makes of them."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest

from genai_operators.exceptions import ServingFailed
from genai_operators.serving.contract import Deployment, GatewaySettings
from genai_operators.serving.local import platform_programs
from genai_operators.serving.program_files import ENVIRONMENT, Program, ProgramFiles
from genai_operators.serving.servers import Servers, free_port
from genai_operators.serving.state import ModelState, Server, StateDirectory


def read_back(path: Path, folder: Path) -> dict[str, str]:
    """What supervisord would run."""
    from supervisor.options import ServerOptions

    main = folder / "supervisord.conf"
    main.write_text(f"[supervisord]\n[include]\nfiles={path}\n")
    options = ServerOptions()
    options.configfile = str(main)
    options.read_config(str(main))
    (group,) = options.configroot.supervisord.process_group_configs
    (config,) = group.process_configs
    return {"name": config.name, "command": config.command, **config.environment}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(name="demo-v1-fake", command=["serve"], directory=tmp_path, environment=ENVIRONMENT)


class TestFile:
    @pytest.mark.parametrize("argument", ["100%", "%(here)s", "a b", "it's", 'say "x"', "ü", "a;b", "a ;b", ""])
    def test_any_argument_arrives_as_it_was(self, argument: str, program: Program, tmp_path: Path) -> None:
        files = ProgramFiles(tmp_path)
        files.write(dataclasses.replace(program, command=["serve", argument, "end"]))
        found = read_back(files.file_path(program.name), tmp_path)
        assert shlex.split(found["command"]) == ["serve", argument, "end"]

    def test_servers_use_one_thread_and_stay_offline(self, program: Program, tmp_path: Path) -> None:
        files = ProgramFiles(tmp_path)
        files.write(program)
        found = read_back(files.file_path(program.name), tmp_path)
        assert (found["OMP_NUM_THREADS"], found["HF_HUB_OFFLINE"], found["TRANSFORMERS_OFFLINE"]) == ("1", "1", "1")

    def test_environment_that_a_file_cannot_hold_is_refused(self, program: Program, tmp_path: Path) -> None:
        with pytest.raises(ServingFailed, match="holds a quote or a line break"):
            ProgramFiles(tmp_path).write(dataclasses.replace(program, environment={"A": 'x"y'}))

    def test_last_lines_of_a_log_or_that_there_is_none(self, tmp_path: Path) -> None:
        files = ProgramFiles(tmp_path)
        assert files.last_lines("demo") == "(it wrote no log)"
        files.log_path("demo").parent.mkdir()
        files.log_path("demo").write_text("\n".join(f"line {k}" for k in range(1000)))
        lines = files.last_lines("demo").splitlines()
        assert (len(lines), lines[-1]) == (20, "line 999")


class TestStart:
    def test_writes_what_the_state_says_and_removes_the_rest(self, tmp_path: Path) -> None:
        deployment = Deployment(model="demo", version=1, digest="d", model_dir=str(tmp_path), runtime="fake")
        server = Server(deployment=deployment, port=free_port(), command=("serve", "--port", "{port}"))
        StateDirectory(tmp_path).write(ModelState(model="demo", champion=server))
        files = ProgramFiles(tmp_path)
        files.file_path("orphan").parent.mkdir()
        files.file_path("orphan").write_text("[program:orphan]\ncommand=false\n")
        programs = platform_programs(tmp_path, (tmp_path / "store").as_uri(), free_port(), free_port())
        assert set(programs) == {"envoy", "ingest"}
        assert files.names() == [deployment.id]
        assert read_back(files.file_path(deployment.id), tmp_path)["command"].endswith(f"-- serve --port {server.port}")

    def test_keeps_prompts_from_other_users_of_the_machine(self, tmp_path: Path) -> None:
        directory = tmp_path / "gateway"
        platform_programs(directory, (tmp_path / "store").as_uri(), free_port(), free_port())
        assert directory.stat().st_mode & 0o777 == 0o700


class TestCommand:
    @pytest.mark.parametrize("part", ["a\n[program:other]", "a\rb", "a\0b"])
    def test_a_line_break_is_refused_before_it_spoils_every_models_configuration(
        self, part: str, tmp_path: Path
    ) -> None:
        settings = GatewaySettings(
            gateway_url="http://127.0.0.1:1",
            admin_url="http://127.0.0.1:2",
            supervisor=tmp_path / "socket",
            directory=tmp_path,
            workload_python="python",
            project_root=tmp_path,
        )
        servers = Servers(settings=settings, runtimes={"broken": ("serve", part), "whole": ("serve",)})
        deployment = Deployment(model="demo", version=1, digest="d", model_dir=str(tmp_path), runtime="broken")
        with pytest.raises(ServingFailed, match="holds a line break"):
            servers.check(deployment)
        servers.check(dataclasses.replace(deployment, runtime="whole"))
