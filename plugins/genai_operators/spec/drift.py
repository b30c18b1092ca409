"""``drift``: when the traffic counts as different from what the champion learnt."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from genai_operators.spec.quantities import Duration, Fraction, PositiveInt
from genai_operators.spec.section import Section


def _names(value: Any) -> Any:
    if value == "auto":
        return ()
    return [value] if isinstance(value, str) else value


FeatureNames = Annotated[
    tuple[str, ...],
    BeforeValidator(_names),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "array", "items": {"type": "string"}}]}),
]


class Drift(Section):
    """Drift needs both: an effect worth acting on, and evidence that it is no accident."""

    window: Duration = Field(
        default=timedelta(hours=1),
        description="Length of a period. A check judges the traffic of the last period that no check has judged, alone "
        "and together with the 1, 3, 7, .. 63 periods before it: large changes are found at once, small ones over "
        "time. With checks as often as this nothing is left out.",
    )
    minimum_rows: PositiveInt = Field(
        default=200, description="With fewer requests a period says nothing by itself; the longer windows count it."
    )
    minimum_effect: Fraction = Field(
        default=0.1,
        description="Smallest change worth acting on: the share of rows (0 to 1) that moved. 0.1 means that a tenth of "
        "the rows went to another category, or that numbers shifted by about 0.18 of their standard deviation; less "
        "never alarms, however many rows show it. At 2,000 requests a day 0.0056 finds a shift by 0.1 standard "
        "deviations in 3 days and by 0.05 in 14, but also what the weekday and the hour do to traffic.",
    )
    false_discovery_rate: Fraction = Field(
        default=0.01,
        description="Risk of a false alarm within a year. All checks, windows and features of the year share it.",
    )
    cooldown: Duration = Field(default=timedelta(days=1), description="At most one alarm within this time.")
    features: FeatureNames = Field(default=(), description="Features that are compared; `auto` takes all that apply.")
    embeddings: bool = Field(
        default=True,
        description="Also compare which kinds of prompts come, by clusters of hashed character sequences. No text is "
        "kept for it; a sample of at most 2,000 vectors a period is.",
    )
