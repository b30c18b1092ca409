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

    window: Duration = Field(default=timedelta(hours=1), description="How far back the traffic is compared.")
    minimum_rows: PositiveInt = Field(default=200, description="With fewer requests the check stays silent.")
    minimum_effect: Fraction = Field(default=0.1, description="Smallest difference worth acting on, 0 to 1.")
    false_discovery_rate: Fraction = Field(default=0.01, description="Share of false alarms among reported features.")
    cooldown: Duration = Field(default=timedelta(days=1), description="At most one alarm within this time.")
    features: FeatureNames = Field(default=(), description="Features that are compared; `auto` takes all that apply.")
