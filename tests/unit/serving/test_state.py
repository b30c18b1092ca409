"""The state files: whole, and changed by one at a time."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from genai_operators.exceptions import ServingFailed
from genai_operators.serving.contract import Deployment, OutputKind
from genai_operators.serving.state import ModelState, Server, StateDirectory, replace_file

COUNT = """
import dataclasses, pathlib, sys
from genai_operators.serving.state import StateDirectory
states = StateDirectory(pathlib.Path(sys.argv[1]))
for _ in range(50):
    with states.locked():
        state = states.read("demo")
        states.write(dataclasses.replace(state, route_version=state.route_version + 1))
"""


@pytest.fixture
def states(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path)


def server(version: int) -> Server:
    deployment = Deployment(model="demo", version=version, digest="d", model_dir="/m")
    return Server(deployment=deployment, port=version, command=("serve", "{port}"))


def test_comes_back_as_it_was_written(states: StateDirectory) -> None:
    state = ModelState(
        model="demo",
        champion=server(1),
        canary=server(2),
        percent=12.5,
        route_version=3,
        release="r",
        draining=(server(4), server(5)),
        output=OutputKind.JSON,
    )
    states.write(state)
    assert states.read("demo") == state
    assert states.read_all() == (state,)


def test_unknown_model_has_none(states: StateDirectory) -> None:
    assert states.read("demo") is None
    assert states.read_all() == ()


def test_damaged_file_is_named(states: StateDirectory, tmp_path: Path) -> None:
    replace_file(tmp_path / "state" / "demo.json", b"{")
    with pytest.raises(ServingFailed, match=r"state/demo\.json cannot be read"):
        states.read("demo")


def test_two_processes_lose_no_change(states: StateDirectory, tmp_path: Path, project_root: Path) -> None:
    states.write(ModelState(model="demo"))
    environment = {**os.environ, "PYTHONPATH": str(project_root / "plugins")}
    command = [sys.executable, "-c", COUNT, str(tmp_path)]
    processes = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    state = states.read("demo")
    assert state is not None
    assert state.route_version == 100


def test_reader_never_sees_half_a_file(states: StateDirectory) -> None:
    small, large = ModelState(model="demo"), ModelState(model="demo", release="x" * 100_000)
    states.write(small)
    done = threading.Event()

    def write() -> None:
        for k in range(100):
            states.write(large if k % 2 else small)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert states.read("demo") in (small, large)
    writer.join()


def test_servers_are_all_that_must_run() -> None:
    state = ModelState(model="demo", champion=server(1), draining=(server(4),))
    assert [item.port for item in state.servers] == [1, 4]
    assert dataclasses.replace(state, champion=None, draining=()).servers == ()
