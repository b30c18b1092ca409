"""The scores of two models on the same items, as a paired comparison takes them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genai_operators.exceptions import DataError

Floats = NDArray[np.float64]


def paired_scores(candidate: ArrayLike, baseline: ArrayLike, *, what: str) -> tuple[Floats, Floats]:
    """Both arms, shape (n,). :raises DataError: empty or unequal arms, a score that is not finite."""
    first, second = _scores("candidate", candidate), _scores("baseline", baseline)
    if len(first) != len(second):
        raise DataError(f"{what}: candidate has {len(first)} items, baseline {len(second)}; pair by item")
    return first, second


def largest_difference(first: Floats, second: Floats, bounds: tuple[float, float] | None) -> float:
    """The largest difference of two scores that is possible, above 0.

    :param bounds: lowest and highest possible score; ``None``: 0 and 1 if all lie there, else those seen.
    :raises DataError: bounds that are none, or a score outside them.
    """
    low, high = min(float(first.min()), float(second.min())), max(float(first.max()), float(second.max()))
    if bounds is None:
        return 1.0 if (low >= 0 and high <= 1) or low == high else high - low
    if not (math.isfinite(bounds[0]) and math.isfinite(bounds[1]) and bounds[0] < bounds[1]):
        raise DataError(f"paired comparison: bounds are the lowest and highest possible score, got {bounds}")
    if low < bounds[0] or high > bounds[1]:
        raise DataError(f"paired comparison: scores lie from {low:g} to {high:g}, outside bounds {bounds}")
    return bounds[1] - bounds[0]


def _scores(name: str, values: ArrayLike) -> Floats:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1 or not len(scores):
        raise DataError(f"paired comparison: {name} must be a list of at least one score, has shape {scores.shape}")
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        raise DataError(f"paired comparison: {name}[{wrong[0]}] is {scores[wrong[0]]}; every item needs a finite score")
    return scores
