"""``governance``: who must agree before a release."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from genai_operators.spec.quantities import Duration
from genai_operators.spec.section import Section


class Approval(StrEnum):
    """Whether a person is asked, in Airflow's list of required actions."""

    NONE = "none"
    BEFORE_RELEASE = "before_release"


class Governance(Section):
    """A run's form may ask for an approval that the file does not; it cannot waive one."""

    approval: Approval = Field(default=Approval.NONE, description="Whether a person must approve each release.")
    approvers: tuple[str, ...] = Field(default=(), description="Airflow users who may approve; empty: everyone.")
    approval_timeout: Duration | None = Field(default=None, description="Unanswered for this long counts as rejected.")
