"""Quadratic forms w'Kw of Gaussian kernels, for many weight vectors at once, without ever holding K.

The maximum mean discrepancy of two samples is w'Kw with w = 1/n on the one and -1/m on the other; a permutation of the
rows permutes w. So all permutations are the columns of one matrix, and the test is one matrix product.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

BANDWIDTH_DIVISORS = (1, 2, 4)
"""Bandwidths as the median distance between rows divided by these: wide ones see a diffuse shift, narrow ones a new
cluster. Halving a bandwidth is taking the kernel to the fourth power, so further ones cost two multiplications."""

STRIP_ROWS = 256
BLOCK_ROWS = 4_096
MEDIAN_ROWS = 1_000
FREQUENCIES = 1_024
"""Random frequencies of the Fourier features, over all bandwidths; each gives a cosine and a sine."""

Points = NDArray[np.float32]
Weights = NDArray[np.float32]


class QuadraticForms(Protocol):
    """Evaluates w'Kw for every bandwidth and every column of ``weights``, shape (rows, draws)."""

    def __call__(self, weights: Weights) -> NDArray[np.float64]:
        """Shape (bandwidths, draws)."""
        ...


class ExactKernel:
    """The kernel itself, strip by strip: O(rows^2 (dimensions + draws)) time, one strip of memory.

    :param points: shape (rows, dimensions).
    """

    def __init__(self, points: Points, *, generator: np.random.Generator) -> None:
        rows, dimensions = points.shape
        # With two more columns the product of two rows, one of them swapped, is the exponent of the kernel itself.
        self._rows = np.empty((rows, dimensions + 2), dtype=np.float32)
        scaled = self._rows[:, :dimensions]
        np.subtract(points, points.mean(axis=0), out=scaled)
        scaled /= np.float32(median_distance(points, generator=generator))
        self._rows[:, dimensions] = -0.5 * np.einsum("ij,ij->i", scaled, scaled)
        self._rows[:, dimensions + 1] = 1

    def __call__(self, weights: Weights) -> NDArray[np.float64]:
        rows = len(self._rows)
        total = np.zeros((len(BANDWIDTH_DIVISORS), weights.shape[1]))
        for start in range(0, rows, STRIP_ROWS):
            # K is symmetric: what lies right of the diagonal block counts twice, the block itself once.
            inside = min(start + STRIP_ROWS, rows) - start
            left = self._rows[start : start + inside].copy()
            left[:, -2:] = left[:, :-3:-1]
            kernel = left @ self._rows[start:].T
            np.minimum(kernel, 0, out=kernel)
            np.exp(kernel, out=kernel)
            for index, divisor in enumerate(BANDWIDTH_DIVISORS):
                if divisor > 1:
                    np.multiply(kernel, kernel, out=kernel)
                    np.multiply(kernel, kernel, out=kernel)
                total[index] += _strip(kernel, weights, start, inside)
        return total


class RandomFeatures:
    """Random Fourier features of the same kernels: O(rows) time and memory, unbiased, for samples beyond 20k rows.

    Source: Rahimi and Recht 2007, "Random features for large-scale kernel machines".
    """

    def __init__(self, points: Points, *, generator: np.random.Generator) -> None:
        self._points = points
        self._centre = points.mean(axis=0)
        self._each = FREQUENCIES // len(BANDWIDTH_DIVISORS)
        scale = np.repeat(np.array(BANDWIDTH_DIVISORS, dtype=np.float32), self._each)
        drawn = generator.standard_normal((points.shape[1], len(scale)), dtype=np.float32)
        self._frequencies = drawn * (scale / np.float32(median_distance(points, generator=generator)))

    def __call__(self, weights: Weights) -> NDArray[np.float64]:
        width = self._frequencies.shape[1]
        means = np.zeros((2 * width, weights.shape[1]))
        for start in range(0, len(self._points), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            phases = (self._points[block] - self._centre) @ self._frequencies
            means[:width] += np.cos(phases).T @ weights[block]
            means[width:] += np.sin(phases).T @ weights[block]
        powers = np.square(means[:width]) + np.square(means[width:])
        each: NDArray[np.float64] = powers.reshape(len(BANDWIDTH_DIVISORS), self._each, -1).mean(axis=1)
        return each


def median_distance(points: Points, *, generator: np.random.Generator) -> float:
    """Median Euclidean distance between distinct rows of a random thousand; 1 when all rows are equal.

    It looks at the pooled rows, so it says nothing about which sample a row is of and keeps a permutation test exact.
    """
    chosen = points
    if len(points) > MEDIAN_ROWS:
        chosen = points[generator.choice(len(points), MEDIAN_ROWS, replace=False)]
    centred = (chosen - chosen.mean(axis=0)).astype(np.float64)
    squares = np.square(centred).sum(axis=1)
    distances = squares[:, None] + squares[None, :] - 2 * centred @ centred.T
    apart = distances[np.triu_indices(len(chosen), 1)]
    apart = apart[apart > 1e-12 * max(1.0, float(squares.max(initial=0.0)))]
    return float(np.sqrt(np.median(apart))) if len(apart) else 1.0


def _strip(kernel: NDArray[np.float32], weights: Weights, start: int, inside: int) -> NDArray[np.float64]:
    """What rows start..start+inside and the columns from ``start`` on add to w'Kw."""
    here = weights[start : start + inside]
    block = kernel[:, :inside] @ here
    beyond = kernel[:, inside:] @ weights[start + inside :]
    added: NDArray[np.float64] = (here * (block + 2 * beyond)).sum(axis=0, dtype=np.float64)
    return added
