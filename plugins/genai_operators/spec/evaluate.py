"""``evaluate``: what a candidate must prove before it may see traffic."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, model_validator

from genai_operators.spec.gate import OnFailure
from genai_operators.spec.quantities import Fraction, PositiveInt
from genai_operators.spec.section import Section


class NewDataRule(StrEnum):
    """What a candidate owes on the new rows. ``auto``: superior after drift, else not inferior."""

    AUTO = "auto"
    SUPERIOR = "superior"
    NON_INFERIOR = "non_inferior"


class Evaluate(Section):
    """Candidate and champion answer the same held-out items; differences are judged in pairs."""

    margin: Fraction = Field(default=0.05, description="Loss of exact match that still counts as 'not worse'.")
    confidence: Fraction = Field(default=0.95, description="Confidence of every interval and test.")
    rule_on_new: NewDataRule = Field(default=NewDataRule.AUTO, description="What the candidate owes on new rows.")
    minimum_items: PositiveInt = Field(default=30, description="With fewer items the gate does not pass.")
    maximum_items: PositiveInt = Field(default=500, description="At most this many items are answered.")
    max_new_tokens: PositiveInt = Field(default=64, description="Longest answer, in tokens.")
    minimum_exact_match: float | None = Field(
        default=None, ge=0, le=1, description="The lower bound of exact match must reach this, champion or not."
    )
    on_failure: OnFailure = Field(default=OnFailure.FAIL, description="What the run does when the gate does not pass.")

    @model_validator(mode="after")
    def _counts_fit(self) -> Evaluate:
        if self.maximum_items < self.minimum_items:
            raise ValueError(f"maximum_items {self.maximum_items} is below minimum_items {self.minimum_items}")
        return self
