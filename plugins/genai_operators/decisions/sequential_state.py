"""The state of a canary's verdict: small, immutable, serialised with every look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.sequential_harm import Harm
from genai_operators.decisions.sequential_health import Health
from genai_operators.decisions.sequential_once import (
    Incidents,
    decode_hashes,
    distinct,
    encode_hashes,
)
from genai_operators.decisions.sequential_plan import Plan
from genai_operators.decisions.sequential_split import Split
from genai_operators.decisions.sequential_units import SPLIT_BYTES, Units, bytes_of_each
from genai_operators.exceptions import DataError

STATE_VERSION = 2


@dataclass(frozen=True)
class Counts:
    """Requests and bad events of one guardrail. ``*_events``: bad events that count as evidence of harm."""

    canary: int = 0
    canary_bad: int = 0
    champion: int = 0
    champion_bad: int = 0
    canary_events: int = 0
    champion_events: int = 0

    @property
    def canary_rate(self) -> float | None:
        """Share of the canary's requests that went bad; ``None`` without requests."""
        return self.canary_bad / self.canary if self.canary else None

    @property
    def champion_rate(self) -> float | None:
        """Share of the champion's requests that went bad; ``None`` without requests."""
        return self.champion_bad / self.champion if self.champion else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Exposure:
    """What met the canary, warm-up included: the use of the blast radius."""

    requests: int = 0
    tokens: int = 0
    cost_millionths: int = 0
    smallest_hashes: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, dtype=np.uint32))

    @property
    def cost(self) -> float:
        """Money spent, in the unit of ``Observations.cost``."""
        return self.cost_millionths / 1e6

    @property
    def users(self) -> float:
        """Distinct units that met the canary: exact below 128, then an estimate within about 9 %."""
        return distinct(self.smallest_hashes)[0]

    @property
    def users_at_most(self) -> float:
        """Upper bound of :attr:`users`; what a budget is held against."""
        return distinct(self.smallest_hashes)[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """Everything that the requests so far have taught. Compare states by :meth:`to_json`."""

    plan: Plan
    requests: int
    first_arrival: float | None
    last_arrival: float | None
    harm: Harm
    health: Health
    split: Split
    counts: tuple[Counts, ...]
    exposure: Exposure
    incidents: Incidents
    bad_units: tuple[Units, ...]
    split_units: Units

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, exact; at most 8 kB."""
        return {
            "version": STATE_VERSION,
            "plan": self.plan.to_json(),
            "requests": self.requests,
            "first_arrival": self.first_arrival,
            "last_arrival": self.last_arrival,
            "harm": self.harm.to_json(),
            "health": self.health.to_json(),
            "split": self.split.to_json(),
            "counts": [list(vars(counts).values()) for counts in self.counts],
            "exposure": {
                "requests": self.exposure.requests,
                "tokens": self.exposure.tokens,
                "cost_millionths": self.exposure.cost_millionths,
                "smallest_hashes": encode_hashes(self.exposure.smallest_hashes),
            },
            "incidents": self.incidents.to_json(),
            "bad_units": [units.to_json() for units in self.bad_units],
            "split_units": self.split_units.to_json(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> State:
        """Inverse of :meth:`to_json`.

        :raises DataError: the record has another version.
        """
        if record.get("version") != STATE_VERSION:
            raise DataError(
                f"state of a canary has version {record.get('version')!r}, this code reads {STATE_VERSION}; "
                "replay the release from its observations"
            )
        plan = Plan.from_json(record["plan"])
        exposure = dict(record["exposure"])
        return cls(
            plan=plan,
            requests=record["requests"],
            first_arrival=record["first_arrival"],
            last_arrival=record["last_arrival"],
            harm=Harm.from_json(record["harm"]),
            health=Health.from_json(record["health"]),
            split=Split.from_json(record["split"]),
            counts=tuple(Counts(*counts) for counts in record["counts"]),
            exposure=Exposure(**{**exposure, "smallest_hashes": decode_hashes(exposure["smallest_hashes"])}),
            incidents=Incidents.from_json(record["incidents"], window_s=plan.incident_window_s),
            bad_units=tuple(
                Units.from_json(units, size=bytes_of_each(len(plan.guardrails))) for units in record["bad_units"]
            ),
            split_units=Units.from_json(record["split_units"], size=SPLIT_BYTES),
        )


def start(plan: Plan) -> State:
    """The state before the first request."""
    return State(
        plan=plan,
        requests=0,
        first_arrival=None,
        last_arrival=None,
        harm=Harm.start(plan),
        health=Health.start(plan),
        split=Split.start(),
        counts=tuple(Counts() for _ in plan.guardrails),
        exposure=Exposure(),
        incidents=Incidents(window_s=plan.incident_window_s),
        bad_units=tuple(Units(size=bytes_of_each(len(plan.guardrails))) for _ in plan.guardrails),
        split_units=Units(size=SPLIT_BYTES),
    )
