"""One way to rent: a GPU type, how many, how bought. Does the run fit, how long does it take, what does it cost?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from genai_operators.decisions.gpu_catalogue import Gpu
from genai_operators.decisions.gpu_margin import Residuals, memory_residuals, time_residuals
from genai_operators.decisions.gpu_memory import training_memory
from genai_operators.decisions.gpu_prices import Price, Purchase
from genai_operators.decisions.gpu_setup import Method, Precision, Sharding, TrainingSetup
from genai_operators.decisions.gpu_shape import ModelShape
from genai_operators.decisions.gpu_speed import step_time
from genai_operators.exceptions import ConfigurationError

GB = 1e9


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """How much is to be trained, whatever the hardware.

    :param sequences: of one epoch; packed sequences where the setup packs. :param global_batch: sequences of a step.
    :param mean_length: tokens of a sequence without padding; None where sequences are packed or all of full length.
    :param checkpoint_every_hours: so much work an interruption loses at most. :param restart_hours: until it goes on.
    :param startup_hours: image, weights, data. :param overhead: share on top for checkpoints, evaluation, logging.
    """

    sequences: int
    global_batch: int = 16
    epochs: float = 1.0
    mean_length: float | None = None
    checkpoint_every_hours: float = 0.5
    restart_hours: float = 0.15
    startup_hours: float = 0.1
    overhead: float = 0.1

    def __post_init__(self) -> None:
        for name in ("sequences", "global_batch", "epochs"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"training run: {name} is {value}; above 0")
        for name in ("checkpoint_every_hours", "restart_hours", "startup_hours", "overhead"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigurationError(f"training run: {name} is {value}; 0 or more")
        if self.mean_length is not None and not (math.isfinite(self.mean_length) and self.mean_length > 0):
            raise ConfigurationError(f"training run: mean_length is {self.mean_length}; above 0")

    @property
    def steps(self) -> int:
        """Of the optimizer."""
        return math.ceil(self.sequences * self.epochs / self.global_batch)


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What own runs taught so far. :param confidence: of the upper bound of memory, one-sided."""

    memory: Residuals = field(default_factory=memory_residuals)
    time: Residuals = field(default_factory=time_residuals)
    confidence: float = 0.99


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An expected value between two one-sided bounds."""

    lower: float
    expected: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class Option:
    """A way that fits. Memory in bytes a GPU, ``cost`` in the price list's currency, hours of the whole run.

    :param moment: of a step in which the peak is reached. :param capacity: bytes that one GPU has.
    :param interruption_hours: of the expected hours, lost to interruptions of a spot machine.
    :param estimated_peak: and ``estimated_hours``: before own runs corrected them; what new runs are held against.
    """

    gpu: str
    count: int
    purchase: Purchase
    setup: TrainingSetup
    memory: Interval
    moment: str
    capacity: float
    hours: Interval
    interruption_hours: float
    cost: Interval
    estimated_peak: float
    estimated_hours: float

    @property
    def name(self) -> str:
        """As people say it."""
        return f"{self.count} x {self.gpu} {self.purchase.replace('_', '-')}"

    def halved(self) -> TrainingSetup | None:
        """The setup to try after this one ran out of memory: half the micro-batch, twice the accumulation."""
        if self.setup.micro_batch == 1 or self.setup.micro_batch % 2:
            return None
        return replace(self.setup, micro_batch=self.setup.micro_batch // 2, accumulation=self.setup.accumulation * 2)


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """A way that is out, and why in one sentence.

    :param purchase: None where no purchase helps. :param dearer: it would work, and only costs more.
    """

    gpu: str
    count: int
    purchase: Purchase | None
    reason: str
    dearer: bool = False


def memory_kind(setup: TrainingSetup) -> str:
    """Runs whose peaks teach each other."""
    return f"{setup.method}/{setup.sharding}"


def time_kind(setup: TrainingSetup, gpu: str) -> str:
    """Runs whose times teach each other."""
    return f"{setup.method}/{setup.sharding}/{gpu}"


def fitted_setup(
    shape: ModelShape, setup: TrainingSetup, run: TrainingRun, gpu: Gpu, *, count: int, knowledge: Knowledge
) -> TrainingSetup | str:
    """The fastest micro-batch and sharding whose upper bound fits, or why there is none.

    :param setup: its ``micro_batch``, ``accumulation``, ``gpus`` are replaced; its sharding too, unless it names one.
    """
    if setup.precision is Precision.BF16 and not gpu.bf16:
        return f"{gpu.name} has no bf16; precision: fp16 would run"
    if count > gpu.most_per_node:
        return f"{gpu.name} comes with at most {gpu.most_per_node} in one machine"
    if run.global_batch % count:
        return f"a global batch of {run.global_batch} cannot be split over {count} GPUs"
    fitting, least = [], math.inf
    for candidate in _candidates(setup, run, count):
        factor = knowledge.memory.factor(memory_kind(candidate), confidence=knowledge.confidence)
        upper = training_memory(shape, candidate).peak * factor.upper
        least = min(least, upper)
        if upper <= gpu.memory:
            fitting.append(candidate)
    if not fitting:
        return f"needs up to {least / GB:.1f} GB a GPU even with micro-batch 1, {gpu.name} has {gpu.memory / GB:.1f} GB"
    return min(fitting, key=lambda c: (training_hours(shape, c, run, gpu), c.micro_batch))


def training_hours(shape: ModelShape, setup: TrainingSetup, run: TrainingRun, gpu: Gpu) -> float:
    """Hours of an undisturbed run, as estimated, before own runs correct them."""
    time = step_time(shape, setup, gpu, length=_padded_length(setup, run))
    seconds = run.steps * (setup.accumulation * time.micro_batch + time.step)
    return run.startup_hours + seconds * (1 + run.overhead) / 3600


def interruption_hours(hours: float, run: TrainingRun, *, rate: float) -> float:
    """Hours expected to be lost when interruptions come at ``rate`` per hour: each loses half a checkpoint interval
    and a restart, and the time lost can be interrupted again.

    :returns: infinity where more is lost than gained.
    """
    each = rate * (run.checkpoint_every_hours / 2 + run.restart_hours)
    return math.inf if each >= 1 else hours * each / (1 - each)


def option(
    shape: ModelShape, setup: TrainingSetup, run: TrainingRun, gpu: Gpu, *, price: Price, purchase: Purchase,
    knowledge: Knowledge,
) -> Option:  # fmt: skip
    """Memory, time and cost of a setup that fits, with intervals."""
    memory = training_memory(shape, setup)
    peak = knowledge.memory.factor(memory_kind(setup), confidence=knowledge.confidence)
    pace = knowledge.time.factor(time_kind(setup, gpu.name), confidence=0.95)
    hours = training_hours(shape, setup, run, gpu)
    rate = price.interruptions_per_hour if purchase is Purchase.SPOT else 0.0
    whole = [hours * factor for factor in (pace.lower, pace.expected, pace.upper)]
    lost = [interruption_hours(each, run, rate=rate) for each in whole]
    total = [each + gone for each, gone in zip(whole, lost, strict=True)]
    hourly = setup.gpus * (price.of(purchase) or 0.0)
    return Option(
        gpu=gpu.name,
        count=setup.gpus,
        purchase=purchase,
        setup=setup,
        memory=Interval(
            lower=memory.peak * peak.lower, expected=memory.peak * peak.expected, upper=memory.peak * peak.upper
        ),
        moment=memory.moment,
        capacity=gpu.memory,
        hours=Interval(lower=total[0], expected=total[1], upper=total[2]),
        interruption_hours=lost[1],
        cost=Interval(lower=total[0] * hourly, expected=total[1] * hourly, upper=total[2] * hourly),
        estimated_peak=memory.peak,
        estimated_hours=hours,
    )


def _candidates(setup: TrainingSetup, run: TrainingRun, count: int) -> Iterator[TrainingSetup]:
    """Every micro-batch that divides the global batch (powers of two), with every sharding that comes into question."""
    each = run.global_batch // count
    # A gradient that is used at once cannot wait for a second micro-batch.
    batches = [each] if setup.optimizer_in_backward else [b for b in _powers(each) if each % b == 0]
    for sharding in _shardings(setup, count):
        for batch in batches:
            yield replace(setup, micro_batch=batch, accumulation=each // batch, gpus=count, sharding=sharding)


def _shardings(setup: TrainingSetup, count: int) -> tuple[Sharding, ...]:
    if count == 1:
        return (Sharding.NONE,)
    if setup.sharding is not Sharding.NONE:
        return (setup.sharding,)
    if setup.method is Method.FULL and setup.master_weights:
        return (Sharding.DDP, Sharding.ZERO2, Sharding.FSDP)
    return (Sharding.DDP, Sharding.FSDP)


def _powers(limit: int) -> list[int]:
    return [2**k for k in range(limit.bit_length()) if 2**k <= limit]


def _padded_length(setup: TrainingSetup, run: TrainingRun) -> float:
    """Mean tokens computed per sequence: one alone is not padded; in a batch the longest sets the length."""
    if setup.packed or run.mean_length is None:
        return float(setup.sequence_length)
    mean = min(run.mean_length, setup.sequence_length)
    return mean + (setup.sequence_length - mean) * (1 - 1 / setup.micro_batch)
