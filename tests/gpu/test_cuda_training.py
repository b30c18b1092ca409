"""On a machine with an NVIDIA GPU: LoRA on CUDA, its peak beside the plan's, and its weights after a stop.

Skipped, visibly, where the workload environment sees no GPU.
"""

from __future__ import annotations

import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute.contract import Artifact, Result, Workload
from genai_operators.decisions.gpu_margin import memory_residuals
from genai_operators.decisions.gpu_memory import Constants, training_memory
from genai_operators.decisions.gpu_setup import Sharding
from genai_operators.operators.gpu_learning import knowledge, observe_training
from genai_operators.operators.training_need import Rows, stored_shape, training_need
from genai_operators.spec.recipe import Recipe
from genai_operators.store import Store, directory_manifest
from tests.fakes.workload_process import WorkloadProcess, dataset_input, record

pytestmark = [pytest.mark.slow, pytest.mark.workload_env, pytest.mark.gpu]

#: 160 million parameters: its tensors are large beside what every process allocates anyway.
ARCHITECTURE = {"hidden_size": 1024, "layers": 10, "heads": 16, "key_value_heads": 4, "intermediate_size": 4096}
BASE: dict[str, Any] = {
    "architecture": {**ARCHITECTURE, "max_positions": 1024},
    "tokenizer": {"vocab_size": 2048},
    "max_steps": 2,
    "batch_size": 4,
    "max_length": 512,
}
LORA: dict[str, Any] = {
    "method": "lora",
    "dtype": "bfloat16",
    "max_steps": 12,
    "batch_size": 8,
    "max_length": 512,
    "save_every_steps": 4,
}
#: All of one length: what is foretold is the longest batch, and each is.
ROWS = [record(f"{n} " + "one two three four five " * 40, '{"ok":true}', identity=str(n)) for n in range(64)]
TOLERANCE = 0.15


@pytest.fixture(scope="module")
def gpu_python(workload_python: str) -> str:
    """The workload environment's Python, if it sees a GPU."""
    asked = [
        workload_python,
        "-c",
        "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)",
    ]
    if int(subprocess.run(asked, capture_output=True, text=True, check=True, timeout=120).stdout) < 1:
        pytest.skip("no NVIDIA GPU, or torch in .venv-workload is a build without CUDA")
    return workload_python


class Training:
    """Trainings of one data set in one store."""

    def __init__(self, folder: Path, python: str) -> None:
        self.store = Store.open(folder / "store")
        self._dataset = dataset_input(self.store, "rows", {"train": ROWS})
        self._folder, self._python = folder, python

    def __call__(self, name: str, recipe: dict[str, Any], *, base: Artifact | None = None) -> WorkloadProcess:
        inputs = {"dataset": self._dataset, **({} if base is None else {"base": base})}
        params = {"model": "m", "recipe": recipe, "seed": 1, "rehearsal": None}
        workload = Workload(kind="fine_tune", params=params, inputs=inputs, nonce=name)
        return WorkloadProcess(self.store, workload, self._python, self._folder / "scratch")


@pytest.fixture
def training(tmp_path: Path, gpu_python: str) -> Training:
    return Training(tmp_path, gpu_python)


@pytest.fixture
def base(training: Training) -> Artifact:
    process = training("base", BASE)
    code, output = process.run()
    assert code == 0, output
    return process.output("model")


def weights(process: WorkloadProcess) -> str:
    """Digest of the weights alone."""
    folder = Path(process.output("model").uri.removeprefix("file://"))
    return directory_manifest(folder).files["model.safetensors"].sha256


class TestPeak:
    def test_the_plan_foretells_it_and_learns_from_it(self, training: Training, base: Artifact) -> None:
        process = training("lora", Recipe.model_validate(LORA).to_json(), base=base)
        code, output = process.run()
        assert code == 0, output
        result = Result.from_json(process.result())
        measured, longest = result.metrics["peak_gpu_memory_bytes"], int(result.metrics["longest_row_tokens"])
        rows = Rows(count=len(ROWS), mean_tokens=float(longest), known_from="counted")
        shape = stored_shape(process.output("model").uri)
        need = training_need(Recipe.model_validate({**LORA, "max_length": longest}), shape=shape, rows=rows)
        setup = replace(need.setup, micro_batch=LORA["batch_size"], sharding=Sharding.NONE)
        estimate = training_memory(shape, setup, constants=Constants(fragmentation=0.0)).allocated
        assert estimate == pytest.approx(measured, rel=TOLERANCE)
        assert estimate * memory_residuals().factor("lora/none").upper >= measured
        assert observe_training(training.store, result)
        assert knowledge(training.store).memory.factor("lora/none").runs == 1


class TestResume:
    def test_a_stopped_training_ends_with_the_same_weights(self, training: Training, base: Artifact) -> None:
        undisturbed, disturbed = (training(name, LORA, base=base) for name in ("undisturbed", "disturbed"))
        code, output = undisturbed.run()
        assert code == 0, output
        first = disturbed.start(1)
        assert first.stdout is not None
        for line in first.stdout:
            if '"step": 1,' in line:
                break
        first.send_signal(signal.SIGTERM)
        told, _ = first.communicate(timeout=300)
        assert first.returncode == 75, told
        code, output = disturbed.run(2)
        assert code == 0, output
        assert weights(disturbed) == weights(undisturbed)
