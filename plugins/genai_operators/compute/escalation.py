"""What the next attempt asks for after one that did not fit. Pure functions of the claim before and the ladder.

A *ladder* lists what a workload may ask for, in the order of preference. Memory of a GPU that ran out halves the
micro-batch, down to one row, then climbs to the next rung; memory of the host is doubled, once a rung; a queue that is
too long climbs. Whatever happens, only finitely many attempts follow, and none asks for the same twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from genai_operators.compute.resources import GIB, Resources

MEMORY_FACTOR = 2


class Trouble(StrEnum):
    """What the machine had too little of."""

    GPU_MEMORY = "gpu memory"
    HOST_MEMORY = "host memory"
    QUEUE = "room in the queue"


@dataclass(frozen=True)
class Ask:
    """What an attempt asks for, and where on the ladder that is.

    :param grown: the memory was raised since it came to this rung.
    """

    resources: Resources
    rung: int = 0
    grown: bool = False

    @classmethod
    def of_claim(cls, claim: Mapping[str, Any]) -> Ask:
        """What a claim asked for."""
        resources = Resources.from_json(claim.get("resources") or {})
        return cls(resources, rung=int(claim.get("rung", 0)), grown=bool(claim.get("grown", False)))

    def describe(self) -> str:
        """In a few words, for the log; "" where nothing in particular is asked for."""
        asked, parts = self.resources, []
        if asked == Resources():
            return ""
        if asked.nodes > 1:
            parts.append(f"{asked.nodes} machines with")
        parts.append(f"{asked.gpu_count} x {asked.gpu}" if asked.gpu else f"{asked.cpu:g} cores")
        parts.append(f"{asked.memory_bytes / GIB:.0f} GiB")
        if asked.spot:
            parts.append("spot")
        if asked.micro_batch is not None:
            parts.append(f"micro-batch {asked.micro_batch}")
        if asked.price_per_hour is not None:
            parts.append(f"{asked.price_per_hour:.2f} {asked.currency}/h")
        return ", ".join(parts)


def first(ladder: Sequence[Resources]) -> Ask:
    """The preferred rung; nothing in particular where there is no ladder."""
    return Ask(ladder[0] if ladder else Resources())


def is_on(ask: Ask, ladder: Sequence[Resources]) -> bool:
    """Whether ``ask`` came from this ladder; not so when somebody has changed the model file since."""
    if not ladder:
        return ask.rung == 0
    if ask.rung >= len(ladder):
        return False
    rung = ladder[ask.rung]
    return ask.resources.memory_bytes >= rung.memory_bytes and rung == replace(
        ask.resources,
        micro_batch=rung.micro_batch,
        memory_bytes=rung.memory_bytes,
        price_per_hour=rung.price_per_hour,
    )


def escalate(ask: Ask, trouble: Trouble, *, ladder: Sequence[Resources], batch: int | None) -> Ask | None:
    """What to ask for after ``ask`` met ``trouble``; ``None`` where nothing is left to try.

    :param batch: rows of one GPU in a step of the optimiser, as the workload reported; ``None``: it never got so far.
    """
    if trouble is Trouble.GPU_MEMORY:
        rows = ask.resources.micro_batch or batch
        if rows is not None and rows > 1:
            return replace(ask, resources=replace(ask.resources, micro_batch=_half(rows, batch)))
        return _next_rung(ask, ladder)
    if trouble is Trouble.HOST_MEMORY:
        if ask.grown or not ladder:  # without a ladder nobody sets a limit, so none can be raised
            return None
        more = replace(ask.resources, memory_bytes=MEMORY_FACTOR * ask.resources.memory_bytes)
        return replace(ask, resources=more, grown=True)
    return _next_rung(ask, ladder)


def _half(rows: int, batch: int | None) -> int:
    """The largest micro-batch of at most half as many rows that divides the batch."""
    half = rows // 2
    return half if batch is None else next(size for size in range(half, 0, -1) if batch % size == 0)


def _next_rung(ask: Ask, ladder: Sequence[Resources]) -> Ask | None:
    """One up. What the host's memory was found to need, it needs there as well."""
    rung = ask.rung + 1
    if rung >= len(ladder):
        return None
    memory = max(ladder[rung].memory_bytes, ask.resources.memory_bytes if ask.grown else 0)
    return Ask(replace(ladder[rung], memory_bytes=memory), rung=rung)
