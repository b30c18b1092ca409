"""Have the embeddings of prompts moved, how far at least, and which clusters of them?

Two tests that see different things: cluster counts find and name a new kind of prompt; the maximum mean discrepancy
finds a diffuse shift of topic. Both give a lower bound of one effect, the share of rows that moved (total variation): a
cluster's share can change by no more than that, and a bounded kernel's discrepancy by no more than sqrt(2) times that.
An alarm needs significance after Benjamini-Hochberg over the two, and a lower bound above the minimum that matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.embedding_drift_clusters import ClusterShift, ClusterTest, cluster_test
from genai_operators.decisions.embedding_drift_kernels import Points
from genai_operators.decisions.embedding_drift_mmd import KernelTest, mmd_test
from genai_operators.decisions.paired_multiplicity import benjamini_hochberg
from genai_operators.decisions.verdict import Check, Outcome, Verdict
from genai_operators.exceptions import ConfigurationError, DataError

SMALLEST_RATE = 0.001
"""Of false discoveries: less would need more permutations of the kernel than anyone wants to wait for."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingDriftSettings:
    """What counts as drift of embeddings.

    :param minimum_rows: rows a side below which the answer is 'not enough'.
    :param minimum_effect: share of the rows (0..1) that must be proved to have moved.
    :param false_discovery_rate: over the two tests.
    :param clusters: of the pooled rows.
    :param seed: of permutations, features and centroids, so that a verdict replays.
    """

    minimum_rows: int = 200
    minimum_effect: float = 0.02
    false_discovery_rate: float = 0.01
    clusters: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.minimum_rows < 2 or self.clusters < 2:
            raise ConfigurationError(
                f"embedding drift needs 2 rows and 2 clusters at least, not {self.minimum_rows} and {self.clusters}"
            )
        if not (0 <= self.minimum_effect < 1 and SMALLEST_RATE <= self.false_discovery_rate < 1):
            raise ConfigurationError(
                f"embedding drift: minimum_effect {self.minimum_effect} lies in [0, 1), false_discovery_rate "
                f"{self.false_discovery_rate} in [{SMALLEST_RATE}, 1)"
            )


@dataclass(frozen=True)
class EmbeddingDrift:
    """What was found.

    :param moved: lower bound of the share of rows that moved.
    :param kernel: the maximum mean discrepancy test; None with too few rows.
    :param clusters: the cluster test; None with too few rows.
    :param shifted: clusters that moved, named by number, shares and example ids.
    :param verdict: gate ``embedding_drift``: FAIL = drift, PASS = none, INCONCLUSIVE = too few rows.
    """

    moved: float
    kernel: KernelTest | None
    clusters: ClusterTest | None
    shifted: tuple[ClusterShift, ...]
    verdict: Verdict


def embedding_drift(
    reference: NDArray[np.floating],
    current: NDArray[np.floating],
    *,
    settings: EmbeddingDriftSettings,
    current_ids: Sequence[str] = (),
) -> EmbeddingDrift:
    """Compare two samples of embeddings.

    :param reference: shape (n, d). :param current: shape (m, d). Finite; read as 32-bit floats.
    :param current_ids: ids of the current rows, shape (m,), for the examples; never texts.
    :raises DataError: other dimensions, values that are not finite, ids that do not match the rows.

    20,000 rows together are compared by the kernel itself, more by random Fourier features.
    """
    first, second = _points(reference, "reference"), _points(current, "current")
    if first.shape[1] != second.shape[1]:
        raise DataError(
            f"reference embeddings have {first.shape[1]} dimensions, current ones {second.shape[1]}: "
            "embed both with the same model"
        )
    if len(current_ids) not in (0, len(second)):
        raise DataError(f"{len(current_ids)} ids for {len(second)} current embeddings; give one a row, or none")
    rows = min(len(first), len(second))
    if rows < settings.minimum_rows:
        return _too_few(rows, settings)
    level = settings.false_discovery_rate / 2
    generator = np.random.default_rng([settings.seed, len(first), len(second)])
    kernel = mmd_test(first, second, level=level, generator=generator)
    clusters = cluster_test(
        first, second, clusters=settings.clusters, level=level, generator=generator, current_ids=current_ids
    )
    return _judge(kernel, clusters, rows, settings)


def _judge(kernel: KernelTest, clusters: ClusterTest, rows: int, settings: EmbeddingDriftSettings) -> EmbeddingDrift:
    rate = settings.false_discovery_rate
    kernel_q, cluster_q = (float(q) for q in benjamini_hochberg([kernel.p_value, clusters.test.p_value]))
    checks = [
        _check("embedding.discrepancy", kernel_q, kernel.moved, rows, settings),
        _check("embedding.clusters", cluster_q, clusters.moved, rows, settings),
    ]
    shifted = tuple(shift for shift in clusters.clusters if shift.q_value <= rate) if cluster_q <= rate else ()
    moved = max(kernel.moved, clusters.moved)
    drifted = any(check.outcome is Outcome.FAIL for check in checks)
    summary = f"no drift above {settings.minimum_effect:g} of the embeddings"
    if drifted:
        named = ", ".join(f"{s.cluster} ({s.reference_share:.1%} to {s.current_share:.1%})" for s in shifted[:3])
        summary = f"at least {moved:.1%} of the embeddings moved" + (f"; clusters {named}" if named else "")
    verdict = Verdict.of("embedding_drift", checks, summary=summary)
    return EmbeddingDrift(moved, kernel, clusters, shifted, verdict)


def _check(name: str, q_value: float, moved: float, rows: int, settings: EmbeddingDriftSettings) -> Check:
    drifted = q_value <= settings.false_discovery_rate and moved > settings.minimum_effect
    return Check(
        name=name,
        outcome=Outcome.FAIL if drifted else Outcome.PASS,
        observed=moved,
        threshold=settings.minimum_effect,
        n=rows,
        message=f"share of rows that moved, lower bound; q = {q_value:.2g}",
    )


def _too_few(rows: int, settings: EmbeddingDriftSettings) -> EmbeddingDrift:
    message = f"{rows} rows, {settings.minimum_rows} needed"
    check = Check(name="embedding.rows", outcome=Outcome.INCONCLUSIVE, n=rows, message=message)
    return EmbeddingDrift(
        0.0, None, None, (), Verdict.of("embedding_drift", [check], summary=f"not enough to say: {message}")
    )


def _points(values: NDArray[np.floating], side: str) -> Points:
    points = np.asarray(values, dtype=np.float32)
    if points.ndim != 2 or points.shape[1] < 1:
        raise DataError(f"{side} embeddings are of shape {points.shape}; they are a matrix of (rows, dimensions)")
    wrong = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if len(wrong):
        raise DataError(f"{len(wrong)} {side} embeddings are not finite, the first in row {wrong[0]}")
    return points
