"""The canary's verdict: proved harmful, proved acceptable, or not enough evidence. Valid at every look.

    state = start(Plan(guardrails=(Guardrail(name="errors", ceiling=0.02),)))
    state = update(state, observations)          # as often as you like; the batching does not matter
    assessment = assess(state)
    if assessment.harmful: ...                   # roll back; assessment.culprit says why
    elif not assessment.split_intact: ...        # hold: the propensities are not what happened
    elif assessment.certified: ...               # promote
    else: ...                                    # wait; silence never promotes

Pure functions on a small state that serialises to JSON (at most 8 kB) and replays bit for bit. The parts, one module
each: evidence of harm (:mod:`~genai_operators.decisions.sequential_harm`), evidence of health (``sequential_health``),
the split check (``sequential_split``), and what counts once (``sequential_once``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.sequential_assessment import Assessment, GuardrailEvidence, assess
from genai_operators.decisions.sequential_harm import Alarm, Events, update_harm
from genai_operators.decisions.sequential_health import update_relative
from genai_operators.decisions.sequential_observations import Observations
from genai_operators.decisions.sequential_once import IncidentBook, SeenUnits, hashes_of, positions_of, smallest
from genai_operators.decisions.sequential_plan import Guardrail, Plan
from genai_operators.decisions.sequential_split import update_split
from genai_operators.decisions.sequential_state import Counts, Exposure, State, start
from genai_operators.exceptions import DataError

__all__ = [
    "Alarm",
    "Assessment",
    "Counts",
    "Exposure",
    "Guardrail",
    "GuardrailEvidence",
    "Observations",
    "Plan",
    "State",
    "assess",
    "start",
    "update",
]

SLAB = 65_536
"""Requests worked on at one time: bounds the memory, changes nothing else."""


def update(state: State, observations: Observations) -> State:
    """The state after more requests. Any batching of the same requests gives the same state, bit for bit.

    A million requests with six guardrails and 1 % bad events take well under a second; memory stays below 100 MB.

    :raises DataError: a guardrail's column is missing or unknown, or a request arrived before its predecessor.
    """
    _check(state, observations)
    for begin in range(0, len(observations), SLAB):
        state = _add(state, observations.rows(begin, begin + SLAB))
    return state


def _check(state: State, observations: Observations) -> None:
    names = set(state.plan.names)
    for problem, which in (("lack", names - set(observations.bad)), ("do not expect", set(observations.bad) - names)):
        if which:
            raise DataError(
                f"observations {problem} a column for {', '.join(sorted(which))}; "
                f"the plan's guardrails are {', '.join(state.plan.names)}"
            )
    if len(observations) and state.last_arrival is not None and observations.arrival[0] < state.last_arrival:
        raise DataError(
            f"observations: row 0 arrived at {observations.arrival[0]} before its predecessor at {state.last_arrival}; "
            "give requests in arrival order, behind a watermark"
        )


def _add(state: State, observations: Observations) -> State:
    first_arrival = float(observations.arrival[0]) if state.first_arrival is None else state.first_arrival
    used = observations.arrival >= first_arrival + state.plan.warm_up_s
    hashes, known = _units(observations)
    bad_units, split_units = SeenUnits(state.bad_units), SeenUnits(state.split_units)
    book = IncidentBook(state.incidents)

    assigned = used.copy()
    assigned[used] = split_units.first_of_each(hashes[used], known[used])
    bad = [np.flatnonzero(used & (observations.bad[name] == 1)) for name in state.plan.names]
    counted = _counted(bad, observations, hashes=hashes, known=known, units=bad_units, book=book)
    harm, alarm = state.harm, None
    if harm.alarm is None:
        events = [_harm_events(rows[keep], observations) for rows, keep in zip(bad, counted, strict=True)]
        harm, alarm = update_harm(harm, events, plan=state.plan)
    if alarm is not None:
        row, guardrail = alarm
        proof = Alarm(request=state.requests + row + 1, arrival=float(observations.arrival[row]), guardrail=guardrail)
        harm = replace(harm, alarm=proof)
    return replace(
        state,
        requests=state.requests + len(observations),
        first_arrival=first_arrival,
        last_arrival=float(observations.arrival[-1]),
        harm=harm,
        health=replace(state.health, products=_health(state, observations, bad, counted)),
        split=update_split(
            state.split, canary=observations.canary, propensity=observations.propensity, counted=assigned
        ),
        counts=tuple(
            _count(counts, observations, name, used, rows[keep])
            for counts, name, rows, keep in zip(state.counts, state.plan.names, bad, counted, strict=True)
        ),
        exposure=_expose(state.exposure, observations, hashes[known & observations.canary]),
        incidents=book.close(),
        bad_units=bad_units.close(),
        split_units=split_units.close(),
    )


def _units(observations: Observations) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    if observations.unit is None:
        return np.zeros(len(observations), dtype=np.uint32), np.zeros(len(observations), dtype=np.bool_)
    return hashes_of(observations.unit)


def _counted(
    bad: list[NDArray[np.intp]],
    observations: Observations,
    *,
    hashes: NDArray[np.uint32],
    known: NDArray[np.bool_],
    units: SeenUnits,
    book: IncidentBook,
) -> list[NDArray[np.bool_]]:
    """For each guardrail, which of its bad events count: the first of a unit, the first of an incident."""
    counted = [np.ones(len(rows), dtype=np.bool_) for rows in bad]
    if observations.unit is None and observations.cause is None:
        return counted
    order = sorted((int(row), guardrail, place) for guardrail, rows in enumerate(bad) for place, row in enumerate(rows))
    for row, guardrail, place in order:
        position = int(positions_of(hashes[row : row + 1], guardrail=guardrail)[0]) if known[row] else None
        cause = None if observations.cause is None else observations.cause[row]
        counts = position is None or not units.seen(position)
        if counts and cause is not None:
            counts = book.opens(guardrail, cause, float(observations.arrival[row]))
        if counts and position is not None:
            units.remember(position)
        counted[guardrail][place] = counts
    return counted


def _event_propensity(rows: NDArray[np.intp], observations: Observations) -> NDArray[np.float64]:
    propensity = observations.propensity[rows]
    if observations.cause_propensity is None or observations.cause is None:
        return propensity
    caused = np.array([observations.cause[row] is not None for row in rows], dtype=np.bool_)
    return np.where(caused, observations.cause_propensity[rows], propensity)


def _harm_events(rows: NDArray[np.intp], observations: Observations) -> Events:
    propensity = _event_propensity(rows, observations)
    drawn = (propensity > 0.0) & (propensity < 1.0)  # with only one arm in question, an event tells nothing
    return Events(row=rows[drawn], canary=observations.canary[rows[drawn]], propensity=propensity[drawn])


def _health(
    state: State, observations: Observations, bad: list[NDArray[np.intp]], counted: list[NDArray[np.bool_]]
) -> tuple[Any, ...]:
    """Against the canary every bad event counts, for it only the champion's counted ones."""
    products = []
    for one, guardrail, rows, keep in zip(state.health.products, state.plan.guardrails, bad, counted, strict=True):
        events = _harm_events(rows[keep | observations.canary[rows]], observations)
        products.append(update_relative(one, canary=events.canary, propensity=events.propensity, guardrail=guardrail))
    return tuple(products)


def _count(
    counts: Counts, observations: Observations, name: str, used: NDArray[np.bool_], counted: NDArray[np.intp]
) -> Counts:
    column, canary = observations.bad[name], observations.canary
    applicable, failed = used & (column >= 0), used & (column == 1)
    on_canary = int(np.count_nonzero(canary[counted]))
    return Counts(
        canary=counts.canary + int(np.count_nonzero(applicable & canary)),
        canary_bad=counts.canary_bad + int(np.count_nonzero(failed & canary)),
        champion=counts.champion + int(np.count_nonzero(applicable & ~canary)),
        champion_bad=counts.champion_bad + int(np.count_nonzero(failed & ~canary)),
        canary_events=counts.canary_events + on_canary,
        champion_events=counts.champion_events + len(counted) - on_canary,
    )


def _expose(exposure: Exposure, observations: Observations, users: NDArray[np.uint32]) -> Exposure:
    canary = observations.canary
    tokens = 0 if observations.tokens is None else int(observations.tokens[canary].astype(np.int64).sum())
    cost = 0 if observations.cost is None else int(np.rint(observations.cost[canary] * 1e6).astype(np.int64).sum())
    return Exposure(
        requests=exposure.requests + int(np.count_nonzero(canary)),
        tokens=exposure.tokens + tokens,
        cost_millionths=exposure.cost_millionths + cost,
        smallest_hashes=smallest(exposure.smallest_hashes, users),
    )
