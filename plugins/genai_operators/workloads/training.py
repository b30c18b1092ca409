"""The training loop: Hugging Face's ``Trainer`` with our own rules on stopping, checkpoints and non-finite loss.

What the library gets wrong is replaced here, not worked around elsewhere (measured on transformers 5.23): its own
handling of SIGTERM exits 0 in the middle of a training, and its choice of the newest checkpoint takes a truncated
one. Weights are bit-identical however often a training is stopped, killed and resumed.

A step of the optimiser takes the recipe's batch, whatever the machine: several devices share it, and where their memory
is too small for their share it is taken in micro-batches whose gradients add up. That changes the order in which
numbers are added, and so the last bits, but neither the steps nor the rows of any of them.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from genai_operators.exceptions import NonFiniteLoss
from genai_operators.spec.recipe import LearningRateSchedule, Recipe
from genai_operators.workloads.batching import BatchSplit, asked_micro_batch, split_batch
from genai_operators.workloads.context import Context, StoppedResumably
from genai_operators.workloads.encoding import Example, collate
from genai_operators.workloads.ranks import agree, await_all, this_rank

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerControl, TrainerState

PROGRESS_INTERVAL_S = 1.0
DEFAULT_EPOCHS = 3.0
#: How many processes train together; set by torchrun.
WORLD_SIZE_VARIABLE = "WORLD_SIZE"
ONE_CYCLE_WARM_UP_SHARE = 0.3  # of all steps, as in Smith 2018, "Super-Convergence"
#: Our names to those of transformers. ``one_cycle`` is the cosine with a long warm-up.
_SCHEDULES = {
    LearningRateSchedule.COSINE: "cosine",
    LearningRateSchedule.ONE_CYCLE: "cosine",
    LearningRateSchedule.LINEAR: "linear",
    LearningRateSchedule.CONSTANT: "constant_with_warmup",
}


@dataclass
class LossCurve:
    """Training loss of each step, from the first to the last, over all attempts."""

    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


def train(
    model: PreTrainedModel,
    examples: Sequence[Example],
    *,
    recipe: Recipe,
    seed: int,
    pad_token_id: int,
    context: Context,
) -> LossCurve:
    """Train ``model`` in place, from the newest valid checkpoint if there is one.

    :raises StoppedResumably: after a checkpoint, when a stop was requested.
    :raises NonFiniteLoss: at the first step whose loss or gradient is not finite.
    """
    split = split_batch(recipe.batch_size, devices=_devices(), micro_batch=asked_micro_batch())
    rows = [{"input_ids": example.input_ids, "labels": example.labels} for example in examples]
    tokens = sum(len(example.input_ids) for example in examples)
    watcher = _Watcher(context, tokens_per_row=tokens / len(rows), split=split)
    trainer = Trainer(
        model=model,
        args=_arguments(recipe, split, seed=seed, folder=this_rank().node(context.scratch) / "trainer"),
        train_dataset=rows,
        data_collator=partial(collate, pad_token_id=pad_token_id),
        callbacks=[watcher],
    )
    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    newest = context.checkpoints.newest_valid()
    if newest is not None:
        context.log(f"resuming from the checkpoint of step {newest[0]}")
    trainer.train(resume_from_checkpoint=str(newest[1]) if newest is not None else None)
    if watcher.stopped_at is not None:
        context.log(f"stopped at step {watcher.stopped_at} of {trainer.state.max_steps}; the checkpoint is saved")
        raise StoppedResumably
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return LossCurve([int(entry["step"]) for entry in history], [float(entry["loss"]) for entry in history])


def _devices() -> int:
    """Devices that share a step: the processes of torchrun, else the GPUs of this one."""
    import torch

    processes = int(os.environ.get(WORLD_SIZE_VARIABLE, "1"))
    return processes if processes > 1 else max(1, torch.cuda.device_count())


def _arguments(recipe: Recipe, split: BatchSplit, *, seed: int, folder: Path) -> TrainingArguments:
    import torch

    one_cycle = recipe.schedule is LearningRateSchedule.ONE_CYCLE
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=split.micro,
        gradient_accumulation_steps=split.accumulation,
        num_train_epochs=recipe.epochs if recipe.epochs is not None else DEFAULT_EPOCHS,
        max_steps=recipe.max_steps if recipe.max_steps is not None else -1,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=_SCHEDULES[recipe.schedule],
        warmup_steps=ONE_CYCLE_WARM_UP_SHARE if one_cycle else recipe.warmup,  # below 1: a share of all steps
        weight_decay=recipe.weight_decay,
        bf16=recipe.dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # the filter would show the last finite loss instead of the NaN
        save_steps=recipe.save_every_steps,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
    )


class _Watcher(TrainerCallback):  # type: ignore[misc]  # transformers is not read by mypy
    """Reports progress, stops on request, uploads checkpoints, and refuses a loss that is not finite."""

    def __init__(self, context: Context, *, tokens_per_row: float, split: BatchSplit) -> None:
        self._context = context
        self._split = split
        self._tokens_per_step = tokens_per_row * split.per_device * split.devices
        self._started = self._reported = time.monotonic()
        self._step_ended = self._started
        self._first_step = 0
        self.stopped_at: int | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        self._first_step = state.global_step
        self._started = time.monotonic()
        split = self._split
        parts = f", {split.micro} at a time" if split.accumulation > 1 else ""
        shared = f" on {split.devices} devices" if split.devices > 1 else ""
        rows = split.per_device * split.devices
        self._context.log(f"training: {state.max_steps} steps of {rows} rows{shared}{parts}")
        # Before the first step: memory may run out in it, and a smaller micro-batch is chosen by what stands here.
        self._context.progress(phase="train", step=state.global_step, total=state.max_steps, batch=split.per_device)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._step_ended = time.monotonic()
        asked = agree(self._context.stop_requested(), device=args.device)  # all stop after the same step, or none can
        if asked and state.global_step < state.max_steps:
            self.stopped_at = state.global_step
            control.should_save = True
            control.should_training_stop = True

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        if "loss" not in logs:
            return
        step, loss, gradient = state.global_step, logs["loss"], logs.get("grad_norm", 0.0)
        if not (math.isfinite(loss) and math.isfinite(gradient)):
            raise NonFiniteLoss(
                f"the loss became {loss} (gradient norm {gradient}) at step {step} of {state.max_steps}: the training "
                f"diverged. Lower learning_rate ({args.learning_rate}) in the recipe, or look at the data near it."
            )
        now = time.monotonic()
        if now - self._reported < PROGRESS_INTERVAL_S and step not in (1, state.max_steps):
            return
        self._reported = now
        seconds_per_step = (now - self._started) / max(1, step - self._first_step)
        self._context.progress(
            phase="train",
            step=step,
            total=state.max_steps,
            loss=round(loss, 4),
            tokens_per_s=round(self._tokens_per_step / max(seconds_per_step, 1e-9)),
            eta_s=round(seconds_per_step * (state.max_steps - step), 1),
            batch=self._split.per_device,
        )

    def on_save(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        await_all()  # each process adds its own random state
        if this_rank().speaks:
            self._context.checkpoints.save(state.global_step, folder)
            # The trainer has written the folder before it calls this: that is most of the time of a large model.
            self._context.progress(checkpoint_seconds=round(time.monotonic() - self._step_ended, 3))
        await_all()
        if this_rank().local == 0:
            shutil.rmtree(folder, ignore_errors=True)
