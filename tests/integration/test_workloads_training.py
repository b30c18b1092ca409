"""Fine-tuning and evaluation in the workload environment, with a model of a few thousand weights.

Bit-identity after SIGTERM, a truncated checkpoint and kill -9 is the promise that retries rest on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from genai_operators.compute.contract import Artifact, Workload
from genai_operators.decisions.verdict import Verdict
from genai_operators.store import Store, directory_manifest, locate
from tests.fakes.workload_process import ROOT, TINY_RECIPE, WorkloadProcess, dataset_input, record

pytestmark = [pytest.mark.slow, pytest.mark.workload_env]

TINY: dict[str, Any] = {**TINY_RECIPE, "learning_rate": 5e-3}
MOODS = ("good", "bad")
ROWS = [record(f"thing {n % 7} is {MOODS[n % 2]}", f'{{"mood":"{MOODS[n % 2]}"}}', identity=str(n)) for n in range(60)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def dataset(store: Store) -> Artifact:
    parts = {"train": ROWS[:40], "evaluation": ROWS[40:], "new_train": ROWS[:10], "new_evaluation": ROWS[10:20]}
    return dataset_input(store, "rows", parts)


class Training:
    """Trains the tiny model in processes of the workload environment."""

    def __init__(self, tmp_path: Path, store: Store, dataset: Artifact, python: str) -> None:
        self.tmp_path, self.store, self.dataset, self.python = tmp_path, store, dataset, python

    def __call__(
        self,
        name: str = "one",
        *,
        base: Artifact | None = None,
        recipe: dict[str, Any] | None = None,
        rehearsal: float | None = None,
    ) -> WorkloadProcess:
        inputs = {"dataset": self.dataset} if base is None else {"dataset": self.dataset, "base": base}
        params = {"model": "m", "recipe": {**TINY, **(recipe or {})}, "seed": 1, "rehearsal": rehearsal}
        workload = Workload(kind="fine_tune", params=params, inputs=inputs, nonce=name)
        return WorkloadProcess(self.store, workload, self.python, self.tmp_path / "scratch")


@pytest.fixture
def training(tmp_path: Path, store: Store, dataset: Artifact, workload_python: str) -> Training:
    return Training(tmp_path, store, dataset, workload_python)


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Output up to the line that holds ``text``."""
    seen = ""
    assert process.stdout is not None
    for line in process.stdout:
        seen += line
        if text in line:
            return seen
    raise AssertionError(f"ended without {text!r}:\n{seen}")


def checkpoints(process: WorkloadProcess, attempt: int) -> list[int]:
    prefix = f"{process.workload.directory}/attempts/{attempt}/checkpoints"
    return sorted(int(i.path.split("/")[-2]) for i in process.store.list(prefix) if i.path.endswith("MANIFEST.json"))


def succeed(process: WorkloadProcess, attempt: int = 1) -> WorkloadProcess:
    code, output = process.run(attempt)
    assert code == 0, output
    return process


class TestInterruptedTraining:
    def test_the_weights_are_the_same_bytes_as_of_an_undisturbed_one(self, training: Training, tmp_path: Path) -> None:
        undisturbed = succeed(training("undisturbed")).output("model")
        disturbed = training("disturbed")
        disturbed.environment["PYTHONPATH"] = with_sitecustomize(tmp_path, WRITES_SLOWLY)

        first = disturbed.start(1)  # asked to stop after its first step
        read_until(first, '"step": 1,')
        first.send_signal(signal.SIGTERM)
        output, _ = first.communicate()
        assert first.returncode == 75, output
        assert not disturbed.store.exists(f"{disturbed.workload.directory}/result.json")
        assert checkpoints(disturbed, 1)
        assert float(output.split('"checkpoint_seconds": ')[1].split("}")[0]) > SLOW_S  # the trainer's part counts

        second = disturbed.start(2)  # its newest checkpoint is damaged, and it is killed
        wait_for_checkpoint(second, disturbed)
        os.kill(second.pid, signal.SIGKILL)
        second.communicate()
        newest = checkpoints(disturbed, 2)[-1]
        path = f"{disturbed.workload.directory}/attempts/2/checkpoints/{newest}/model.safetensors"
        disturbed.store.put(path, disturbed.store.get(path)[:-100])

        code, output = disturbed.run(3)
        assert code == 0, output
        assert f"checkpoint of step {newest} is not usable" in output
        assert "resuming from the checkpoint of step" in output
        assert disturbed.output("model").digest == undisturbed.digest


#: By the clock of the process, the trainer needs this long to write a checkpoint to the disk.
SLOW_S = 1000.0
WRITES_SLOWLY = f"""
import time
import transformers
real, late, save = time.monotonic, [0.0], transformers.Trainer._save_checkpoint
time.monotonic = lambda: real() + late[0]
def save_slowly(*arguments, **options):
    late[0] += {SLOW_S}
    return save(*arguments, **options)
transformers.Trainer._save_checkpoint = save_slowly
"""


def with_sitecustomize(folder: Path, code: str) -> str:
    """A ``PYTHONPATH`` by which every process of a workload begins with ``code``."""
    (folder / "sitecustomize.py").write_text(code)
    return os.pathsep.join((str(folder), str(ROOT / "plugins"), str(ROOT)))


def wait_for_checkpoint(process: subprocess.Popen[str], workload: WorkloadProcess) -> None:
    """Until attempt 2 has a whole checkpoint of its own."""
    import time

    deadline = time.monotonic() + 120
    while not checkpoints(workload, 2):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def weights(model: Artifact) -> dict[str, Any]:
    """The tensors of a Hugging Face directory in the store, by name."""
    store, path = locate(model.uri)
    data = store.get(f"{path}/model.safetensors")
    header = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + header])
    entries.pop("__metadata__", None)
    return {
        name: np.frombuffer(data[8 + header :][slice(*entry["data_offsets"])], dtype=np.float32)
        for name, entry in entries.items()
    }


class TestSmallerMicroBatch:
    """Memory of the GPU ran out: the next attempt takes fewer rows at a time, and adds up their gradients."""

    RECIPE: ClassVar[dict[str, Any]] = {"batch_size": 6}  # 40 rows: the last batch of an epoch has four

    def test_it_goes_on_at_the_same_step_and_comes_to_the_same_weights(self, training: Training) -> None:
        undisturbed = succeed(training("undisturbed", recipe=self.RECIPE))
        resumed = training("resumed", recipe=self.RECIPE)
        first = resumed.start(1)
        read_until(first, '"step": 1,')
        first.send_signal(signal.SIGTERM)
        first.communicate()
        stopped_at = checkpoints(resumed, 1)[-1]
        resumed.environment["GENAI_MICRO_BATCH"] = "2"
        code, output = resumed.run(2)
        assert code == 0, output

        assert f"resuming from the checkpoint of step {stopped_at}" in output
        assert "12 steps of 6 rows, 2 at a time" in output
        state = f"{resumed.workload.directory}/attempts/2/checkpoints/12/trainer_state.json"
        history = [entry for entry in resumed.store.get_json(state)["log_history"] if "loss" in entry]
        assert [entry["step"] for entry in history] == list(range(1, 13))
        expected, found = weights(undisturbed.output("model")), weights(resumed.output("model"))
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            np.testing.assert_allclose(found[name], tensor, atol=2e-4, err_msg=name)

    def test_too_little_memory_of_the_gpu_is_told_from_that_of_the_host(
        self, training: Training, tmp_path: Path
    ) -> None:
        process = training("full", recipe=self.RECIPE)
        process.environment["PYTHONPATH"] = with_sitecustomize(tmp_path, RUNS_OUT_OF_GPU_MEMORY)
        code, output = process.run(1)
        assert code == 1, output
        assert (process.error()["class"], process.error()["memory"]) == ("OutOfMemory", "gpu")
        assert '"batch": 6' in output


#: There is no GPU here: raise torch's own error where the first step would.
RUNS_OUT_OF_GPU_MEMORY = """
import transformers, torch
def step(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
transformers.Trainer.training_step = step
"""


class TestRefreshAndEvaluation:
    def test_a_merged_adapter_is_a_plain_model_that_can_be_evaluated(
        self, training: Training, tmp_path: Path, workload_python: str
    ) -> None:
        champion = succeed(training("champion", recipe={"max_steps": 60})).output("model")
        refresh = {"method": "lora", "lora": {"r": 4, "alpha": 8}, "max_steps": 6}
        refreshed = succeed(training("refresh", base=champion, recipe=refresh, rehearsal=1.0))
        candidate = refreshed.output("model")
        files = {i.path.rsplit("/", 1)[-1] for i in refreshed.store.list(refreshed.store.path_of(candidate.uri))}
        assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= files
        assert not [name for name in files if name.startswith("adapter") or name.endswith((".bin", ".pt"))]
        assert refreshed.result()["metrics"]["train_rows"] == 20.0  # ten new ones, ten rehearsed
        manifest = [training.store.read_manifest(training.store.path_of(a.uri)) for a in (champion, candidate)]
        assert manifest[0] is not None
        assert manifest[1] is not None
        assert manifest[0].files["tokenizer.json"] == manifest[1].files["tokenizer.json"]

        workload = Workload(
            kind="evaluate",
            params={"model": "m", "output": "json", "margin": 0.3, "minimum_items": 10, "max_new_tokens": 16},
            inputs={"dataset": training.dataset, "candidate": candidate, "champion": champion},
        )
        evaluated = succeed(WorkloadProcess(training.store, workload, workload_python, tmp_path / "scratch"))
        verdict = Verdict.from_json(evaluated.result()["verdict"])
        assert {"exact match against the champion, old rows", "exact match against the champion, new rows"} <= {
            check.name for check in verdict.checks
        }
        assert evaluated.result()["metrics"]["items_old"] == 20.0
        items = evaluated.store.get(evaluated.store.path_of(evaluated.output("items").uri) + "/items.jsonl").decode()
        assert len(items.splitlines()) == 30
        assert "thing" not in items


TEMPLATES_SCRIPT = """
import json
from genai_operators.workloads.encoding import encode
from genai_operators.workloads.records import Message, Record
from genai_operators.workloads.tokenizer import CHAT_TEMPLATE, PLAIN_TEMPLATE, train_tokenizer
tokenizer = train_tokenizer(["hello refund now please User: Assistant:"] * 5, vocab_size=300, context_length=99)
record = Record("a", (Message("user", "hello now"), Message("assistant", "refund")), "train")
unmarked = PLAIN_TEMPLATE.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
asked = [{"role": "user", "content": "hello now"}]
found = []
for template in (CHAT_TEMPLATE, PLAIN_TEMPLATE, unmarked):
    tokenizer.chat_template = template
    (example,) = encode([record], tokenizer, max_length=99, answers_only=True)
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    learnt = [label for label in example.labels if label >= 0]
    found.append({"learnt": tokenizer.decode(learnt), "prompt_is_prefix": example.input_ids == [*prompt, *learnt]})
print(json.dumps(found))
"""


def test_the_loss_is_on_what_generation_will_have_to_say(workload_python: str, project_root: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(project_root / "plugins")}
    told = subprocess.run([workload_python, "-c", TEMPLATES_SCRIPT], env=environment, capture_output=True, check=True)
    assert json.loads(told.stdout) == [{"learnt": "refund<|end|>", "prompt_is_prefix": True}] * 3


class TestForeignModel:
    def test_a_base_model_without_a_chat_template_gets_one_and_keeps_its_tokens(
        self, training: Training, tmp_path: Path
    ) -> None:
        made = succeed(training("made", recipe={"max_steps": 2})).output("model")
        folder = tmp_path / "foreign"
        training.store.download_directory(training.store.path_of(made.uri), folder)
        (folder / "chat_template.jinja").unlink()
        foreign = Artifact(uri=folder.as_uri(), digest=directory_manifest(folder).digest)
        tuned = succeed(training("tuned", base=foreign, recipe={"max_steps": 2, "method": "lora"})).output("model")
        path = training.store.path_of(tuned.uri)
        assert b"Assistant:" in training.store.get(f"{path}/chat_template.jinja")
        sizes = [json.loads(text)["vocab_size"] for text in (config(training, made), config(training, tuned))]
        assert sizes[0] == sizes[1]


def config(training: Training, model: Artifact) -> bytes:
    return training.store.get(f"{training.store.path_of(model.uri)}/config.json")


class TestRefusals:
    def test_a_loss_that_is_not_finite(self, training: Training) -> None:
        process = training(recipe={"learning_rate": 1e30, "schedule": "constant", "warmup": 0.0})
        code, output = process.run()
        assert code == 76, output
        assert process.error()["class"] == "NonFiniteLoss"
        assert "learning_rate" in process.error()["message"]
        assert not process.store.exists(f"{process.workload.directory}/result.json")

    def test_a_pickle_is_never_loaded(self, training: Training, tmp_path: Path) -> None:
        folder = tmp_path / "pickled"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
        digest = training.store.upload_directory(folder, "pickled").digest
        process = training(base=Artifact(uri=training.store.uri_of("pickled"), digest=digest))
        code, output = process.run()
        assert code == 65, output
        assert process.error()["class"] == "UnsafeWeights"
        assert "pytorch_model.bin is a pickle" in process.error()["message"]

    def test_a_directory_that_is_no_model(self, training: Training, tmp_path: Path) -> None:
        folder = tmp_path / "odd"
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "no such model"}')
        (folder / "model.safetensors").write_bytes(b"")
        digest = training.store.upload_directory(folder, "odd").digest
        process = training(base=Artifact(uri=training.store.uri_of("odd"), digest=digest))
        code, output = process.run()
        assert code == 65, output
        assert "cannot be loaded" in process.error()["message"]

    def test_rows_that_are_too_long_for_the_recipe(self, training: Training) -> None:
        process = training(recipe={"max_length": 8})
        code, output = process.run()
        assert code == 65, output
        assert "max_length = 8" in process.error()["message"]
