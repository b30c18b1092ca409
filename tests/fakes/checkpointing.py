"""A workload of about two seconds that checkpoints, resumes bit for bit, and notices if it ever runs twice at once.

Dispatched by ``GENAI_EXTRA_WORKLOADS=checkpointing=tests.fakes.checkpointing:checkpointing``. Its parameters:
``steps``, ``step_s``, ``checkpoint_every``; ``witness``: a folder outside the store where each process leaves its mark
("": in its own scratch folder, where nobody else looks);
``trouble``: ``{"at": step, "kind": ...}``, see :func:`make_trouble`; ``until``: a file, ``gate``: an object of the
store; the workload waits at the last step until it exists, so that a test decides when it ends. ``batch``: reported as
progress. ``alone``: ``False`` where a test lets a process live on that everybody takes for dead. ``given``: variable ->
sha256 of the value that it must have.

:func:`together` does the same on several nodes, in place of a fine-tuning
(``GENAI_EXTRA_WORKLOADS=fine_tune=tests.fakes.checkpointing:together``).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO, Any

from genai_operators.decisions.verdict import Check, Outcome, Verdict
from genai_operators.exceptions import DataError, NonFiniteLoss
from genai_operators.report import Page
from genai_operators.workloads.context import Context, StoppedResumably, WorkloadOutput
from genai_operators.workloads.ranks import this_rank

KIND = "checkpointing"
EXTRA_WORKLOADS = f"{KIND}={__name__}:checkpointing"
#: What processes of several nodes tell each other.
STOP, DONE = 1, 2


class OutOfMemoryError(RuntimeError):
    """As torch calls it when the memory of a GPU ran out."""


def checkpointing(context: Context) -> WorkloadOutput:
    """Chain a hash over ``steps`` steps."""
    steps, every = int(context.params["steps"]), int(context.params.get("checkpoint_every", 5))
    for name, digest in context.params.get("given", {}).items():
        if hashlib.sha256(os.environ.get(name, "").encode()).hexdigest() != digest:
            raise DataError(f"{name} is not what it should be")
    lock = _be_the_only_one(context)
    step, state = _newest(context)
    _witness(context, f"begin attempt={context.attempt} from={step} pid={os.getpid()}")
    while step < steps:
        _wait(context, last=step + 1 == steps)
        if context.stop_requested():
            _save(context, step, state)
            _witness(context, f"stop attempt={context.attempt} at={step}")
            raise StoppedResumably
        step += 1
        state = hashlib.sha256(f"{state} {step}".encode()).hexdigest()
        context.log(f"line of step {step}")
        batch = {"batch": context.params["batch"]} if "batch" in context.params else {}
        context.progress(step=step, total=steps, loss=1 / step, **batch)
        if step % every == 0:
            _save(context, step, state)
        make_trouble(context, step)
    (context.output / "state.txt").write_text(state)
    _witness(context, f"done attempt={context.attempt}")
    lock.close()
    outcome = Outcome(context.params.get("outcome", "pass"))
    verdict = Verdict.of("checkpointing", [Check(name="steps", outcome=outcome, observed=steps)])
    page = Page(title="Checkpointing").text(f"{steps} steps")
    return WorkloadOutput(verdict=verdict, outputs={"state": ""}, metrics={"steps": steps}, report=page)


def together(context: Context) -> WorkloadOutput:
    """The first process works; the others exchange a number with it whenever it looks whether to stop."""
    from torch import distributed

    distributed.init_process_group("gloo")
    if this_rank().speaks:
        context.stop_requested = lambda: _exchange(int(context._stop.is_set())) == STOP  # type: ignore[method-assign]
        output = checkpointing(context)
        _exchange(DONE)
        return output
    said = steps = 0
    while said == 0:
        steps += 1
        make_trouble(context, steps)
        said = _exchange(int(context.stop_requested()))
    if said == STOP:
        raise StoppedResumably
    return WorkloadOutput()


def _exchange(told: int) -> int:
    """The largest of what the processes tell each other."""
    import torch
    from torch import distributed

    all_told = torch.tensor([told])
    distributed.all_reduce(all_told, op=distributed.ReduceOp.MAX)
    return int(all_told.item())


def final_state(steps: int) -> str:
    """What an undisturbed run ends with."""
    state = ""
    for step in range(1, steps + 1):
        state = hashlib.sha256(f"{state} {step}".encode()).hexdigest()
    return state


def witnessed(folder: Path) -> list[str]:
    """What all processes of the workload have noted, in order."""
    path = folder / "witness.txt"
    return path.read_text().splitlines() if path.exists() else []


def make_trouble(context: Context, step: int) -> None:
    """Fail as ``trouble`` says, at its step (in every attempt, or only in ``attempt``, or in those ``before`` one).

    It befalls the first process, or that of ``rank``.
    """
    trouble = context.params.get("trouble")
    if trouble and step == trouble["at"] and _is_due(context.attempt, **trouble):
        _fail(trouble, step)


def _is_due(number: int, *, attempt: int | None = None, before: int | None = None, rank: int = 0, **_: object) -> bool:
    return rank == this_rank().number and attempt in (None, number) and (before is None or number < before)


def _fail(trouble: dict[str, Any], step: int) -> None:
    kind = trouble["kind"]
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "data":
        raise DataError("row 7: no such field. Mend the row.")
    elif kind == "loss":
        raise NonFiniteLoss(f"the loss is NaN at step {step}. Lower the learning rate.")
    elif kind == "memory":
        raise MemoryError
    elif kind == "gpu memory":
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    elif kind == "disk":
        raise OSError(28, "No space left on device", "/some/file")
    elif kind == "crash":
        raise RuntimeError("something unforeseen")
    elif kind == "exit":
        sys.exit(trouble["code"])
    else:
        raise ValueError(kind)


def _be_the_only_one(context: Context) -> IO[str]:
    """Hold a lock for as long as this process lives; two at once is what must never happen."""
    folder = _witness_folder(context)
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "only-one.lock").open("w")
    if not context.params.get("alone", True):
        return lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        _witness(context, f"TWICE attempt={context.attempt} pid={os.getpid()}")
        sys.exit(1)
    return lock


def _witness(context: Context, line: str) -> None:
    with (_witness_folder(context) / "witness.txt").open("a") as file:
        file.write(line + "\n")


def _witness_folder(context: Context) -> Path:
    named = context.params["witness"]
    return Path(named) if named else context.scratch / "witness"


def _newest(context: Context) -> tuple[int, str]:
    found = context.checkpoints.newest_valid()
    if found is None:
        return 0, ""
    step, folder = found
    return step, (folder / "state.txt").read_text()


def _save(context: Context, step: int, state: str) -> None:
    folder = context.scratch / f"saving-{step}"
    folder.mkdir(exist_ok=True)
    (folder / "state.txt").write_text(state)
    context.checkpoints.save(step, folder)


def _wait(context: Context, *, last: bool) -> None:
    time.sleep(float(context.params.get("step_s", 0.05)))
    while last and not _may_end(context) and not context.stop_requested():
        time.sleep(0.02)


def _may_end(context: Context) -> bool:
    until, gate = context.params.get("until"), context.params.get("gate")
    return (not until or Path(until).exists()) and (not gate or context.store.exists(gate))
