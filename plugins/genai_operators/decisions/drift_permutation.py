"""P-values from random relabelling, with as many relabellings as the question needs and no more."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ENOUGH_EXCEEDANCES = 20
"""A p-value that so many relabellings exceeded is known to a fifth of itself; more would not change a verdict."""

MOST_DRAWS = 100_000
"""More are never drawn; levels far below its inverse need a tail that is known otherwise."""

PLAIN_DRAWS, PLAIN_TAIL = 10_000, 1e-6
"""At levels too small for relabellings, so many are enough where one of them reached the data (p is then far above the
level), and where none did and the tail is below this share of the level (ten times as many would not either)."""

SMALLEST_BATCH = 100
LARGEST_BATCH = 20_000
TIE_TOLERANCE = 1e-9

Draw = Callable[[int], NDArray[np.float64]]
"""Statistics of that many random relabellings, shape (count,)."""


@dataclass(frozen=True)
class PermutationResult:
    """:param p_value: never 0. :param drawn: relabellings used. :param exceeded: those as extreme as the data."""

    p_value: float
    drawn: int
    exceeded: int


def permutation_p_value(observed: float, draw: Draw, *, level: float, tail: float = 1.0) -> PermutationResult:
    """How often does a random relabelling look at least as extreme as the data?

    Draws batch by batch until ``ENOUGH_EXCEEDANCES`` relabellings reached ``observed`` (then p = exceedances / draws,
    Besag and Clifford 1991, "Sequential Monte Carlo p-values", Biometrika 78) or until p can be told from ``level``
    (``ENOUGH_EXCEEDANCES / level`` draws; then p = (1 + b) / (1 + B), Phipson and Smyth 2010). Valid at any level.

    :param level: the smallest level at which a decision will be taken, 0 < level <= 1.
    :param tail: p-value by another way, taken where no relabelling reached the data and ``MOST_DRAWS`` are too few to
        tell p from the level.
    """
    limit = math.ceil(ENOUGH_EXCEEDANCES / level)
    extrapolated = limit >= MOST_DRAWS
    limit = min(limit, MOST_DRAWS)
    threshold = observed - TIE_TOLERANCE * max(1.0, abs(observed))
    drawn = exceeded = 0
    batch = SMALLEST_BATCH
    while drawn < limit:
        reached = draw(min(batch, limit - drawn)) >= threshold
        needed = ENOUGH_EXCEEDANCES - exceeded
        positions = np.flatnonzero(reached)
        if len(positions) >= needed:
            drawn += int(positions[needed - 1]) + 1
            return PermutationResult(ENOUGH_EXCEEDANCES / drawn, drawn, ENOUGH_EXCEEDANCES)
        exceeded += len(positions)
        drawn += len(reached)
        batch = min(2 * batch, LARGEST_BATCH)
        if extrapolated and drawn >= PLAIN_DRAWS and (exceeded or tail <= PLAIN_TAIL * level):
            break
    p_value = (1 + exceeded) / (1 + drawn)
    return PermutationResult(min(p_value, tail) if extrapolated and exceeded == 0 else p_value, drawn, exceeded)


def relabelled_counts(
    pooled: NDArray[np.int64], size: int, *, draws: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Bin counts of a random ``size`` of the pooled rows, without replacement. Shape (draws, bins)."""
    counts: NDArray[np.int64] = generator.multivariate_hypergeometric(pooled, size, size=draws, method="marginals")
    return counts
