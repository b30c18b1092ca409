"""Which GPUs a training asks for: the GPU plan as a ladder of resources."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from genai_operators.compute.resources import GIB, Resources
from genai_operators.decisions.gpu_options import Knowledge, Option
from genai_operators.decisions.gpu_plan import COUNTS, GpuPlan, Limits, plan
from genai_operators.decisions.gpu_prices import PriceList, Purchase
from genai_operators.exceptions import ConfigurationError
from genai_operators.operators.training_need import TrainingNeed

PRICES = "include/prices.yaml"
#: A project's own prices; names only what differs.
OWN_PRICES = "include/prices.override.yaml"

CORES_PER_GPU = 4.0
#: Of the host, for each GPU: Python, CUDA's pinned buffers, the loader.
HOST_BYTES_PER_GPU = 6 * GIB
#: Weights pass the host in fp32 and are copied once more when they are saved.
HOST_COPIES_OF_WEIGHTS = 2
SHARED_BYTES_PER_GPU = 1 * GIB
#: Of the disk: the data set, logs and caches; then the base and the result, each at most in fp32, and two checkpoints
#: (one may be on its way to the store), each with both moments of Adam. A cap, not a reservation.
SCRATCH_BYTES = 10 * GIB
SCRATCH_COPIES_OF_WEIGHTS = 8


@dataclass(frozen=True, kw_only=True)
class GpuWish:
    """What the model file's ``compute`` section says about GPUs.

    :param types: names in the GPU catalogue; ``None``: every one that has a price.
    :param counts: of GPUs in one machine.
    :param purchases: how machines may be bought.
    :param max_cost: of the whole run, in the price file's currency.
    :param nodes: machines at once; each does its part of every step.
    """

    types: tuple[str, ...] | None = None
    counts: tuple[int, ...] = COUNTS
    purchases: frozenset[Purchase] = frozenset(Purchase)
    max_cost: float | None = None
    nodes: int = 1


@dataclass(frozen=True, kw_only=True)
class GpuChoice:
    """The plan for one machine (prices of all machines), its ladder, and what a reader should doubt."""

    plan: GpuPlan
    ladder: tuple[Resources, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """For the log."""
        return [*self.plan.render_text().splitlines(), *(f"  {note}" for note in self.notes)]


def choose(need: TrainingNeed, *, wish: GpuWish, prices: PriceList, knowledge: Knowledge, today: date) -> GpuChoice:
    """The cheapest way that fits, and what to fall back to.

    :raises ConfigurationError: nothing fits, or even the cheapest way is expected to cost more than ``max_cost``; the
        message has each reason.
    """
    run = need.run
    if run.global_batch % wish.nodes:
        raise ConfigurationError(f"a batch of {run.global_batch} rows cannot be split over {wish.nodes} nodes")
    one_node = replace(
        run, sequences=max(1, math.ceil(run.sequences / wish.nodes)), global_batch=run.global_batch // wish.nodes
    )
    found = plan(
        need.shape,
        need.setup,
        one_node,
        prices=_offered(prices, wish),
        gpus=wish.types,
        counts=wish.counts,
        limits=Limits(spot=Purchase.SPOT in wish.purchases),
        knowledge=knowledge,
    )
    notes = [*need.notes, *found.warnings(today), *_cost_notes(found, wish)]
    if wish.nodes > 1:
        notes.append(f"{wish.nodes} nodes: prices are of all; the time between nodes is not in the estimate")
    within = [way for way in found.chain if wish.max_cost is None or way.cost.expected <= wish.max_cost]
    weights = need.shape.parameters * 4
    ladder = tuple(_resources(way, nodes=wish.nodes, weights=weights, currency=found.currency) for way in within)
    return GpuChoice(plan=found, ladder=ladder, notes=tuple(notes))


def project_prices(root: Path) -> PriceList:
    """The project's price file with its own prices over it.

    :raises ConfigurationError: it is missing or wrong.
    """
    from genai_operators.price_file import read_prices

    own = root / OWN_PRICES
    return read_prices(root / PRICES, *([own] if own.exists() else []))


def _offered(prices: PriceList, wish: GpuWish) -> PriceList:
    """What may be bought, at the price of all nodes."""
    gpus = {}
    for name, price in prices.gpus.items():
        of = {
            purchase: each * wish.nodes
            for purchase in Purchase
            if purchase in wish.purchases and (each := price.of(purchase)) is not None
        }
        if of:
            gpus[name] = replace(price, on_demand=of.get(Purchase.ON_DEMAND), spot=of.get(Purchase.SPOT))
    return replace(prices, gpus=gpus)


def _cost_notes(found: GpuPlan, wish: GpuWish) -> Sequence[str]:
    cost, limit = found.chosen.cost, wish.max_cost
    if limit is None:
        return ()
    if cost.expected > limit:
        raise ConfigurationError(
            f"compute.max_cost is {limit:g} {found.currency}, and even the cheapest way, {found.chosen.name}, is "
            f"expected to cost {cost.expected:.2f}. Raise it, train less (epochs, max_steps), or change the recipe"
        )
    if cost.upper > limit:
        return (f"may cost up to {cost.upper:.2f}: at {limit:g} {found.currency} it checkpoints and stops",)
    return ()


def _resources(way: Option, *, nodes: int, weights: int, currency: str) -> Resources:
    shared = way.count * SHARED_BYTES_PER_GPU
    hourly = way.cost.expected / way.hours.expected if way.hours.expected > 0 else None
    return Resources(
        gpu=way.gpu,
        gpu_count=way.count,
        gpu_memory_bytes=math.ceil(way.memory.upper),
        nodes=nodes,
        spot=way.purchase is Purchase.SPOT,
        cpu=way.count * CORES_PER_GPU,
        memory_bytes=way.count * HOST_BYTES_PER_GPU + HOST_COPIES_OF_WEIGHTS * weights + shared,
        shared_memory_bytes=shared,
        scratch_bytes=SCRATCH_BYTES + SCRATCH_COPIES_OF_WEIGHTS * weights,
        micro_batch=way.setup.micro_batch,
        price_per_hour=hourly,
        currency=currency,
    )
