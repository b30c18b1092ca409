"""The GPU plan of a retraining: binding where the model file asks for GPUs, else an outlook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from genai_operators.exceptions import GenaiError
from genai_operators.operators.gpu_choice import GpuChoice, GpuWish, choose, project_prices
from genai_operators.operators.gpu_learning import knowledge
from genai_operators.operators.training_need import TrainingNeed, base_shape, expected_rows, training_need
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
    cost = f"{way.cost.expected:.2f} {currency}"
    return choice, f"trains on this machine; on a cluster it would be {way.name}, {way.hours.expected:.1f} h, {cost}"
