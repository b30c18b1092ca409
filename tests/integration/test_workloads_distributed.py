"""Fine-tuning in two processes below torchrun: one result, one exit code, the same weights however it was stopped."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute.contract import Artifact, Workload
from genai_operators.store import Store
from tests.fakes.workload_process import TINY_RECIPE, WorkloadProcess, dataset_input, record

pytestmark = [pytest.mark.slow, pytest.mark.workload_env]

TINY: dict[str, Any] = {**TINY_RECIPE, "learning_rate": 5e-3}
MOODS = ("good", "bad")
ROWS = [record(f"thing {n % 7} is {MOODS[n % 2]}", f'{{"mood":"{MOODS[n % 2]}"}}', identity=str(n)) for n in range(40)]


class TwoProcesses(WorkloadProcess):
    """The workload's processes are started by torchrun."""

    module = "genai_operators.workloads.distributed"


@pytest.fixture
def training(tmp_path: Path, workload_python: str) -> Any:
    store = Store.open(tmp_path / "store")
    dataset: Artifact = dataset_input(store, "rows", {"train": ROWS})

    def make(name: str, **recipe: Any) -> TwoProcesses:
        params = {"model": "m", "recipe": {**TINY, **recipe}, "seed": 1, "rehearsal": None}
        workload = Workload(kind="fine_tune", params=params, inputs={"dataset": dataset}, nonce=name)
        return TwoProcesses(store, workload, workload_python, tmp_path / "scratch", {"PET_NPROC_PER_NODE": "2"})

    return make


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Output up to the line that holds ``text``."""
    seen = ""
    assert process.stdout is not None
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"ended without {text!r}:\n{seen}")


class TestTwoProcesses:
    def test_one_publishes_and_a_stop_changes_no_weight(self, training):
        undisturbed = training("undisturbed")
        code, output = undisturbed.run()
        assert code == 0, output
        assert "on 2 devices" in output
        assert output.count('"step": 12') == 1  # the other process says nothing

        stopped = training("stopped")
        process = stopped.start(1)
        read_until(process, '"checkpoint_seconds"')
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=120)
        assert process.returncode == 75, rest
        code, output = stopped.run(2)
        assert code == 0, output
        assert "resuming from the checkpoint" in output
        assert stopped.output("model").digest == undisturbed.output("model").digest

    def test_one_that_was_killed_is_not_taken_for_a_stop(self, training):
        killed = training("killed", max_steps=4000)
        process = killed.start(1)
        read_until(process, '"step": 1,')
        marker = str(killed.scratch(1)).encode()
        ranks = [
            int(folder.name)
            for folder in Path("/proc").iterdir()
            if folder.name.isdigit() and _is_rank(folder, marker, b"LOCAL_RANK=1")
        ]
        assert len(ranks) == 1
        os.kill(ranks[0], signal.SIGKILL)
        rest, _ = process.communicate(timeout=120)
        assert process.returncode == 137, rest


def _is_rank(folder: Path, marker: bytes, variable: bytes) -> bool:
    try:
        environment = (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return variable in environment and b"GENAI_SCRATCH=" + marker in environment
