"""What a canary's verdict is asked: guardrails, error rates, and what may be left out. Frozen when a release starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from genai_operators.exceptions import SpecError

MAXIMUM_GUARDRAILS = 8
"""More would not fit the state into its 8 kB, and each one makes every other slower to speak."""


@dataclass(frozen=True, kw_only=True)
class Guardrail:
    """One kind of bad outcome, compared between canary and champion.

    *Harm* is a ratio of bad rates (canary to champion) proved above ``harm_ratio``. *Health* is a ratio proved below
    ``margin``, **or** a canary bad rate proved below ``ceiling``.

    :param name: what goes wrong, e.g. ``errors``; the key of its column in ``Observations.bad``.
    :param alpha_weight: its share of the plan's ``alpha``, relative to the other guardrails. Positive.
    :param harm_ratio: the largest ratio that is still harmless. At least 1 and below ``margin``.
    :param margin: the smallest ratio that is not acceptable.
    :param ceiling: the smallest absolute bad rate of the canary that is not acceptable, in (0, 1). ``None``: there is
        none, so that only the ratio can certify.
    :raises SpecError: a value is outside its range.
    """

    name: str
    alpha_weight: float = 1.0
    harm_ratio: float = 1.0
    margin: float = 2.0
    ceiling: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that would make a verdict meaningless."""
        if not self.name:
            raise SpecError("guardrail without a name: give it one, such as 'errors'")
        where = f"guardrail {self.name!r}"
        if not (math.isfinite(self.alpha_weight) and self.alpha_weight > 0):
            raise SpecError(f"{where}: alpha_weight must be a positive number, got {self.alpha_weight}")
        if not (math.isfinite(self.margin) and 1 <= self.harm_ratio < self.margin):
            raise SpecError(f"{where}: 1 <= harm_ratio < margin must hold, got {self.harm_ratio} and {self.margin}")
        if self.ceiling is not None and not 0 < self.ceiling < 1:
            raise SpecError(f"{where}: ceiling is a rate between 0 and 1 (both excluded), got {self.ceiling}")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The question a release asks of its traffic.

    :param guardrails: what is compared. At least one, at most :data:`MAXIMUM_GUARDRAILS`, names unique.
    :param alpha: probability, over the whole release, that a canary within every ``harm_ratio`` is called harmful.
    :param beta: probability, over the whole release, that a canary which is unacceptable on some guardrail is
        certified.
    :param split_alpha: probability, over the whole release, that an intact split is called broken. ``None``: the rows
        are no assignments (feedback: who gives it depends on the answer), so that they say nothing about the split.
    :param incident_window_s: failures that share a ``cause`` count as one event of harm while they follow each other
        within so many seconds, for at most two such windows in a row. Choose it at least half as long as the outages
        that one replica or one upstream is known for.
    :param warm_up_s: requests (of both arms) that arrive so many seconds after the first one are left out of the
        evidence.
    :param minimum_soak_s: seconds of evidence before an absolute ``ceiling`` may certify. The absolute process
        certifies the rate *so far*; a soak shorter than the daily cycle certifies a quiet night.
    :raises SpecError: a value is outside its range.
    """

    guardrails: tuple[Guardrail, ...]
    alpha: float = 0.05
    beta: float = 0.05
    split_alpha: float | None = 0.001
    incident_window_s: float = 120.0
    warm_up_s: float = 0.0
    minimum_soak_s: float = 0.0

    def __post_init__(self) -> None:
        """Refuse an empty question, double names, impossible error rates, negative durations."""
        object.__setattr__(self, "guardrails", tuple(self.guardrails))
        names = [guardrail.name for guardrail in self.guardrails]
        if not names or len(names) > MAXIMUM_GUARDRAILS:
            raise SpecError(f"a plan has 1 to {MAXIMUM_GUARDRAILS} guardrails, got {len(names)}")
        if len(set(names)) < len(names):
            raise SpecError(f"guardrail names must differ, got {', '.join(names)}")
        for field in ("alpha", "beta", "split_alpha"):
            value = getattr(self, field)
            if not (value is None and field == "split_alpha") and not 0 < value < 1:
                raise SpecError(f"{field} is a probability between 0 and 1 (both excluded), got {value}")
        for field in ("incident_window_s", "warm_up_s", "minimum_soak_s"):
            if not (math.isfinite(getattr(self, field)) and getattr(self, field) >= 0):
                raise SpecError(f"{field} is a duration in seconds, at least 0, got {getattr(self, field)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The guardrails' names, in order."""
        return tuple(guardrail.name for guardrail in self.guardrails)

    @property
    def shares(self) -> tuple[float, ...]:
        """Each guardrail's share of ``alpha``; they sum to one."""
        total = math.fsum(guardrail.alpha_weight for guardrail in self.guardrails)
        return tuple(guardrail.alpha_weight / total for guardrail in self.guardrails)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; :meth:`from_json` restores an equal plan."""
        return {**asdict(self), "guardrails": [list(asdict(guardrail).values()) for guardrail in self.guardrails]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Plan:
        """:raises SpecError: a value is outside its range."""
        names = [field.name for field in fields(Guardrail)]
        guardrails = tuple(Guardrail(**dict(zip(names, values, strict=True))) for values in record["guardrails"])
        return cls(**{**record, "guardrails": guardrails})
