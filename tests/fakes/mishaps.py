"""Everything that may go wrong for a model in production, arranged on a :class:`~tests.fakes.production.Production`.

Each function arranges one mishap and returns what brings it about, where the model's user would meet it: a run of the
retraining DAG or of one operator, or two processes at once.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from genai_operators.exceptions import LedgerConflict
from genai_operators.operators.canary import CanaryReleaseOperator
from genai_operators.operators.fine_tune import FineTuneOperator
from genai_operators.operators.register import RegisterModelOperator
from genai_operators.release.ledger import Ledger
from genai_operators.store import Store
from tests.fakes.packages import make_keys
from tests.fakes.ports import free_port
from tests.fakes.production import Failure, Production
from tests.fakes.workload_process import dataset_input, record

#: Brings it about, once everything is arranged; returns the failures that the user sees.
Act = Callable[[], list[Failure]]

MODEL_FILE = "data:\n  train: include/data/rows.jsonl\n"
TINY: dict[str, Any] = {
    "architecture": {"hidden_size": 32, "layers": 2, "heads": 2, "key_value_heads": 1, "intermediate_size": 64},
    "tokenizer": {"vocab_size": 300},
    "max_steps": 6,
    "batch_size": 4,
    "max_length": 64,
}
DISK_BYTES = 256 * 1024
RACERS = 2


# --- the model file ------------------------------------------------------------------------------------------------


def invalid_yaml(production: Production) -> Act:
    production.model_file("data:\n  train: [include/data/rows.jsonl\nevaluate: {}\n")
    return production.retrain


def unknown_key(production: Production) -> Act:
    production.model_file(f"{MODEL_FILE}evaluate:\n  margn: 0.02\n")
    return production.retrain


# --- the data ------------------------------------------------------------------------------------------------------


def missing_file(production: Production) -> Act:
    production.model_file(MODEL_FILE)
    return production.retrain


def malformed_line(production: Production) -> Act:
    rows = [json.dumps({"text": f"message {number}", "category": "x"}) for number in range(5)]
    production.write("include/data/rows.jsonl", "\n".join([*rows[:3], '{"text": "cut', *rows[3:]]))
    production.model_file(MODEL_FILE)
    return production.retrain


def empty_file(production: Production) -> Act:
    production.write("include/data/rows.jsonl", "\n")
    production.model_file(MODEL_FILE)
    return production.retrain


# --- the training --------------------------------------------------------------------------------------------------


def train(production: Production, **recipe: Any) -> Act:
    """A fine-tuning in the workload environment."""
    rows = [record(f"thing {n % 7} is {n % 2}", f"{n % 2}", identity=str(n)) for n in range(24)]
    dataset = dataset_input(production.store, "rows", {"train": rows[:16], "evaluation": rows[16:]})
    with DAG("train", schedule=None) as dag:
        FineTuneOperator(
            task_id="fine_tune",
            model=production.model,
            dataset=dataset.to_json(),
            recipe={**TINY, **recipe},
            poll_interval=0.2,
        )
    return functools.partial(production.run, dag)


def diverging(production: Production) -> Act:
    return train(production, learning_rate=1e30, schedule="constant", warmup=0.0)


def pickle_to_start_from(production: Production) -> Act:
    (production.project / "include/base").mkdir()
    production.write("include/base/config.json", '{"model_type": "llama"}')
    production.write("include/base/pytorch_model.bin", b"\x80\x04N.")
    return train(production, base_model="include/base")


# --- the registration ----------------------------------------------------------------------------------------------


def register(production: Production, training: str) -> Act:
    with DAG("register", schedule=None) as dag:
        RegisterModelOperator(task_id="register", model=production.model, training=training)
    return functools.partial(production.run, dag)


def pickle_among_the_weights(production: Production) -> Act:
    training, _ = production.trained()
    local = production.folder / "trained"
    (local / "optimizer.pt").write_bytes(b"\x80\x04N.")
    digest = production.store.upload_directory(local, "workloads/fine_tune/done/output/model").digest
    path = production.store.path_of(training)
    result = production.store.get_json(path)
    result["outputs"]["model"]["digest"] = digest
    production.store.put_json(path, result)
    return register(production, training)


def changed_weights(production: Production) -> Act:
    training, weights = production.trained()
    content = bytearray((weights / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (weights / "model.safetensors").write_bytes(content)
    return register(production, training)


def mlflow_down(production: Production) -> Act:
    training, _ = production.trained()
    production.registry_at(free_port())
    return register(production, training)


# --- the release ---------------------------------------------------------------------------------------------------


def release(production: Production, version: int, *, dag_id: str = "release") -> Act:
    with DAG(dag_id, schedule=None) as dag:
        CanaryReleaseOperator(task_id="release", model=production.model, version=version, deferrable=False)
    return functools.partial(production.run, dag)


def signed_by_a_stranger(production: Production) -> Act:
    return release(production, production.candidate(keys=make_keys(production.folder / "stranger")))


def changed_in_the_registry(production: Production) -> Act:
    version = production.candidate()
    changed = production.folder / "config.json"
    changed.write_text('{"model_type": "llama", "auto_map": {}}')
    rest = production.registry.rest
    source = production.registry.get(production.model, version).source
    rest.upload(rest.artifact_root(source), "model/config.json", changed)
    return release(production, version)


def gateway_down(production: Production) -> Act:
    return release(production, production.candidate())


def two_releases(production: Production) -> Act:
    version = production.candidate()
    release(production, version, dag_id="first")()  # waits for the gateway, which is down, and is under way
    return release(production, version, dag_id="second")


def two_promotions(production: Production) -> Act:
    return functools.partial(race, production)


def race(production: Production) -> list[Failure]:
    """Processes that all saw the same champion promote at the same moment."""
    context = multiprocessing.get_context("spawn")
    barrier, told = context.Barrier(RACERS), context.Queue()
    arguments = (production.store.uri, production.model, production.ledger.epoch(), barrier, told)
    racers = [context.Process(target=promote, args=(number, *arguments)) for number in range(2, 2 + RACERS)]
    for racer in racers:
        racer.start()
    messages = [told.get(timeout=120) for _ in racers]
    for racer in racers:
        racer.join()
    return [Failure("promote", LedgerConflict(message)) for message in messages if message]


def promote(version: int, store: str, model: str, epoch: int, barrier: Any, told: Any) -> None:
    barrier.wait(60)
    try:
        Ledger(Store.open(store), model).append(
            "promote", version, "digest", actor=f"v{version}", reason="r", evidence={}, expected_epoch=epoch
        )
    except LedgerConflict as error:
        told.put(str(error))
    else:
        told.put("")


# --- the disk ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A disk of its own at ``folder``. Skips where this user may not mount one."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and shutil.which("mount") and not subprocess.run(command, check=False).returncode
    if not mounted:
        pytest.skip("a full disk needs root, to mount a small one")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while file.write(b"x" * 512):
            pass


def good_rows(production: Production) -> None:
    rows = (json.dumps({"text": f"message {number} of many", "category": "x" * 500}) for number in range(2000))
    production.write("include/data/rows.jsonl", "\n".join(rows))
    production.model_file(MODEL_FILE)


def full_scratch(production: Production) -> Act:
    good_rows(production)
    production.disk(small_disk(production.folder / "scratch"))
    return production.retrain


def full_store(production: Production) -> Act:
    good_rows(production)
    production.disk(small_disk(production.folder / "store"))
    production.crown()
    fill(production.folder / "store")
    return production.retrain
