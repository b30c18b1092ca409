"""Is the observed split the asked one? If not, nothing that rests on the propensity is valid, and the release must
hold.

Every request (the first of each sticky unit) falls on the canary with its propensity, if the gateway does what it says.
An e-process mixes alternatives in which the odds are multiplied by a constant, up and down. A request on an arm whose
propensity was zero cannot happen at all: one is enough. What is broken stays broken: the requests until then were no
experiment, and later ones do not mend that.

Source: Lindon & Malek 2022, "Anytime-valid inference for multinomial count data" (sample ratio mismatch); Ville 1939.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.sequential_products import Floats, Path, Products, decode_floats, encode_floats

ODDS_RATIOS = np.array([0.25, 0.5, 0.8, 0.9, 1.1, 1.25, 2.0, 4.0])
WEIGHTS = np.full(len(ODDS_RATIOS), 1.0 / len(ODDS_RATIOS))


@dataclass(frozen=True, kw_only=True)
class Break:
    """The split was found broken, here.

    :param request: number of requests up to and including the one that showed it.
    :param arrival: when that request arrived.
    """

    request: int
    arrival: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """State of the split check.

    :param requests: assignments that were counted.
    :param canary: those on the canary.
    :param expected: sum of their propensities.
    :param impossible: requests (of all) on an arm that had no weight.
    :param broken: where the evidence first reached its threshold; ``None``: nowhere.
    """

    products: Products
    requests: int = 0
    canary: int = 0
    expected: float = 0.0
    impossible: int = 0
    broken: Break | None = None

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
            "broken": None if self.broken is None else vars(self.broken),
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
            broken=None if record["broken"] is None else Break(**record["broken"]),
        )


def update_split(
    split: Split, *, canary: NDArray[np.bool_], propensity: Floats, counted: NDArray[np.bool_], alpha: float
) -> tuple[Split, int | None]:
    """Add requests in arrival order.

    :param canary: shape (n,), the arm.
    :param propensity: shape (n,), in [0, 1].
    :param counted: shape (n,), false for requests that are no assignment of their own (a sticky unit's later ones).
    :param alpha: the split is broken once the evidence reaches ``1 / alpha``.
    :return: the new state, still without its break, and the row that broke the split if one did and none had before.
    """
    impossible = np.flatnonzero(np.where(canary, propensity == 0.0, propensity == 1.0))
    rows = np.flatnonzero(counted & (propensity > 0.0) & (propensity < 1.0))
    arm, weight = canary[rows], propensity[rows]
    alternative = weight * ODDS_RATIOS[:, None] + (1.0 - weight)
    path = split.products.path(np.where(arm, ODDS_RATIOS[:, None], 1.0) / alternative)
    broken = None
    if split.broken is None:
        reached = [*impossible[:1].tolist(), *rows[_reached(path, 1.0 / alpha)][:1].tolist()]
        broken = min(reached, default=None)
    return replace(
        split,
        products=Products(path.mantissa[:, -1].copy(), path.exponent[:, -1].copy()),
        requests=split.requests + len(arm),
        canary=split.canary + int(np.count_nonzero(arm)),
        expected=float(np.add.accumulate(np.append(split.expected, weight))[-1]),
        impossible=split.impossible + len(impossible),
    ), broken


def _reached(path: Path, threshold: float) -> NDArray[np.bool_]:
    """For each event, whether the mixture after it has reached the threshold."""
    exponent = path.exponent[:, 1:].max(axis=0)
    reached: NDArray[np.bool_] = exponent > math.log2(
        threshold
    )  # the mixture is below 2**exponent: elsewhere it need not be computed
    near = np.flatnonzero(reached)
    value, shift = Path(path.mantissa[:, near + 1], path.exponent[:, near + 1]).mixture(WEIGHTS)
    reached[near] = np.ldexp(value, np.minimum(shift, 1000)) >= threshold
    return reached


def split_evidence(split: Split) -> float:
    """Natural logarithm of the evidence against the asked split; infinite after an impossible assignment."""
    if split.impossible:
        return math.inf
    logs = split.products.log()
    top = float(logs.max())
    return top + math.log(math.fsum(WEIGHTS * np.exp(logs - top)))
