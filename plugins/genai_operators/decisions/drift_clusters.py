"""Clusters of embeddings as one more column of a drift check, so that they share its error and its effect.

The rows of both sides are clustered together, without knowing sides; which cluster a row is in is then a category like
any other, and goes through the same chi-square, displacement and false discovery rate as the columns. (The kernel test
of :mod:`~genai_operators.decisions.embedding_drift` needs more permutations than a look at a year's schedule allows.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.embedding_drift_clusters import ClusterShift, assign, cluster_test, fit_centroids
from genai_operators.decisions.embedding_sample import EmbeddingSample
from genai_operators.decisions.profile import CategoricalProfile, Profile
from genai_operators.exceptions import DataError

SEGMENT = "embedding"
COLUMN = "prompt.cluster"
CLUSTERS = 20


@dataclass(frozen=True)
class ClusterSides:
    """Each side's clusters as a profile of one column, under the segment ``embedding``."""

    reference: Mapping[str, Profile]
    current: Mapping[str, Profile]


def cluster_sides(reference: EmbeddingSample, current: EmbeddingSample, *, seed: int) -> ClusterSides:
    """Cluster the pooled rows and count each side's. :raises DataError: other dimensions, or a side without rows."""
    first, second = _both(reference, current)
    points = np.concatenate([first, second])
    wanted = max(2, min(CLUSTERS, len(points) // 10))
    labels, _ = assign(points, fit_centroids(points, wanted, generator=np.random.default_rng(seed)))
    sides = (labels[: len(first)], labels[len(first) :])
    return ClusterSides(*({SEGMENT: _profile(side)} for side in sides))


def shifted_clusters(
    reference: EmbeddingSample, current: EmbeddingSample, *, seed: int, level: float
) -> tuple[ClusterShift, ...]:
    """The clusters of :func:`cluster_sides` whose share changed, with ids of rows near each; for the report.

    :param level: false discovery rate over the clusters, 0 < level < 1.
    """
    first, second = _both(reference, current)
    found = cluster_test(
        first,
        second,
        clusters=CLUSTERS,
        level=level,
        generator=np.random.default_rng(seed),
        current_ids=current.ids,
    )
    return tuple(cluster for cluster in found.clusters if cluster.q_value <= level)


def _both(reference: EmbeddingSample, current: EmbeddingSample) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    if not len(reference) or not len(current):
        raise DataError("a side has no embedded row: nothing to cluster")
    if reference.points.shape[1] != current.points.shape[1]:
        raise DataError(
            f"reference embeddings have {reference.points.shape[1]} dimensions, current ones "
            f"{current.points.shape[1]}: embed both by the same code"
        )
    return reference.points.astype(np.float32), current.points.astype(np.float32)


def _profile(labels: NDArray[np.int64]) -> Profile:
    names, rows = np.unique(labels, return_counts=True)
    counts = {f"cluster {name:02d}": int(count) for name, count in zip(names, rows, strict=True)}
    return Profile.of([CategoricalProfile(name=COLUMN, rows=len(labels), missing=0, counts=counts)])
