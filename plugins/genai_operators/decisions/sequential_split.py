"""Is the observed split the asked one? If not, nothing that rests on the propensity is valid, and the release must
hold.

Every request (the first of each sticky unit) falls on the canary with its propensity, if the gateway does what it says.
An e-process mixes alternatives in which the odds are multiplied by a constant, up and down. A request on an arm whose
propensity was zero cannot happen at all: one is enough.

Source: Lindon & Malek 2022, "Anytime-valid inference for multinomial count data" (sample ratio mismatch); Ville 1939.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.sequential_products import Floats, Products, decode_floats, encode_floats

ODDS_RATIOS = np.array([0.25, 0.5, 0.8, 0.9, 1.1, 1.25, 2.0, 4.0])
WEIGHTS = np.full(len(ODDS_RATIOS), 1.0 / len(ODDS_RATIOS))


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """State of the split check.

    :param requests: assignments that were counted.
    :param canary: those on the canary.
    :param expected: sum of their propensities.
    :param impossible: requests (of all) on an arm that had no weight.
    """

    products: Products
    requests: int = 0
    canary: int = 0
    expected: float = 0.0
    impossible: int = 0

    @classmethod
    def start(cls) -> Split:
        """The process at one."""
        return cls(products=Products.ones(len(ODDS_RATIOS)))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, exact."""
        return {
            "products": self.products.to_json(),
            "requests": self.requests,
            "canary": self.canary,
            "expected": encode_floats(np.array([self.expected])),
            "impossible": self.impossible,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Split:
        """Inverse of :meth:`to_json`."""
        return cls(
            products=Products.from_json(record["products"]),
            requests=record["requests"],
            canary=record["canary"],
            expected=float(decode_floats(record["expected"])[0]),
            impossible=record["impossible"],
        )


def update_split(split: Split, *, canary: NDArray[np.bool_], propensity: Floats, counted: NDArray[np.bool_]) -> Split:
    """Add requests in arrival order.

    :param canary: shape (n,), the arm.
    :param propensity: shape (n,), in [0, 1].
    :param counted: shape (n,), false for requests that are no assignment of their own (a sticky unit's later ones).
    """
    impossible = int(np.count_nonzero(np.where(canary, propensity == 0.0, propensity == 1.0)))
    open_ = counted & (propensity > 0.0) & (propensity < 1.0)
    arm, weight = canary[open_], propensity[open_]
    alternative = weight * ODDS_RATIOS[:, None] + (1.0 - weight)
    expected = np.add.accumulate(np.append(split.expected, weight))[-1]
    return Split(
        products=split.products.times(np.where(arm, ODDS_RATIOS[:, None], 1.0) / alternative),
        requests=split.requests + len(arm),
        canary=split.canary + int(np.count_nonzero(arm)),
        expected=float(expected),
        impossible=split.impossible + impossible,
    )


def split_evidence(split: Split) -> float:
    """Natural logarithm of the evidence against the asked split; infinite after an impossible assignment."""
    if split.impossible:
        return math.inf
    logs = split.products.log()
    top = float(logs.max())
    return top + math.log(math.fsum(WEIGHTS * np.exp(logs - top)))
