"""The canary's verdict: proved harmful, proved acceptable, or not enough evidence. Valid at every look.

    state = start(Plan(guardrails=(Guardrail(name="errors", ceiling=0.02),)))
    state = update(state, observations)          # as often as you like; the batching does not matter
    assessment = assess(state)
    if assessment.harmful: ...                   # roll back; assessment.culprit says why
    elif not assessment.split_intact: ...        # hold: the propensities are not what happened, nothing is proved
    elif assessment.certified: ...               # promote
    else: ...                                    # wait; silence never promotes

Pure functions on a small state that serialises to JSON (at most 8 kB) and replays bit for bit. The parts, one module
each: evidence of harm (:mod:`~genai_operators.decisions.sequential_harm`), evidence of health (``sequential_health``),
the split check (``sequential_split``), and what counts once (``sequential_once``, ``sequential_units``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.sequential_assessment import Assessment, GuardrailEvidence, assess
from genai_operators.decisions.sequential_events import bad_events, coins, units_of
from genai_operators.decisions.sequential_harm import Alarm, Events, Harm, update_harm
from genai_operators.decisions.sequential_health import update_relative
from genai_operators.decisions.sequential_observations import Observations
from genai_operators.decisions.sequential_once import IncidentBook, smallest
from genai_operators.decisions.sequential_plan import Guardrail, Plan
from genai_operators.decisions.sequential_products import Products
from genai_operators.decisions.sequential_split import Break, Split, update_split
from genai_operators.decisions.sequential_state import Counts, Exposure, State, start
from genai_operators.decisions.sequential_units import UnitMemory, Units
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

Booleans = NDArray[np.bool_]

SLAB = 65_536
"""Requests worked on at one time: bounds the memory, changes nothing else."""


def update(state: State, observations: Observations) -> State:
    """The state after more requests. Any batching of the same requests gives the same state, bit for bit.

    A million requests with six guardrails and 1 % bad events take well under a second, with sticky users and causes
    too; memory stays below 100 MB.

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
    met = observations.propensity > 0.0  # before the canary has weight there is nothing to compare and nothing to soak
    first_arrival = state.first_arrival
    if first_arrival is None and met.any():
        first_arrival = float(observations.arrival[met.argmax()])
    used = met & (observations.arrival >= (first_arrival or 0.0) + state.plan.warm_up_s)
    units = units_of(observations)
    memories, book = [UnitMemory(memory) for memory in state.bad_units], IncidentBook(state.incidents)
    bad = bad_events(observations, state.plan.names, used=used, units=units, memories=memories, book=book)
    hashes, known = units
    split, split_units, end = _split(state, observations, used, units)
    return replace(
        state,
        requests=state.requests + len(observations),
        first_arrival=first_arrival,
        last_arrival=float(observations.arrival[-1]),
        harm=_harm(state, observations, [events.of_harm for events in bad], end=end),
        health=replace(
            state.health,
            products=tuple(
                _relative(products, coins(events.of_health(observations.canary), observations), guardrail)
                for products, guardrail, events in zip(state.health.products, state.plan.guardrails, bad, strict=True)
            ),
        ),
        split=split,
        counts=tuple(
            _count(counts, observations, name, used, events.of_harm)
            for counts, name, events in zip(state.counts, state.plan.names, bad, strict=True)
        ),
        exposure=_expose(state.exposure, observations, hashes[known & observations.canary]),
        incidents=book.close(),
        bad_units=tuple(memory.close() for memory in memories),
        split_units=split_units,
    )


def _split(
    state: State, observations: Observations, used: Booleans, units: tuple[NDArray[np.uint32], Booleans]
) -> tuple[Split, Units, int]:
    """The split, who was counted for it, and the row at which it broke: from there on nothing is evidence of harm."""
    alpha = state.plan.split_alpha
    if alpha is None:
        return state.split, state.split_units, len(observations)
    hashes, known = units
    memory = UnitMemory(state.split_units)
    counted, sticky = used.copy(), used & known
    counted[sticky], _ = memory.admit(hashes[sticky])
    split, broken = update_split(
        state.split, canary=observations.canary, propensity=observations.propensity, counted=counted, alpha=alpha
    )
    if state.split.broken is not None:
        return split, memory.close(), 0
    if broken is None:
        return split, memory.close(), len(observations)
    here = Break(request=state.requests + broken + 1, arrival=float(observations.arrival[broken]))
    return replace(split, broken=here), memory.close(), broken


def _harm(state: State, observations: Observations, counted: list[NDArray[np.intp]], *, end: int) -> Harm:
    """The evidence of harm before row ``end``, where the split broke; an alarm so stands only if it came first."""
    if state.harm.alarm is not None:
        return state.harm
    events = [coins(rows[rows < end], observations) for rows in counted]
    harm, alarm = update_harm(state.harm, events, plan=state.plan)
    if alarm is None:
        return harm
    row, guardrail = alarm
    proof = Alarm(request=state.requests + row + 1, arrival=float(observations.arrival[row]), guardrail=guardrail)
    return replace(harm, alarm=proof)


def _relative(products: Products, events: Events, guardrail: Guardrail) -> Products:
    return update_relative(products, canary=events.canary, propensity=events.propensity, guardrail=guardrail)


def _count(counts: Counts, observations: Observations, name: str, used: Booleans, counted: NDArray[np.intp]) -> Counts:
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
