"""``schedule``: when things happen by themselves."""

from __future__ import annotations

from pydantic import Field

from genai_operators.spec.quantities import Cron
from genai_operators.spec.section import Section


class Schedule(Section):
    """Retraining always follows an alarm of the drift check; a cron expression adds fixed times."""

    retrain: Cron | None = Field(default=None, description="Also retrain at these times; cron, in UTC.")
    drift: Cron | None = Field(default="@hourly", description="When the traffic is checked for drift; null: never.")
