"""The GPU plan of a retraining: binding where the model file asks for GPUs, else an outlook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from genai_operators.decisions.gpu_plan import COUNTS, duration
from genai_operators.decisions.gpu_prices import Purchase
from genai_operators.exceptions import GenaiError
from genai_operators.operators.gpu_choice import GpuChoice, GpuWish, choose, project_prices
from genai_operators.operators.gpu_learning import knowledge
from genai_operators.operators.training_need import TrainingNeed, base_shape, expected_rows, training_need
from genai_operators.spec.compute import Compute, GpuType, Spot
from genai_operators.spec.recipe import Recipe
from genai_operators.store import Store

if TYPE_CHECKING:
    from genai_operators.release.ledger import LedgerEntry


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is to be trained. :param champion: given when it is refreshed. :param files: raw rows, as the file says."""

    recipe: Recipe
    champion: LedgerEntry | None
    files: Sequence[str]

    def need(self, root: Path) -> TrainingNeed:
        """:raises ConfigurationError: the model's configuration is not here."""
        shape = base_shape(self.recipe, champion=self.champion, root=root)
        return training_need(
            self.recipe, shape=shape, rows=expected_rows(self.files, champion=self.champion, root=root)
        )


def gpu_wish(compute: Compute) -> GpuWish:
    """The ``compute`` section as the question of the plan; not for ``gpu: none``."""
    purchases = {
        Spot.NEVER: frozenset({Purchase.ON_DEMAND}),
        Spot.PREFERRED: frozenset(Purchase),
        Spot.ONLY: frozenset({Purchase.SPOT}),
    }
    named = compute.gpu.type is not GpuType.AUTO
    count = compute.gpu.count or (1 if named else None)
    return GpuWish(
        types=(compute.gpu.type.value,) if named else None,
        counts=COUNTS if count is None else (count,),
        purchases=purchases[compute.spot],
        max_cost=compute.max_cost,
        nodes=compute.nodes,
    )


def gpu_choice(training: Training, *, wish: GpuWish, store: Store, root: Path, today: date) -> GpuChoice:
    """The plan, from the project's prices and from what earlier trainings taught.

    :raises ConfigurationError: see :func:`~genai_operators.operators.gpu_choice.choose`.
    """
    need = training.need(root)
    return choose(need, wish=wish, prices=project_prices(root), knowledge=knowledge(store), today=today)


def gpu_outlook(training: Training, *, store: Store, root: Path, today: date) -> tuple[GpuChoice | None, str]:
    """What it would be on a cluster, in passing: never a reason to fail. (choice, note for people)."""
    try:
        choice = gpu_choice(training, wish=GpuWish(), store=store, root=root, today=today)
    except GenaiError as error:
        return None, f"no outlook on GPUs: {error}"
    way, currency = choice.plan.chosen, choice.plan.currency
    would = f"{way.name}, {duration(way.hours.expected)}, {way.cost.expected:.2f} {currency}"
    return choice, f"trains on this machine; on a cluster it would be {would}"


def binding_choice(
    training: Training, *, compute: Compute, store: Store, root: Path, today: date
) -> tuple[GpuChoice | None, str]:
    """What the cluster is asked for. (choice, note for people).

    For GPUs that the model file names the plan only sizes the micro-batch: where it cannot, or doubts that they do,
    its doubt becomes the note, and the file is obeyed.

    :raises ConfigurationError: ``gpu: auto``, and nothing fits, or it would cost more than it may.
    """
    try:
        return gpu_choice(training, wish=gpu_wish(compute), store=store, root=root, today=today), ""
    except GenaiError as error:
        if compute.gpu.type is GpuType.AUTO:
            raise
        return None, f"the GPU plan doubts {compute.gpu.type.value}: {error}"
