"""What one finished run teaches the next plan: its facts, kept as they were measured, not as they were judged then.

An observation holds what was trained and what it took. Folding estimates it anew with the present formulas, so that a
better formula learns from old runs, too, and folding twice, or in another order, gives the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from genai_operators.decisions.gpu_catalogue import gpu_named
from genai_operators.decisions.gpu_memory import Constants, training_memory
from genai_operators.decisions.gpu_options import Knowledge, TrainingRun, memory_kind, time_kind, training_hours
from genai_operators.decisions.gpu_setup import TrainingSetup
from genai_operators.decisions.gpu_shape import ModelShape
from genai_operators.exceptions import DataError

OBSERVATION_VERSION = 1

LEAST_HOURS = 0.1
"""A shorter run says more of its start than of its pace."""


class PeakIs(StrEnum):
    """What a measured peak counts. ``live``: tensors alone, as ``torch.cuda.max_memory_allocated()`` tells. ``needed``:
    with the allocator's losses and the CUDA context. ``shown``: with its cache of other lengths, too, as ``nvidia-smi``
    shows it.
    """

    LIVE = "live"
    NEEDED = "needed"
    SHOWN = "shown"


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One run as it was. Its GPUs, micro-batch and sharding stand in ``setup``.

    :param run: how much was trained; ``startup_hours`` as far as ``hours`` includes a start.
    :param gpu: name in the catalogue; ``None`` where nobody knows: then it teaches memory only.
    :param peak: bytes of the fullest GPU. :param peak_is: what was counted.
    :param hours: of the whole run without interruptions; ``None`` where it was interrupted.
    :param ran_out_of: bytes of a GPU that were not enough; ``peak`` is then not needed.
    """

    shape: ModelShape
    setup: TrainingSetup
    run: TrainingRun
    gpu: str | None = None
    peak: float | None = None
    peak_is: PeakIs = PeakIs.NEEDED
    hours: float | None = None
    ran_out_of: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"version": OBSERVATION_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Observation:
        """:raises DataError: a record of another version or form."""
        if record.get("version") != OBSERVATION_VERSION:
            raise DataError(f"GPU observation version {record.get('version')!r}; this code reads {OBSERVATION_VERSION}")
        try:
            setup = dict(record["setup"])
            setup["lora_targets"] = tuple(setup["lora_targets"])
            return cls(
                shape=ModelShape(**record["shape"]),
                setup=TrainingSetup(**setup),
                run=TrainingRun(**record["run"]),
                **{name: record[name] for name in ("gpu", "peak", "hours", "ran_out_of")},
                peak_is=PeakIs(record["peak_is"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"GPU observation cannot be read: {error!r}") from error


def learn_from(observations: Iterable[Observation], knowledge: Knowledge | None = None) -> Knowledge:
    """Knowledge with every observation folded in. Each must be given once; order does not matter.

    :raises DataError: a figure that is not a positive number.
    """
    knowledge = knowledge or Knowledge()
    memory, time = knowledge.memory, knowledge.time
    for seen in observations:
        estimate, kind = training_memory(seen.shape, seen.setup), memory_kind(seen.setup)
        if seen.ran_out_of is not None:
            memory = memory.observe_out_of_memory(kind, estimated=estimate.peak, capacity=seen.ran_out_of)
        elif seen.peak is not None:
            memory = memory.observe(kind, estimated=_counted(seen), measured=seen.peak)
        if seen.gpu is not None and seen.hours is not None and seen.hours >= LEAST_HOURS:
            hours = training_hours(seen.shape, seen.setup, seen.run, gpu_named(seen.gpu))
            time = time.observe(time_kind(seen.setup, seen.gpu), estimated=hours, measured=seen.hours)
    return replace(knowledge, memory=memory, time=time)


def _counted(seen: Observation) -> float:
    """The estimate of what was counted."""
    if seen.peak_is is PeakIs.LIVE:
        return training_memory(seen.shape, seen.setup, constants=Constants(fragmentation=0.0)).allocated
    estimate = training_memory(seen.shape, seen.setup)
    return estimate.reserved if seen.peak_is is PeakIs.SHOWN else estimate.peak
