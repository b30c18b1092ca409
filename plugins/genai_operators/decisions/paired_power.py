"""How many items does a comparison need, and what could it see with those it has?"""

from __future__ import annotations

import math

from scipy import special

from genai_operators.exceptions import DataError

POWER = 0.8
"""Probability of a verdict, when the difference is what is asked for."""


def minimum_detectable_difference(n: int, *, spread: float, confidence: float = 0.95, power: float = POWER) -> float:
    """Smallest true difference that a one-sided paired comparison of ``n`` items finds with probability ``power``.

    For non-inferiority: the smallest margin that an equal model passes with probability ``power``.

    :param n: items, or clusters with the spread of cluster means. At least 1.
    :param spread: standard deviation of the paired differences. For right-or-wrong items: the square root of the share
        of items on which the two differ.
    :raises DataError: values outside their range.
    Source: normal approximation; Miller 2024, "Adding error bars to evals" (arXiv 2411.00640), section 5.
    """
    if n < 1 or not (math.isfinite(spread) and spread >= 0):
        raise DataError(f"minimum_detectable_difference: n {n} and spread {spread}; need n >= 1 and a spread >= 0")
    return _quantiles(confidence, power) * spread / math.sqrt(n)


def items_needed(difference: float, *, spread: float, confidence: float = 0.95, power: float = POWER) -> int:
    """Items at which :func:`minimum_detectable_difference` falls to ``difference``.

    :param difference: distance between truth and threshold, above 0.
    :raises DataError: values outside their range.
    """
    if not (math.isfinite(difference) and difference > 0) or not (math.isfinite(spread) and spread >= 0):
        raise DataError(f"items_needed: difference {difference} must be positive and spread {spread} not negative")
    return max(1, math.ceil((_quantiles(confidence, power) * spread / difference) ** 2))


def _quantiles(confidence: float, power: float) -> float:
    for name, value in (("confidence", confidence), ("power", power)):
        if not 0 < value < 1:
            raise DataError(f"{name} is a probability between 0 and 1 (both excluded), got {value}")
    return float(special.ndtri(confidence) + special.ndtri(power))
