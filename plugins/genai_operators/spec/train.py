"""``train``: the recipe of the first training, and of each one after it."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from genai_operators.spec.quantities import Duration
from genai_operators.spec.section import Section


class Train(Section):
    """Recipes are files of include/recipes, named without their ending."""

    recipe: str = Field(default="small", description="Recipe of the first training.")
    refresh: str | None = Field(
        default=None,
        description="Recipe once there is a champion: it goes on from the champion's weights with the new rows.",
    )
    rehearsal: float = Field(
        default=1.0,
        ge=0,
        le=10,
        description="Old rows for each new row in a refresh; without them the old task is forgotten.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of weights, order and dropout.")
    timeout: Duration = Field(
        default=timedelta(hours=2),
        description="Longest training; then it checkpoints and stops. A cluster's queue does not count.",
    )
