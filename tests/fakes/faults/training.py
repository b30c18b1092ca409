"""The faults that touch weights, with a real fine-tuning: the bytes of a run on this host that nobody disturbed."""

from __future__ import annotations

import secrets
import sys
import threading
from pathlib import Path
from typing import Any

from genai_operators.compute import attempts
from genai_operators.compute.contract import Artifact, Workload
from genai_operators.compute.resources import GIB, Resources
from genai_operators.compute.watch import WorkloadSubject
from tests.fakes.faults.table import ROWS
from tests.fakes.kubernetes.fixture import IMAGE, ROOT, FakeCluster, workload_image
from tests.fakes.kubernetes_run import ClusterRun
from tests.fakes.workload_process import TINY_RECIPE, dataset_input, record
from tests.fakes.workload_run import LOCAL, wait_for

Settled = dict[str, Any]
PYTHON = str(ROOT / ".venv-workload" / "bin" / "python")
TRAINING_IMAGE = "registry.example/genai-training@sha256:" + "0123456789abcdef" * 4
IMAGES = {TRAINING_IMAGE.split("@")[0]: workload_image(PYTHON), IMAGE.split("@")[0]: workload_image(sys.executable)}
RECIPE: dict[str, Any] = {**TINY_RECIPE, "max_steps": 60, "save_every_steps": 5}


class TrainingRun(ClusterRun):
    """A fine-tuning of a small model from scratch."""

    patience_s = 300.0  # starts of torch on two busy cores

    def __init__(self, cluster: FakeCluster, folder: Path, **params: Any) -> None:
        super().__init__(cluster, folder, **params)
        if not cluster.real:
            self.backend["image"] = TRAINING_IMAGE
        rows = [record(f"thing {n % 7} is {n % 2}", f'{{"odd":{n % 2}}}', identity=str(n)) for n in range(40)]
        self.dataset = dataset_input(self.store, "rows", {"train": rows, "evaluation": rows[:5]})
        self.compute(self._workload())

    def _workload(self) -> Workload:
        params = {"model": "m", "recipe": RECIPE, "seed": 1, "rehearsal": None}
        return Workload(kind="fine_tune", params=params, inputs={"dataset": self.dataset}, nonce=secrets.token_hex(8))

    def weights(self) -> Artifact:
        return self.result().outputs["model"]

    def has_checkpoint(self, *, beyond: int = -1) -> bool:
        return self.checkpoint() > beyond

    def assert_result(self, *, succeeded: bool) -> None:
        assert succeeded
        assert self.weights().digest == undisturbed(self)

    def on_this_host(self) -> str:
        """Digest of the weights of the same training on local compute."""
        alone = TrainingRun(self.cluster, self.folder / "alone")
        subject = WorkloadSubject(**{**alone.arguments(), "backend": {**LOCAL, "python": PYTHON}, "ladder": []})
        assert alone.drive(subject)["status"] == "succeeded"
        return alone.weights().digest


_known: list[str] = []
_lock = threading.Lock()


def undisturbed(run: TrainingRun) -> str:
    """Trained once, by the first row that asks."""
    with _lock:
        if not _known:
            _known.append(run.on_this_host())
        return _known[0]


TRAINING: dict[str, Any] = {"make": TrainingRun, "slow": True, "begun": None, "settings": {"images": IMAGES}}


def submitted(run: TrainingRun) -> WorkloadSubject:
    subject = run.submit()
    run.drive(subject, until=run.has_checkpoint)
    return subject


@ROWS.row("training preempted", "twice", **TRAINING)
def preempted(run: TrainingRun) -> Settled:
    subject = submitted(run)
    for number in (2, 3):
        reached = run.checkpoint()
        run.cluster.faults.preempt(run.pod())
        run.drive(subject, until=lambda number=number: run.starts() == number)  # type: ignore[misc]
        if number == 2:
            run.drive(subject, until=lambda reached=reached: run.has_checkpoint(beyond=reached))  # type: ignore[misc]
    return run.drive(subject)


@ROWS.row("training's node lost", "its processes live on", **TRAINING)
def cut_off(run: TrainingRun) -> Settled:
    subject = submitted(run)
    pod, process = run.pod(), run.child()
    run.cluster.faults.lose_node(run.node(pod), kill=False)
    run.drive(subject, until=lambda: run.starts() == 2)
    wait_for(lambda: not process.is_alive(), what="the end of the zombie")
    return run.drive(subject)


@ROWS.row("training out of memory, host", "running", jobs=2, **TRAINING)
def out_of_memory(run: TrainingRun) -> Settled:
    run.ladder = [Resources(memory_bytes=2 * GIB)]
    subject = submitted(run)
    run.cluster.faults.out_of_memory(run.pod())
    return run.drive(subject)


@ROWS.row("training's checkpoint cut short", "then evicted", **TRAINING)
def cut_short(run: TrainingRun) -> Settled:
    subject = submitted(run)
    run.cluster.faults.hold_scheduling()
    run.cluster.faults.evict(run.pod())
    wait_for(lambda: run.cluster.faults.figures()["running"] == 0, what="the end of its pod")
    newest = run.checkpoint()
    folder = f"{run.attempt().prefix}/checkpoints/{newest}"
    largest = max(run.store.list(folder), key=lambda info: info.size)
    run.store.put(largest.path, run.store.get(largest.path)[: largest.size // 2])
    run.cluster.faults.hold_scheduling(held=False)
    settled = run.drive(subject)
    assert any("not usable" in line for line in run.lines)
    return settled


@ROWS.row("training's Job deleted by hand", "running", jobs=2, **TRAINING)
def job_deleted(run: TrainingRun) -> Settled:
    subject = submitted(run)
    run.jobs()
    run.cluster.delete_job(run.attempt().name)
    settled = run.drive(subject)
    assert attempts.newest_checkpoint_step(run.store, run.directory) > 0
    return settled
