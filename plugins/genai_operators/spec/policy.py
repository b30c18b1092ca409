"""``policy``: when the model is retrained by itself, and what holds that back."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from pydantic import Field, model_validator

from genai_operators.spec.quantities import Duration, Fraction, PositiveInt
from genai_operators.spec.section import Section


class Policy(Section):
    """Asked at each drift check. A drift alarm is a reason to retrain; so may be age, feedback and new rows.

    Every retraining that was not the model's first counts against the brakes, whoever began it.
    """

    maximum_age: Duration | None = Field(
        default=timedelta(days=90),
        description="Retrain when the champion was trained so long ago; null: never for that.",
    )
    maximum_negative_feedback: Fraction | None = Field(
        default=None,
        description="Retrain when users provably call more than this share of the answers wrong; null: never for that.",
    )
    enough_new_rows: PositiveInt | None = Field(
        default=5_000, description="Retrain when users judged so many answers since the training; null: never for that."
    )
    cooldown: Duration = Field(default=timedelta(days=1), description="Time between any two retrainings.")
    block: Duration = Field(
        default=timedelta(days=3),
        description="A retraining that did not help blocks what called for it for so long; twice as long each time.",
    )
    longest_block: Duration = Field(default=timedelta(days=30), description="No block is longer.")
    retrainings: PositiveInt = Field(default=6, description="At most so many retrainings within `budget_window`.")
    budget_window: Duration = Field(default=timedelta(days=30), description="Time over which retrainings are counted.")
    longest_retraining: Duration = Field(
        default=timedelta(days=3), description="A retraining that has not ended after this time counts as broken."
    )

    @model_validator(mode="after")
    def _block_fits(self) -> Self:
        if self.longest_block < self.block:
            raise ValueError("longest_block is shorter than block")
        return self
