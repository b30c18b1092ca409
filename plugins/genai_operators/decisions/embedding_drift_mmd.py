"""Maximum mean discrepancy: do two sets of embeddings come from one distribution?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.embedding_drift_kernels import (
    ExactKernel,
    Points,
    QuadraticForms,
    RandomFeatures,
    Weights,
)

EXACT_UP_TO = 20_000
"""Rows of both samples together beyond which random Fourier features stand in for the kernel."""

FIRST_DRAWS = 200
ENOUGH_EXCEEDANCES = 20
RESOLUTION = 10
"""Permutations that a p-value equal to the level asked would have exceeding it, when all are drawn."""

LARGEST_ROUND = 800


@dataclass(frozen=True)
class KernelTest:
    """:param p_value: (1 + b) / (1 + B) over all bandwidths at once. :param permutations: B.

    :param distance: maximum mean discrepancy at the most telling bandwidth, 0..sqrt(2).
    :param moved: a lower bound, at the level asked, of the share of rows that moved; 0 when nothing is proved.
    """

    p_value: float
    permutations: int
    distance: float
    moved: float


def mmd_test(
    reference: Points,
    current: Points,
    *,
    level: float,
    generator: np.random.Generator,
    permutations: int | None = None,
) -> KernelTest:
    """Permutation test on the maximum of standardised discrepancies over several bandwidths.

    The statistics of every permutation, the observed labelling among them, are standardised bandwidth by bandwidth with
    one mean and deviation, so the maximum is exchangeable and the p-value exact at any sample size.
    Adds permutations until ``ENOUGH_EXCEEDANCES`` of them reached the data or p can be told from ``level``.

    ``moved``: for a kernel with values in 0..1 the discrepancy is at most sqrt(2) times the share of rows that moved
    (total variation), and what is observed exceeds the truth by at most the noise, whose quantile the permutations
    show.

    :param reference: shape (n, d), finite. :param current: shape (m, d), finite.
    :param permutations: a fixed number instead of the adaptive one (for a benchmark).
    Source: Gretton et al. 2012, "A kernel two-sample test"; Schrab et al. 2023, "MMD aggregated two-sample test".
    """
    n, m = len(reference), len(current)
    kind = ExactKernel if n + m <= EXACT_UP_TO else RandomFeatures
    forms: QuadraticForms = kind(np.concatenate([reference, current]), generator=generator)
    return discrepancy_test(forms, n, m, level, generator, permutations=permutations)


def discrepancy_test(
    forms: QuadraticForms,
    n: int,
    m: int,
    level: float,
    generator: np.random.Generator,
    *,
    permutations: int | None = None,
) -> KernelTest:
    """:func:`mmd_test` on quadratic forms of n + m pooled points, the reference first."""
    drawn = forms(_weights(n, m, FIRST_DRAWS if permutations is None else permutations, generator))
    limit = math.ceil(RESOLUTION / level)
    while permutations is None and drawn.shape[1] - 1 < limit and _exceeded(drawn) < ENOUGH_EXCEEDANCES:
        more = min(3 * drawn.shape[1], limit - drawn.shape[1] + 1, LARGEST_ROUND)
        fresh = forms(_weights(n, m, more, generator))
        drawn = np.concatenate([drawn, fresh[:, 1:]], axis=1)
    count = drawn.shape[1] - 1
    telling = int(np.argmax(_standardised(drawn)[:, 0]))
    noise = np.quantile(np.sqrt(np.maximum(drawn[:, 1:], 0)), 1 - level / len(drawn), axis=1, method="higher")
    distances = np.sqrt(np.maximum(drawn[:, 0], 0))
    return KernelTest(
        p_value=(1 + _exceeded(drawn)) / (1 + count),
        permutations=count,
        distance=float(distances[telling]),
        moved=float(max(0.0, (distances - noise).max()) / math.sqrt(2)),
    )


def _weights(n: int, m: int, draws: int, generator: np.random.Generator) -> Weights:
    """Column 0: the samples as they are. Columns 1..draws: random relabellings. Shape (n + m, draws + 1)."""
    columns = np.empty((draws + 1, n + m), dtype=np.float32)
    columns[:, :n], columns[:, n:] = 1 / n, -1 / m
    generator.permuted(columns[1:], axis=1, out=columns[1:])
    return np.ascontiguousarray(columns.T)


def _standardised(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = drawn.std(axis=1, keepdims=True)
    scores: NDArray[np.float64] = (drawn - drawn.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    return scores


def _exceeded(drawn: NDArray[np.float64]) -> int:
    largest = _standardised(drawn).max(axis=0)
    return int((largest[1:] >= largest[0] - 1e-9).sum())
