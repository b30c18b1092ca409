"""Which bad events are evidence: of a burst with one cause the first, of a sticky unit the first.

The cause comes first: a failure within an open incident is the incident's and uses up nobody's coin. The failure that
opens an incident counts if its unit was not counted before: one user whose prompt takes a server down again and again
is one event, and those who suffer from it are none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.sequential_harm import Events
from genai_operators.decisions.sequential_observations import Observations
from genai_operators.decisions.sequential_once import IncidentBook, hashes_of
from genai_operators.decisions.sequential_units import UnitMemory

Booleans = NDArray[np.bool_]
Rows = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, eq=False)
class BadEvents:
    """Bad requests of one guardrail in a batch, in arrival order. All arrays have length n.

    :param row: position of the request in the batch.
    :param counts: it is evidence of harm.
    :param sampled: of a sticky unit that is in the sample, counted before or not; or of no unit.
    :param caused: it has a cause.
    """

    row: Rows
    counts: Booleans
    sampled: Booleans
    caused: Booleans

    @property
    def of_harm(self) -> Rows:
        """Rows that count as evidence of harm."""
        return self.row[self.counts]

    def of_health(self, canary: Booleans) -> Rows:
        """Rows that bear on health: against the canary all that could, for it only the champion's own failures."""
        return self.row[np.where(canary[self.row], self.sampled, self.counts & ~self.caused)]


def units_of(observations: Observations) -> tuple[NDArray[np.uint32], Booleans]:
    """Hash of the unit of each request, and where there is a unit."""
    if observations.unit is None:
        return np.zeros(len(observations), dtype=np.uint32), np.zeros(len(observations), dtype=np.bool_)
    return hashes_of(observations.unit)


def bad_events(
    observations: Observations,
    names: Sequence[str],
    *,
    used: Booleans,
    units: tuple[NDArray[np.uint32], Booleans],
    memories: Sequence[UnitMemory],
    book: IncidentBook,
) -> list[BadEvents]:
    """The bad events of each guardrail.

    :param used: shape (n,), the requests that may be evidence at all.
    :param units: of :func:`units_of`.
    :param memories: for each guardrail, which units were counted; ``book``: which incidents are open. Both are updated.
    """
    hashes, known = units
    rows = [np.flatnonzero(used & (observations.bad[name] == 1)) for name in names]
    caused = _caused(observations)
    found = []
    opening = _opening(rows, caused, observations, book)
    for of_guardrail, opens, memory in zip(rows, opening, memories, strict=True):
        counts, sampled = opens.copy(), np.ones(len(of_guardrail), dtype=np.bool_)
        sticky = np.flatnonzero(known[of_guardrail])
        counts[sticky], sampled[sticky] = memory.admit(hashes[of_guardrail[sticky]], wanted=opens[sticky])
        found.append(BadEvents(row=of_guardrail, counts=counts, sampled=sampled, caused=caused[of_guardrail]))
    return found


def _caused(observations: Observations) -> Booleans:
    if observations.cause is None:
        return np.zeros(len(observations), dtype=np.bool_)
    return np.array([cause is not None for cause in observations.cause], dtype=np.bool_)


def _opening(rows: Sequence[Rows], caused: Booleans, observations: Observations, book: IncidentBook) -> list[Booleans]:
    """For each guardrail's bad requests, false for those within an incident that was open."""
    opens = [np.ones(len(of_guardrail), dtype=np.bool_) for of_guardrail in rows]
    causes = observations.cause
    if causes is None:
        return opens
    entries = sorted(
        (int(of_guardrail[place]), guardrail, int(place))
        for guardrail, of_guardrail in enumerate(rows)
        for place in np.flatnonzero(caused[of_guardrail])
    )
    for row, guardrail, place in entries:
        cause = causes[row]
        if cause is not None:
            opens[guardrail][place] = book.opens(guardrail, cause, float(observations.arrival[row]))
    return opens


def coins(rows: Rows, observations: Observations) -> Events:
    """The events of these rows with the probability that each of them falls on the canary.

    Those that could fall on one arm only tell nothing and are left out.
    """
    propensity = observations.propensity[rows]
    if observations.cause_propensity is not None and observations.cause is not None:
        caused = np.array([observations.cause[row] is not None for row in rows], dtype=np.bool_)
        propensity = np.where(caused, observations.cause_propensity[rows], propensity)
    drawn = (propensity > 0.0) & (propensity < 1.0)
    return Events(row=rows[drawn], canary=observations.canary[rows[drawn]], propensity=propensity[drawn])
