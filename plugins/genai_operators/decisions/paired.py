"""Is the candidate good enough to try? Candidate and baseline answer the same items; the pairs are compared.

Pairing removes the difficulty of the items from the error: with 80 % against 77 % right on 1,000 correlated items a
paired test finds the difference in 70 % of cases, an unpaired one in 32 %.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genai_operators.decisions.paired_bounded import BoundedDifferences
from genai_operators.decisions.paired_differences import (
    bootstrap_interval,
    cluster_numbers,
    clustered_mean_difference,
    mean_difference,
)
from genai_operators.decisions.paired_exact import exact_p_value
from genai_operators.decisions.paired_multiplicity import benjamini_hochberg, holm
from genai_operators.decisions.paired_power import POWER, items_needed, minimum_detectable_difference
from genai_operators.decisions.paired_rates import (
    mcnemar_exact,
    rule_of_three,
    score_interval,
    wilson,
)
from genai_operators.decisions.paired_scores import largest_difference, paired_scores
from genai_operators.decisions.verdict import Check, Outcome, Severity
from genai_operators.exceptions import DataError

__all__ = [
    "PairedResult",
    "benjamini_hochberg",
    "bootstrap_interval",
    "exact_p_value",
    "holm",
    "items_needed",
    "mcnemar_exact",
    "minimum_detectable_difference",
    "non_inferiority",
    "rule_of_three",
    "score_interval",
    "superiority",
    "wilson",
]

Hypothesis = Literal["non_inferiority", "superiority"]
Floats = NDArray[np.float64]

MINIMUM_ITEMS = 30
"""Below this many items (or clusters) nothing is judged: no method here is trustworthy there."""


@dataclass(frozen=True, kw_only=True)
class PairedResult:
    """A paired comparison.

    :param outcome: ``PASS``: proved. ``FAIL``: the opposite is proved. ``INCONCLUSIVE``: neither; ``missing`` says how
        many more items would probably decide.
    :param n: items. ``clusters``: independent groups among them (equal to ``n`` without clusters).
    :param candidate: mean score. ``baseline``: likewise. ``difference``: candidate minus baseline.
    :param interval: of the difference, two-sided at ``2 * confidence - 1``; so each end is a one-sided bound at
        ``confidence``.
    :param threshold: what the difference had to exceed: minus the margin, or the smallest gain.
    :param p_value: one-sided, of "the difference is at most ``threshold``".
    :param gained: items that only the candidate has right; ``None`` for scores. ``lost``: the reverse.
    :param detectable: the minimum detectable difference with these items, in the unit of the scores.
    :param missing: further items that are probably needed for a verdict; 0 with a verdict.
    """

    hypothesis: Hypothesis
    outcome: Outcome
    n: int
    clusters: int
    candidate: float
    baseline: float
    difference: float
    interval: tuple[float, float]
    confidence: float
    threshold: float
    p_value: float
    gained: int | None
    lost: int | None
    detectable: float
    missing: int
    method: str

    def check(self, name: str, *, severity: Severity = "critical") -> Check:
        """The comparison as one check of a gate."""
        aim = {"non_inferiority": "not inferior", "superiority": "better"}[self.hypothesis]
        message = f"candidate {self.candidate:.4g}, baseline {self.baseline:.4g}; {aim}: p = {self.p_value:.3g}"
        message += f"; detectable difference {self.detectable:.3g} ({self.method})"
        if self.missing:
            message += f"; about {self.missing:,} more items needed for a verdict"
        return Check(
            name=name,
            outcome=self.outcome,
            observed=self.difference,
            interval=self.interval,
            threshold=self.threshold,
            n=self.n,
            severity=severity,
            message=message,
        )


def non_inferiority(
    candidate: ArrayLike,
    baseline: ArrayLike,
    *,
    margin: float,
    confidence: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] | None = None,
    minimum_items: int = MINIMUM_ITEMS,
) -> PairedResult:
    """Is the candidate at most ``margin`` worse than the baseline? Passes if the lower bound exceeds ``-margin``.

    Right-or-wrong items: the exact unconditional score test (:mod:`~genai_operators.decisions.paired_exact`) with
    Tango's interval. Other scores: the stricter of Student's t on the differences and Gaffke's bound, which knows that
    a loss may be too rare to have been seen (:mod:`~genai_operators.decisions.paired_bounded`). With ``clusters``: the
    same two on clusters, t with the jackknife's error.

    :param candidate: shape (n,), the score of each item; booleans or numbers, higher is better.
    :param baseline: shape (n,), of the same items in the same order.
    :param margin: in the unit of the scores, above 0.
    :param confidence: one-sided.
    :param clusters: what each item belongs to, where items of one group (a conversation) go together.
    :param bounds: lowest and highest possible score. Default: 0 and 1 if all scores lie there, else the lowest and
        highest of these scores; a worse one than ever seen is then not reckoned with.
    :param minimum_items: items (clusters, where given) below which the answer is ``INCONCLUSIVE``.
    :raises DataError: empty or unequal arms, NaN or infinite scores, a score outside ``bounds``, a cluster without a
        name, a margin that is not positive.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise DataError(f"non_inferiority: margin must be a positive number, got {margin}")
    asked = Threshold("non_inferiority", -margin, confidence, minimum_items)
    return _compare(candidate, baseline, asked, clusters, bounds)


def superiority(
    candidate: ArrayLike,
    baseline: ArrayLike,
    *,
    gain: float = 0.0,
    confidence: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] | None = None,
    minimum_items: int = MINIMUM_ITEMS,
) -> PairedResult:
    """Is the candidate better than the baseline by more than ``gain``? Arguments as :func:`non_inferiority`.

    For right-or-wrong items and ``gain`` 0 the test is the exact unconditional McNemar test, more powerful than
    :func:`mcnemar_exact` and as valid.
    """
    if not (math.isfinite(gain) and gain >= 0):
        raise DataError(f"superiority: gain must be a number of at least 0, got {gain}")
    return _compare(candidate, baseline, Threshold("superiority", gain, confidence, minimum_items), clusters, bounds)


@dataclass(frozen=True)
class Threshold:
    """What is asked: does the difference exceed ``value``?"""

    hypothesis: Hypothesis
    value: float
    confidence: float
    minimum_items: int


@dataclass(frozen=True, kw_only=True)
class _Estimate:
    """What one method makes of the pairs.

    :param opposite: p-value of "the difference is at least the threshold".
    :param spread: standard deviation of one unit's difference; at least what one changed item would make of it.
    """

    interval: tuple[float, float]
    p_value: float
    opposite: float
    units: int
    spread: float
    method: str
    gained: int | None = None
    lost: int | None = None


def _compare(
    candidate: ArrayLike,
    baseline: ArrayLike,
    asked: Threshold,
    clusters: Sequence[Hashable] | None,
    bounds: tuple[float, float] | None,
) -> PairedResult:
    first, second = paired_scores(candidate, baseline, what=asked.hypothesis)
    if clusters is not None and len(clusters) != len(first):
        raise DataError(f"{asked.hypothesis}: {len(clusters)} cluster names for {len(first)} items")
    if not 0.5 < asked.confidence < 1:
        raise DataError(f"{asked.hypothesis}: confidence is one-sided, in (0.5, 1), got {asked.confidence}")
    differences, reach = first - second, largest_difference(first, second, bounds)
    if clusters is None and bool(np.isin(first, (0, 1)).all() and np.isin(second, (0, 1)).all()):
        estimate = _rates(differences, asked)
    else:
        estimate = _means(differences, asked, clusters, reach=reach)
    observed = float(differences.mean())
    outcome = _outcome(estimate, asked)
    return PairedResult(
        hypothesis=asked.hypothesis,
        outcome=outcome,
        n=len(first),
        clusters=estimate.units,
        candidate=float(first.mean()),
        baseline=float(second.mean()),
        difference=observed,
        interval=estimate.interval,
        confidence=asked.confidence,
        threshold=asked.value,
        p_value=estimate.p_value,
        gained=estimate.gained,
        lost=estimate.lost,
        detectable=_detectable(estimate, asked),
        missing=_missing(outcome, estimate, asked, distance=observed - asked.value, items=len(first)),
        method=estimate.method,
    )


def _rates(differences: Floats, asked: Threshold) -> _Estimate:
    n = len(differences)
    gained, lost = int(np.count_nonzero(differences > 0)), int(np.count_nonzero(differences < 0))
    p_value = exact_p_value(asked.value, gained=gained, lost=lost, n=n)
    opposite = exact_p_value(-asked.value, gained=lost, lost=gained, n=n)
    lower, upper = score_interval(gained=gained, lost=lost, n=n, confidence=2 * asked.confidence - 1)
    # The exact tests have the last word on the threshold itself; the score bounds may be a hair off there.
    lower = max(lower, asked.value) if p_value <= 1 - asked.confidence else min(lower, asked.value)
    upper = min(upper, asked.value) if opposite <= 1 - asked.confidence else max(upper, asked.value)
    return _Estimate(
        interval=(lower, upper),
        p_value=p_value,
        opposite=opposite,
        units=n,
        spread=math.sqrt(max(gained + lost, 1) / n),
        method="exact paired score test",
        gained=gained,
        lost=lost,
    )


def _means(differences: Floats, asked: Threshold, clusters: Sequence[Hashable] | None, *, reach: float) -> _Estimate:
    """The stricter of t, which is right for many items, and the bound, which is right for rare losses."""
    numbers = np.arange(len(differences)) if clusters is None else cluster_numbers(clusters)
    mean = mean_difference(differences) if clusters is None else clustered_mean_difference(differences, numbers)
    sums = np.bincount(numbers, weights=differences).astype(np.float64)
    sizes = np.bincount(numbers).astype(np.float64)
    bounded = BoundedDifferences(sums, sizes, reach)
    lower, upper = mean.interval(confidence=2 * asked.confidence - 1)
    return _Estimate(
        interval=(
            min(lower, bounded.lower_bound(confidence=asked.confidence)),
            max(upper, -bounded.mirrored().lower_bound(confidence=asked.confidence)),
        ),
        p_value=max(mean.p_value(threshold=asked.value), bounded.p_value(threshold=asked.value)),
        opposite=max(
            mean.mirrored().p_value(threshold=-asked.value), bounded.mirrored().p_value(threshold=-asked.value)
        ),
        units=mean.units,
        spread=max(mean.standard_error * math.sqrt(mean.units), reach / math.sqrt(mean.units)),
        method="Student's t and Gaffke's bound on " + ("pairs" if clusters is None else "clusters of pairs"),
    )


def _outcome(estimate: _Estimate, asked: Threshold) -> Outcome:
    if estimate.units < asked.minimum_items:
        return Outcome.INCONCLUSIVE
    if estimate.p_value <= 1 - asked.confidence:
        return Outcome.PASS
    return Outcome.FAIL if estimate.opposite <= 1 - asked.confidence else Outcome.INCONCLUSIVE


def _detectable(estimate: _Estimate, asked: Threshold) -> float:
    if not math.isfinite(estimate.spread):
        return math.inf
    return minimum_detectable_difference(estimate.units, spread=estimate.spread, confidence=asked.confidence)


def _missing(outcome: Outcome, estimate: _Estimate, asked: Threshold, *, distance: float, items: int) -> int:
    """Further items until a verdict, if the observed difference is the true one. At least one while inconclusive."""
    if outcome is not Outcome.INCONCLUSIVE:
        return 0
    needed = asked.minimum_items
    if math.isfinite(estimate.spread) and distance != 0:
        probable = items_needed(abs(distance), spread=estimate.spread, confidence=asked.confidence, power=POWER)
        needed = max(needed, probable)
    return max(1, math.ceil((needed - estimate.units) * items / estimate.units))
