"""Ctrl-C in the middle of the demo. In a file of its own: it may run beside others, the whole demo better not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from embedded import control
from embedded.processes import of_platform
from tests.e2e.demo_process import demo_command, environment
from tests.fakes.workload_run import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.workload_env]

PATIENCE_S = 240.0


def computes(directory: Path) -> bool:
    """Whether a workload of that platform runs: detached, in a process group of its own."""
    return any(name == "workload" for name, _, _ in control.status(directory))


def test_an_interrupted_demo_leaves_no_process_behind(project_root: Path, workload_python: str, tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    with subprocess.Popen(
        demo_command(directory),
        cwd=project_root,
        env=environment(project_root),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives `make`
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "validate" in line:
                break
        wait_for(
            lambda: computes(directory) or process.poll() is not None,
            what="a workload",
            patience_s=PATIENCE_S,
            every_s=0.5,
        )
        assert process.poll() is None, process.stdout.read()
        assert len(of_platform(directory)) > 5
        os.killpg(process.pid, signal.SIGINT)
        for line in process.stdout:
            if "FAILED after" in line:  # now it stops everything, which a second Ctrl-C must not end
                os.killpg(process.pid, signal.SIGINT)
                break
        rest = process.stdout.read()
        assert process.wait() == 130, rest
    assert not of_platform(directory)
    assert json.loads(directory.with_suffix(".json").read_text())["error"] == "interrupted"
