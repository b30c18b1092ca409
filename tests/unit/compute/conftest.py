from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genai_operators.store import Store
from tests.fakes.workload_run import WorkloadRun, environment


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def start_run(
    tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., WorkloadRun]]:
    """Makes runs of the checkpointing workload; after the test none of their processes is left."""
    for name, value in environment(tmp_path, project_root).items():
        monkeypatch.setenv(name, value)
    runs: list[WorkloadRun] = []

    def start(**params: Any) -> WorkloadRun:
        runs.append(WorkloadRun(tmp_path, **params))
        return runs[-1]

    yield start
    for run in runs:
        run.end_everything()
