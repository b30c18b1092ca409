"""Which kind of prompt became more or less frequent? k-means on the pooled rows, then counts per cluster and sample.

The centroids come from both samples pooled, which knows nothing of the labels, so the test on the counts is exact by
permutation. Centroids fitted to the reference alone fit its noise and alarm in 60 % of windows without drift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from genai_operators.decisions.drift_bins import Counts
from genai_operators.decisions.drift_chi_square import ChiSquare, chi_square
from genai_operators.decisions.embedding_drift_kernels import Points
from genai_operators.decisions.paired_multiplicity import benjamini_hochberg
from genai_operators.decisions.paired_rates import wilson

FITTED_ROWS = 20_000
"""Rows of the pooled samples that the centroids are fitted to; all rows are assigned."""

ITERATIONS = 15
EXAMPLES = 5
BLOCK_ROWS = 8_192


@dataclass(frozen=True)
class ClusterShift:
    """One cluster of the pooled rows.

    :param reference_share: of the reference's rows. :param current_share: of the current rows.
    :param moved: lower bound, simultaneous over the clusters, of how much the share changed; 0 when nothing is proved.
    :param q_value: of the change, adjusted over the clusters.
    :param examples: ids of the current rows nearest its centroid.
    """

    cluster: int
    reference_share: float
    current_share: float
    moved: float
    q_value: float
    examples: tuple[str, ...]


@dataclass(frozen=True)
class ClusterTest:
    """:param clusters: by q-value, then by change."""

    test: ChiSquare
    clusters: tuple[ClusterShift, ...]

    @property
    def moved(self) -> float:
        """Lower bound of the share of rows that moved: that of the cluster that moved most."""
        return max((cluster.moved for cluster in self.clusters), default=0.0)


def cluster_test(
    reference: Points,
    current: Points,
    *,
    clusters: int,
    level: float,
    generator: np.random.Generator,
    current_ids: Sequence[str] = (),
) -> ClusterTest:
    """Two-sample chi-square on the counts of pooled clusters.

    :param reference: shape (n, d), finite. :param current: shape (m, d), finite.
    :param clusters: how many; fewer where there are fewer than ten rows for each.
    :param current_ids: of the current rows, shape (m,), for the examples; never texts.
    """
    points = np.concatenate([reference, current])
    wanted = max(2, min(clusters, len(points) // 10))
    centroids = fit_centroids(points, wanted, generator=generator)
    labels, distances = assign(points, centroids)
    n = len(reference)
    first = np.bincount(labels[:n], minlength=len(centroids)).astype(np.int64)
    second = np.bincount(labels[n:], minlength=len(centroids)).astype(np.int64)
    tested = chi_square(first, second, level=level, generator=generator)
    nearest = _nearest(labels[n:], distances[n:], len(centroids), current_ids)
    return ClusterTest(tested, _shifts(first, second, nearest, level))


def fit_centroids(points: Points, clusters: int, *, generator: np.random.Generator) -> Points:
    """Lloyd's algorithm from k-means++ seeds, shape (clusters, d). Source: Arthur and Vassilvitskii 2007."""
    if len(points) > FITTED_ROWS:
        points = points[np.sort(generator.choice(len(points), FITTED_ROWS, replace=False))]
    chosen = [points[int(generator.integers(len(points)))]]
    nearest = _squared_distances(points, np.stack(chosen))[:, 0]
    while len(chosen) < clusters and nearest.sum() > 0:
        pick = int(np.searchsorted(np.cumsum(nearest), generator.random() * nearest.sum(), side="right"))
        chosen.append(points[min(pick, len(points) - 1)])
        nearest = np.minimum(nearest, _squared_distances(points, chosen[-1][None, :])[:, 0])
    centroids = np.stack(chosen)
    labels = np.full(len(points), -1)
    for _ in range(ITERATIONS):
        previous, (labels, _distances) = labels, assign(points, centroids)
        if np.array_equal(previous, labels):
            break
        counts = np.bincount(labels, minlength=len(centroids))
        members = np.zeros((len(centroids), len(points)), dtype=np.float32)
        members[labels, np.arange(len(points))] = 1
        centroids = np.where(counts[:, None] > 0, members @ points / np.maximum(counts, 1)[:, None], centroids)
        centroids = centroids.astype(np.float32)
    return centroids


def assign(points: Points, centroids: Points) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Nearest centroid of each row and the squared distance to it, each of shape (rows,)."""
    labels = np.empty(len(points), dtype=np.int64)
    distances = np.empty(len(points))
    for start in range(0, len(points), BLOCK_ROWS):
        found = _squared_distances(points[start : start + BLOCK_ROWS], centroids)
        labels[start : start + BLOCK_ROWS] = found.argmin(axis=1)
        distances[start : start + BLOCK_ROWS] = found.min(axis=1)
    return labels, distances


def _squared_distances(points: Points, centroids: Points) -> NDArray[np.float64]:
    squares = np.einsum("ij,ij->i", points, points)[:, None] + np.einsum("ij,ij->i", centroids, centroids)[None, :]
    distances: NDArray[np.float64] = np.maximum(squares - 2 * points @ centroids.T, 0).astype(np.float64)
    return distances


def _shifts(first: Counts, second: Counts, nearest: list[tuple[str, ...]], level: float) -> tuple[ClusterShift, ...]:
    n, m = int(first.sum()), int(second.sum())
    p, q, both = first / n, second / m, (first + second) / (n + m)
    # A cluster against the rest, with half a row of continuity correction on either side.
    error = np.sqrt(np.maximum(both * (1 - both), 1e-12) * (1 / n + 1 / m))
    gap = np.maximum(np.abs(p - q) - (1 / n + 1 / m) / 2, 0)
    q_values = benjamini_hochberg(list(2 * special.ndtr(-gap / error)))
    confidence = 1 - level / len(first)
    moved = [_newcombe_lower(int(a), n, int(b), m, confidence) for a, b in zip(first, second, strict=True)]
    shifts = [
        ClusterShift(index, float(p[index]), float(q[index]), moved[index], float(q_values[index]), nearest[index])
        for index in range(len(first))
    ]
    return tuple(sorted(shifts, key=lambda s: (s.q_value, -abs(s.current_share - s.reference_share), s.cluster)))


def _newcombe_lower(a: int, n: int, b: int, m: int, confidence: float) -> float:
    """Lower bound of |p - q| from Wilson bounds of each share. Source: Newcombe 1998, method 10."""
    smaller, larger = sorted(((a, n), (b, m)), key=lambda side: side[0] / side[1])
    p, q = larger[0] / larger[1], smaller[0] / smaller[1]
    low = wilson(larger[0], n=larger[1], confidence=confidence)[0]
    high = wilson(smaller[0], n=smaller[1], confidence=confidence)[1]
    return max(0.0, p - q - math.hypot(p - low, high - q))


def _nearest(
    labels: NDArray[np.int64], distances: NDArray[np.float64], clusters: int, ids: Sequence[str]
) -> list[tuple[str, ...]]:
    """Ids of the rows nearest each centroid; empty without ids."""
    found: list[tuple[str, ...]] = []
    for cluster in range(clusters):
        rows = np.flatnonzero(labels == cluster)
        closest = rows[np.argsort(distances[rows], kind="stable")[:EXAMPLES]]
        found.append(tuple(str(ids[row]) for row in closest) if len(ids) else ())
    return found
