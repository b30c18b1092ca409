"""A real fine-tuning on local compute, its trainer and then its supervisor killed: the bytes of an undisturbed one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute.contract import Artifact, Workload
from genai_operators.compute.watch import WorkloadSubject
from genai_operators.store import Store
from tests.fakes.workload_process import TINY_RECIPE, dataset_input, record
from tests.fakes.workload_run import LOCAL, WorkloadRun, environment, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.workload_env]

RECIPE: dict[str, Any] = {**TINY_RECIPE, "max_steps": 60, "save_every_steps": 5}


class TrainingRun(WorkloadRun):
    """A training in the store of the others, told apart by its nonce."""

    patience_s = 240.0  # three starts of torch on two busy cores

    def __init__(self, tmp_path: Path, dataset: Artifact, python: str, name: str) -> None:
        super().__init__(tmp_path)
        params = {"model": "m", "recipe": RECIPE, "seed": 1, "rehearsal": None}
        self.workload = Workload(kind="fine_tune", params=params, inputs={"dataset": dataset}, nonce=name)
        self.directory = self.workload.directory
        arguments = self.arguments()
        self.waiting = WorkloadSubject(**{**arguments, "backend": {**LOCAL, "python": python}})

    def has_checkpoint(self, attempt: int) -> bool:
        """Whether this attempt itself has got as far as a checkpoint."""
        folder = self.attempt(attempt).path("checkpoints")
        return any(info.path.endswith("MANIFEST.json") for info in self.store.list(folder))


@pytest.fixture
def runs(
    tmp_path: Path, project_root: Path, workload_python: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, TrainingRun]]:
    for name, value in environment(tmp_path, project_root).items():
        monkeypatch.setenv(name, value)
    rows = [record(f"thing {n % 7} is {n % 2}", f'{{"odd":{n % 2}}}', identity=str(n)) for n in range(40)]
    dataset = dataset_input(Store.open(tmp_path / "store"), "rows", {"train": rows, "evaluation": rows[:5]})
    runs = {name: TrainingRun(tmp_path, dataset, workload_python, name) for name in ("undisturbed", "disturbed")}
    yield runs
    for run in runs.values():
        run.end_everything()


def test_killed_twice_it_ends_with_the_same_weights(runs: dict[str, TrainingRun]) -> None:
    undisturbed, disturbed = runs["undisturbed"], runs["disturbed"]
    assert undisturbed.drive(undisturbed.waiting)["status"] == "succeeded"

    disturbed.drive(disturbed.waiting, until=lambda: disturbed.has_checkpoint(1))
    os.kill(disturbed.child(1).pid, signal.SIGKILL)
    disturbed.drive(disturbed.waiting, until=lambda: disturbed.newest() == 2 and disturbed.has_checkpoint(2))
    trainer = disturbed.child(2)
    disturbed.kill_supervisor(2)
    wait_for(lambda: not trainer.is_alive(), what="the trainer to die with its supervisor")
    assert disturbed.drive(disturbed.waiting)["status"] == "succeeded"

    assert disturbed.newest() == 3
    assert disturbed.result().outputs["model"].digest == undisturbed.result().outputs["model"].digest
    assert any("resuming from the checkpoint" in line for line in disturbed.lines)
