"""Evidence of health: is the canary proved acceptable?

Acceptable means: its bad rate is below ``margin`` times the champion's, **or** below the absolute ``ceiling``. The
hypothesis to refute is that *both* are violated. Under it a relative process (ratios below the margin, on the arms of
bad events) and an absolute one (rates below the ceiling, on all canary requests) are each supermartingales, hence so is
any mixture of them with fixed weights. Their product, or "either one reached the threshold", is not valid (false
certification .17 and .067 at a nominal .05). All guardrails are required: an intersection-union test, each at level
``beta``.

Doubt is resolved against the canary: all of its bad events count here (of sticky units: of those in the sample), while
the champion's count once per sticky unit, and those with a ``cause`` not at all: an outage of the champion's server, or
of something that both arms stand on, says nothing in favour of the canary. The canary's extra events only multiply the
evidence by factors below one, so validity is kept.

The relative process is exact for every pattern of base rates and weights. The absolute process says that the canary's
average rate *so far* (the mean over its requests of the probability of failing, given the past) is below the ceiling;
bursts and cycles are covered by the definition, the future is not: hence ``Plan.minimum_soak_s``.

Sources: Ville 1939; Ramdas, Grünwald, Vovk & Shafer 2023, "Game-theoretic statistics and safe anytime-valid inference";
Berger 1982 (intersection-union).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.sequential_plan import Guardrail, Plan
from genai_operators.decisions.sequential_products import Floats, Products

RELATIVE_RATIOS = (0.5, 0.8, 1.0, 1.25)
RELATIVE_WEIGHTS = (0.10, 0.20, 0.55, 0.15)
ABSOLUTE_SHARES = (0.0, 0.25, 0.5)
"""Canary bad rates as shares of the ceiling."""
ABSOLUTE_WEIGHTS = (0.70, 0.15, 0.15)
RELATIVE_SHARE = 0.5
"""Weight of the relative process against the absolute one, where a ceiling is given."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Health:
    """State of the evidence of health: for each guardrail the products of the relative process."""

    products: tuple[Products, ...]

    @classmethod
    def start(cls, plan: Plan) -> Health:
        """Every process at one."""
        return cls(products=tuple(Products.ones(len(relative_prior(one.margin)[0])) for one in plan.guardrails))

    def to_json(self) -> list[str]:
        """Plain JSON types, exact."""
        return [products.to_json() for products in self.products]

    @classmethod
    def from_json(cls, record: list[str]) -> Health:
        """Inverse of :meth:`to_json`."""
        return cls(products=tuple(Products.from_json(products) for products in record))


def relative_prior(margin: float) -> tuple[Floats, Floats]:
    """Ratios below ``margin`` and their weights, which sum to one."""
    pairs = [pair for pair in zip(RELATIVE_RATIOS, RELATIVE_WEIGHTS, strict=True) if pair[0] < margin]
    ratios, weights = np.array(pairs).T
    return ratios, weights / math.fsum(weights)


def update_relative(
    products: Products, *, canary: NDArray[np.bool_], propensity: Floats, guardrail: Guardrail
) -> Products:
    """Add bad events, in arrival order, to one guardrail's relative process.

    :param canary: shape (n,), the arm of each.
    :param propensity: shape (n,), strictly between 0 and 1.
    """
    ratios, _ = relative_prior(guardrail.margin)
    null = propensity * guardrail.margin + (1.0 - propensity)
    champion = null / (propensity * ratios[:, None] + (1.0 - propensity))
    return products.times(np.where(canary, ratios[:, None] / guardrail.margin * champion, champion))


def log_relative(products: Products, guardrail: Guardrail) -> float:
    """Natural logarithm of the relative process."""
    return _log_mixture(products.log(), relative_prior(guardrail.margin)[1])


def log_absolute(*, requests: int, bad: int, ceiling: float) -> float:
    """Natural logarithm of the absolute process after ``requests`` of the canary, ``bad`` of them bad."""
    rates = np.array(ABSOLUTE_SHARES) * ceiling
    with np.errstate(divide="ignore"):
        lost = bad * np.log(np.array(ABSOLUTE_SHARES)) if bad else np.zeros(len(rates))
    return _log_mixture(lost + (requests - bad) * (np.log1p(-rates) - math.log1p(-ceiling)), np.array(ABSOLUTE_WEIGHTS))


def log_health(*, relative: float, absolute: float | None) -> float:
    """The mixture of both processes, as a natural logarithm.

    :param absolute: ``None`` where the plan has no ceiling: the relative process alone. ``-inf`` while the soak lasts.
    """
    if absolute is None:
        return relative
    return _log_mixture(np.array([relative, absolute]), np.array([RELATIVE_SHARE, 1.0 - RELATIVE_SHARE]))


def _log_mixture(logs: Floats, weights: Floats) -> float:
    top = float(logs.max())
    if top == -math.inf:
        return -math.inf
    return top + math.log(math.fsum(weights * np.exp(logs - top)))
