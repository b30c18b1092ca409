"""Bounded scores: is the canary's mean score proved too low, proved good enough, or neither? Valid at every look.

For a judge's win / tie / loss on shadow pairs (1, 0.5, 0 against a neutral 0.5), or for a cost or a length between
known bounds. A gambler stakes, before each score, a fraction of the capital against the claim "the mean is m"; the
capital is a test martingale under the claim. The stakes follow the spread seen so far. The claims that no gambler has
ruined form a confidence sequence: an interval that holds at all times together.

Assumption: given the past, every score has the same mean (for the two one-sided verdicts: a mean on one side of the
claim).

Source: Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting" (arXiv 2010.09686), the
hedged capital with predictable plug-in stakes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genai_operators.decisions.sequential_products import Floats, Path, Products, decode_floats, encode_floats
from genai_operators.decisions.verdict import Check, Outcome, Verdict
from genai_operators.exceptions import DataError, SpecError

GRID_POINTS = 101
"""Claims of which the confidence sequence is made, evenly spread over the range of the score."""
LARGEST_STAKE = 0.5
"""Most of the capital that one score can lose."""
STATE_VERSION = 2
SLAB = 4096


@dataclass(frozen=True, kw_only=True)
class ScorePlan:
    """What is asked of a score; higher is better (negate a cost).

    :param low: smallest possible score. ``high``: largest possible.
    :param neutral: the mean of a canary that equals the champion, e.g. 0.5 for win / tie / loss.
    :param margin: how far below ``neutral`` the mean may be and still be acceptable.
    :param alpha: probability that a canary with a mean of at least ``neutral`` is called worse, ever; also of the
        interval.
    :param beta: probability that a canary with a mean of at most ``neutral - margin`` is certified, ever.
    :raises SpecError: a value is outside its range.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    neutral: float = 0.5
    margin: float = 0.1
    alpha: float = 0.05
    beta: float = 0.05

    def __post_init__(self) -> None:
        """Refuse a range or margin that no verdict can be given on."""
        where = f"score {self.name!r}"
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise SpecError(f"{where}: low < high must hold, got {self.low} and {self.high}")
        if not self.low < self.neutral - self.margin < self.neutral < self.high:
            raise SpecError(
                f"{where}: low < neutral - margin < neutral < high must hold, got low {self.low}, "
                f"neutral {self.neutral}, margin {self.margin}, high {self.high}"
            )
        if not (0 < self.alpha < 1 and 0 < self.beta < 1):
            raise SpecError(f"{where}: alpha and beta are probabilities in (0, 1), got {self.alpha} and {self.beta}")

    def unit(self, score: float) -> float:
        """A score on the scale from 0 to 1."""
        return (score - self.low) / (self.high - self.low)

    @property
    def claims(self) -> Floats:
        """Means that gamblers bet against, on the unit scale: the grid, then the limit of health, then ``neutral``."""
        grid = np.arange(GRID_POINTS) / (GRID_POINTS - 1)
        return np.append(grid, [self.unit(self.neutral - self.margin), self.unit(self.neutral)])


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreState:
    """What the scores so far have taught; serialises to about 4 kB. Compare states by :meth:`to_json`.

    :param total: sum of the scores, and of their squared distances from the running mean, on the unit scale.
    :param rising: capital of the gamblers who bet that the mean is above their claim. ``falling``: below.
    :param refuted: claims that were ruined at some time.
    :param harmed: the mean was proved below ``neutral`` at some time. It stays proved.
    """

    plan: ScorePlan
    n: int
    total: float
    squares: float
    rising: Products
    falling: Products
    refuted: NDArray[np.bool_]
    harmed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, exact."""
        return {
            "version": STATE_VERSION,
            "plan": asdict(self.plan),
            "n": self.n,
            "sums": encode_floats(np.array([self.total, self.squares])),
            "rising": self.rising.to_json(),
            "falling": self.falling.to_json(),
            "refuted": np.flatnonzero(self.refuted).tolist(),
            "harmed": self.harmed,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ScoreState:
        """Inverse of :meth:`to_json`.

        :raises DataError: the record has another version.
        """
        if record.get("version") != STATE_VERSION:
            raise DataError(f"state of a score has version {record.get('version')!r}, this code reads {STATE_VERSION}")
        total, squares = decode_floats(record["sums"]).tolist()
        refuted = np.zeros(GRID_POINTS, dtype=np.bool_)
        refuted[record["refuted"]] = True
        return cls(
            plan=ScorePlan(**record["plan"]),
            n=record["n"],
            total=total,
            squares=squares,
            rising=Products.from_json(record["rising"]),
            falling=Products.from_json(record["falling"]),
            refuted=refuted,
            harmed=record["harmed"],
        )


@dataclass(frozen=True, kw_only=True)
class ScoreAssessment:
    """Three-way verdict on a score.

    :param mean: of the scores so far; ``None`` without any. ``interval``: confidence sequence of the mean, at all
        looks.
    :param log_harm: evidence against "the mean is at least neutral". ``log_health``: against "at most neutral -
        margin".
    """

    verdict: Verdict
    n: int
    mean: float | None
    interval: tuple[float, float]
    log_harm: float
    log_health: float


def start_scores(plan: ScorePlan) -> ScoreState:
    """The state before the first score."""
    count = GRID_POINTS + 2
    return ScoreState(
        plan=plan,
        n=0,
        total=0.0,
        squares=0.0,
        rising=Products.ones(count),
        falling=Products.ones(count),
        refuted=np.zeros(GRID_POINTS, dtype=np.bool_),
    )


def update_scores(state: ScoreState, scores: ArrayLike) -> ScoreState:
    """The state after more scores, in the order in which they were seen. Any batching gives the same state, bit for
    bit.

    :param scores: shape (n,), between ``low`` and ``high``.
    :raises DataError: a score that is NaN or outside its bounds.
    """
    plan = state.plan
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise DataError(f"score {plan.name!r}: scores must have one dimension, have {values.ndim}")
    wrong = np.flatnonzero(~((values >= plan.low) & (values <= plan.high)))
    if len(wrong):
        raise DataError(
            f"score {plan.name!r}: row {wrong[0]} is {values[wrong[0]]}, must be in [{plan.low:g}, {plan.high:g}]"
        )
    units = (values - plan.low) / (plan.high - plan.low)
    for begin in range(0, len(units), SLAB):
        state = _add(state, units[begin : begin + SLAB])
    return state


def _add(state: ScoreState, units: Floats) -> ScoreState:
    stakes, total, squares = _stakes(state, units)
    claims = state.plan.claims[:, None]
    surprise = units - claims
    with np.errstate(divide="ignore"):
        up = np.minimum(stakes, LARGEST_STAKE / claims)
        down = np.minimum(stakes, LARGEST_STAKE / (1.0 - claims))
    rising, falling = state.rising.path(1.0 + up * surprise), state.falling.path(1.0 - down * surprise)
    up_capital, down_capital = _capital(rising), _capital(falling)
    hedged = (up_capital[:GRID_POINTS] + down_capital[:GRID_POINTS]) / 2
    ruined: NDArray[np.bool_] = np.any(hedged >= 1.0 / state.plan.alpha, axis=1)
    return ScoreState(
        plan=state.plan,
        n=state.n + len(units),
        total=total,
        squares=squares,
        rising=Products(rising.mantissa[:, -1].copy(), rising.exponent[:, -1].copy()),
        falling=Products(falling.mantissa[:, -1].copy(), falling.exponent[:, -1].copy()),
        refuted=np.logical_or(state.refuted, ruined),
        harmed=state.harmed or bool(np.any(down_capital[-1] >= 1.0 / state.plan.alpha)),
    )


def _stakes(state: ScoreState, units: Floats) -> tuple[Floats, float, float]:
    """The stake before each score, from the scores before it; and the sums after the last."""
    seen = state.n + np.arange(len(units) + 1)
    totals = np.add.accumulate(np.append(state.total, units))
    means = (0.5 + totals) / (seen + 1)
    distances = (units - means[1:]) ** 2
    squares = np.add.accumulate(np.append(state.squares, distances))
    variance = (0.25 + squares[:-1]) / (seen[:-1] + 1)
    rounds = seen[:-1] + 1
    # math.log and not numpy's, whose last bit may differ between a batch and its parts
    logs = np.array([math.log(round_ + 1.0) for round_ in rounds.tolist()])
    stakes: Floats = np.sqrt(2 * math.log(2 / state.plan.alpha) / (variance * rounds * logs))
    return stakes, float(totals[-1]), float(squares[-1])


def _capital(path: Path) -> Floats:
    """Capital after each score, shape (claims, n + 1); beyond 2**512 the exact value does not matter."""
    capital: Floats = np.ldexp(path.mantissa, np.minimum(path.exponent, 512))
    return capital


def assess_scores(state: ScoreState) -> ScoreAssessment:
    """Judge. ``FAIL``: once proved below ``neutral``; ``PASS``: above ``neutral - margin``; else ``INCONCLUSIVE``."""
    plan = state.plan
    log_health, log_harm = float(state.rising.log()[-2]), float(state.falling.log()[-1])
    outcome = Outcome.INCONCLUSIVE
    if state.harmed:
        outcome = Outcome.FAIL
    elif log_health >= -math.log(plan.beta):
        outcome = Outcome.PASS
    mean = plan.low + state.total / state.n * (plan.high - plan.low) if state.n else None
    interval = _interval(state)
    check = Check(
        name=f"score.{plan.name}",
        outcome=outcome,
        observed=mean,
        interval=interval,
        threshold=plan.neutral - plan.margin,
        n=state.n,
        message=f"neutral {plan.neutral:g}; log evidence of harm {log_harm:.3g}, of health {log_health:.3g}",
    )
    return ScoreAssessment(
        verdict=Verdict.of(f"score {plan.name}", [check]),
        n=state.n,
        mean=mean,
        interval=interval,
        log_harm=log_harm,
        log_health=log_health,
    )


def _interval(state: ScoreState) -> tuple[float, float]:
    """From the last refuted claim below to the first refuted one above: never too narrow for lack of grid points."""
    plan = state.plan
    kept = np.flatnonzero(~state.refuted)
    if not len(kept):  # the mean moved: no constant mean is left
        return math.nan, math.nan
    step = (plan.high - plan.low) / (GRID_POINTS - 1)
    lower = plan.low + max(int(kept[0]) - 1, 0) * step
    upper = plan.low + min(int(kept[-1]) + 1, GRID_POINTS - 1) * step
    return lower, upper
