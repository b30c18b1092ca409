"""What an attempt asks a machine for, and what it used. Never part of a workload's identity: it changes no result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from genai_operators.exceptions import ConfigurationError

GIB = 1024**3


class _Record:
    """Frozen dataclasses of plain JSON types."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # every subclass is a dataclass

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """:raises ConfigurationError: when a field is unknown, or one without a default is missing."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]  # likewise
        if unknown := sorted(set(record) - known):
            raise ConfigurationError(
                f"{cls.__name__.lower()}: {unknown[0]!r} unknown; known: {', '.join(sorted(known))}"
            )
        try:
            return cls(**record)
        except TypeError as error:
            raise ConfigurationError(f"{cls.__name__.lower()}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Resources(_Record):
    """One rung of the ladder: what an attempt asks for. A larger machine or a smaller micro-batch is the next attempt.

    :param gpu: name in the GPU catalogue, e.g. ``H100``; ``None`` trains on CPUs.
    :param gpu_count: GPUs of one node.
    :param gpu_memory_bytes: what the run needs at most on one GPU; the machine must have more. 0: not known.
    :param nodes: machines at once.
    :param spot: a machine that can be taken away.
    :param cpu: cores of a node.
    :param memory_bytes: limit of a node's container, ``shared_memory_bytes`` included.
    :param shared_memory_bytes: size of ``/dev/shm``.
    :param scratch_bytes: what a node writes to its disk at most; 0: not known.
    :param micro_batch: rows of one GPU at a time; the workload adds gradients up to the recipe's batch. ``None``: all.
    :param price_per_hour: of all nodes together, in ``currency``; ``None`` where nobody knows.
    """

    gpu: str | None = None
    gpu_count: int = 0
    gpu_memory_bytes: int = 0
    nodes: int = 1
    spot: bool = False
    cpu: float = 2.0
    memory_bytes: int = 8 * GIB
    shared_memory_bytes: int = 0
    scratch_bytes: int = 0
    micro_batch: int | None = None
    price_per_hour: float | None = None
    currency: str = ""


@dataclass(frozen=True, kw_only=True)
class Usage(_Record):
    """What one pod of an attempt really had, for how long, and what that costs.

    :param pod: its uid; names the record.
    :param node: the machine's name. :param machine: its type, as its labels say.
    :param gpu: name in the GPU catalogue by the node's labels; ``None`` without GPUs, or where the name is unknown.
    :param seconds: from its start to its end, or until now.
    :param price_per_hour: of the pod's share of the machine; ``None`` where the price list has none.
    """

    pod: str
    node: str = ""
    machine: str = ""
    gpu: str | None = None
    gpu_count: int = 0
    spot: bool = False
    started: float = 0.0
    seconds: float = 0.0
    ended: bool = False
    price_per_hour: float | None = None

    @property
    def gpu_hours(self) -> float:
        """GPUs times hours."""
        return self.gpu_count * self.seconds / 3600

    @property
    def cost(self) -> float:
        """In the price list's currency; 0 where no price is known."""
        return (self.price_per_hour or 0.0) * self.seconds / 3600
