"""Evidence of harm: is some kind of failure more frequent on the canary than ``harm_ratio`` times the champion's rate?

Given that a request went bad, the arm it fell on is a coin whose bias is known up to the ratio of the arms' bad rates:
with propensity ``p`` and ratio ``r`` it is the canary with probability ``p r / (p r + 1 - p)``. The base rate cancels,
so daily cycles and changing weights do no harm. For each guardrail the likelihood ratios of a grid of ratios above
``harm_ratio`` are mixed with a fixed prior; that mixture is a non-negative supermartingale under every ratio up to
``harm_ratio``, with respect to the history of whole requests. So is the average of the guardrails' mixtures with their
alpha shares, and by Ville's inequality it ever reaches ``1 / alpha`` with probability at most ``alpha``.

*No overshoot*: where a bad event on the canary would carry the average beyond ``1 / alpha``, the bet is lowered so that
it lands on it exactly, and what was saved is paid out if the event falls on the champion. The conditional expectation
stays what it was (exactly one at ``harm_ratio``), so nothing is lost but slack. The path then is part of the state.

Sources: Lindon, Sanden & Shirikian 2022 (arXiv 2205.14762); Turner, Ly & Grünwald 2021 (arXiv 2106.02693); Ville 1939;
Fischer & Ramdas 2024, "Improving the (approximate) sequential probability ratio test by avoiding overshoot" (arXiv
2410.16076).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genai_operators.decisions.sequential_plan import Plan
from genai_operators.decisions.sequential_products import Floats, Path, Products, decode_floats, encode_floats

GRID = 24
LOWEST_RATIO, HIGHEST_RATIO = 1.2, 50.0
EXPECTED_RATIO, EXPECTED_SPREAD, EXPECTED_SHARE = 3.0, 0.6, 0.6
"""The prior: 60 % lognormal around a ratio of 3, the rest flat in the logarithm. In units of ``harm_ratio``."""

_ROUNDING = 1e-12
"""A total that misses the threshold by rounding alone has reached it."""
_CLEARLY_BELOW = 1.0 - 1e-9


def prior() -> tuple[Floats, Floats]:
    """Ratios relative to ``harm_ratio`` and their weights, both of shape (GRID,); the weights sum to one."""
    low, high = math.log(LOWEST_RATIO), math.log(HIGHEST_RATIO)
    grid = [low + (high - low) * place / (GRID - 1) for place in range(GRID)]
    bell = [math.exp(-0.5 * ((point - math.log(EXPECTED_RATIO)) / EXPECTED_SPREAD) ** 2) for point in grid]
    height = math.fsum(bell)
    weights = [EXPECTED_SHARE * value / height + (1 - EXPECTED_SHARE) / GRID for value in bell]
    # Rounded, so that machines whose exp differs in the last bit agree on every state.
    return np.array([round(math.exp(point), 9) for point in grid]), np.array([round(w, 12) for w in weights])


RATIOS, WEIGHTS = prior()


@dataclass(frozen=True, kw_only=True, eq=False)
class Events:
    """The counted bad events of one guardrail, in arrival order. All arrays have length n.

    :param row: the request, by its position in the batch.
    :param canary: the arm.
    :param propensity: probability of the canary, strictly between 0 and 1.
    """

    row: np.ndarray[Any, np.dtype[np.int64]]
    canary: np.ndarray[Any, np.dtype[np.bool_]]
    propensity: Floats

    def until(self, row: int) -> Events:
        """Those of requests up to and including ``row``."""
        keep = slice(0, int(np.searchsorted(self.row, row, side="right")))
        return Events(row=self.row[keep], canary=self.canary[keep], propensity=self.propensity[keep])


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """Harm was proved, here. It stays proved.

    :param request: number of requests up to and including the one that proved it.
    :param arrival: when that request arrived.
    :param guardrail: the one with the largest part in the evidence.
    """

    request: int
    arrival: float
    guardrail: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Harm:
    """State of the evidence of harm: for each guardrail GRID products and the scale that lowered bets have left."""

    products: tuple[Products, ...]
    scales: tuple[tuple[float, int], ...]
    alarm: Alarm | None = None

    @classmethod
    def start(cls, plan: Plan) -> Harm:
        """Every process at one."""
        unit = math.frexp(1.0 / float(_mixture_at_start()))
        return cls(products=tuple(Products.ones(GRID) for _ in plan.guardrails), scales=(unit,) * len(plan.guardrails))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types, exact."""
        return {
            "products": [products.to_json() for products in self.products],
            "scales": [[encode_floats(np.array([scale])), exponent] for scale, exponent in self.scales],
            "alarm": None if self.alarm is None else vars(self.alarm),
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Harm:
        """Inverse of :meth:`to_json`."""
        return cls(
            products=tuple(Products.from_json(products) for products in record["products"]),
            scales=tuple((float(decode_floats(scale)[0]), exponent) for scale, exponent in record["scales"]),
            alarm=None if record["alarm"] is None else Alarm(**record["alarm"]),
        )


def _mixture_at_start() -> float:
    value, exponent = _point(Products.ones(GRID))
    return math.ldexp(value, exponent)


def _point(products: Products) -> tuple[float, int]:
    value, exponent = Path(products.mantissa[:, None], products.exponent[:, None]).mixture(WEIGHTS)
    return float(value[0]), int(exponent[0])


def factors(propensity: Floats, *, harm_ratio: float) -> tuple[Floats, Floats]:
    """What one bad event multiplies each process by, if it fell on the canary and if on the champion.

    :param propensity: shape (n,), strictly between 0 and 1.
    :return: two arrays of shape (GRID, n). Under ``harm_ratio`` their expectation is one, for every process.
    """
    null = propensity * harm_ratio + (1.0 - propensity)
    alternative = propensity * (RATIOS[:, None] * harm_ratio) + (1.0 - propensity)
    champion = null / alternative
    return RATIOS[:, None] * champion, champion


@dataclass(frozen=True, eq=False)
class Way:
    """What the n events of one guardrail make of its products.

    :param on_canary: shape (GRID, n), the factors of each event if it falls on the canary.
    """

    events: Events
    on_canary: Floats
    path: Path

    @property
    def products(self) -> Products:
        """After the last event."""
        return Products(self.path.mantissa[:, -1].copy(), self.path.exponent[:, -1].copy())

    def bound(self, scale: tuple[float, int]) -> float:
        """Above every mixture on the way and whatever one more event on the canary would make of it: the weights sum
        to one, and no mantissa reaches it."""
        with np.errstate(over="ignore"):
            highest = scale[0] * self.on_canary.max(initial=1.0)
            return float(np.ldexp(highest, self.path.exponent.max() + scale[1]))


@dataclass(frozen=True, eq=False)
class Track:
    """One guardrail's mixture before and after each of its n events, and what each event would make of it on the
    canary.

    Values are ``value * 2**exponent``; ``value`` and ``exponent`` have n + 1 entries, the others n.
    """

    value: list[float]
    exponent: list[int]
    raised: list[float]
    null: list[float]
    canary: list[bool]
    highest: float


def _way(products: Products, events: Events, *, harm_ratio: float) -> Way:
    on_canary, on_champion = factors(events.propensity, harm_ratio=harm_ratio)
    return Way(events, on_canary, products.path(np.where(events.canary, on_canary, on_champion)))


def _track(way: Way, *, harm_ratio: float, scale: tuple[float, int]) -> Track:
    value, raised, exponent = way.path.mixtures(WEIGHTS, way.on_canary)
    null = way.events.propensity * harm_ratio
    with np.errstate(over="ignore"):  # beyond an alarm, where nothing is read any more
        top = np.ldexp(scale[0] * np.maximum(np.append(raised, 0.0), value), exponent + scale[1])
    return Track(
        value=value.tolist(),
        exponent=exponent.tolist(),
        raised=raised.tolist(),
        null=(null / (null + 1.0 - way.events.propensity)).tolist(),
        canary=way.events.canary.tolist(),
        highest=float(top.max()),
    )


def update_harm(harm: Harm, events: Sequence[Events], *, plan: Plan) -> tuple[Harm, tuple[int, str] | None]:
    """Add bad events, one sequence for each guardrail.

    :return: the new state, still without its alarm, and (row of the request that proved harm, guardrail) if one did.
        The caller knows when that request arrived. Nothing may be added after an alarm.
    """
    ratios = [guardrail.harm_ratio for guardrail in plan.guardrails]
    ways = _ways(harm.products, events, ratios)
    quiet = Harm(products=tuple(way.products for way in ways), scales=harm.scales)
    clearly_below = _CLEARLY_BELOW / plan.alpha  # no bet can reach the threshold: the walk would change nothing
    bounds = [way.bound(scale) for way, scale in zip(ways, harm.scales, strict=True)]
    if _weighted(plan, bounds) < clearly_below:
        return quiet, None
    tracks = [
        _track(way, harm_ratio=ratio, scale=scale) for way, ratio, scale in zip(ways, ratios, harm.scales, strict=True)
    ]
    if _weighted(plan, [track.highest for track in tracks]) < clearly_below:
        return quiet, None
    scales: list[tuple[float, int]] = list(harm.scales)
    proved = _walk(tracks, scales, events, plan=plan)
    if proved is None:
        return Harm(products=quiet.products, scales=tuple(scales)), None
    # What came after the alarm, in this batch, is no part of the state.
    until = _ways(harm.products, [one.until(proved[0]) for one in events], ratios)
    return Harm(products=tuple(way.products for way in until), scales=tuple(scales)), proved


def _ways(products: Sequence[Products], events: Sequence[Events], ratios: Sequence[float]) -> list[Way]:
    return [_way(one, some, harm_ratio=ratio) for one, some, ratio in zip(products, events, ratios, strict=True)]


def _weighted(plan: Plan, values: Sequence[float]) -> float:
    return math.fsum(share * value for share, value in zip(plan.shares, values, strict=True))


def _walk(
    tracks: Sequence[Track], scales: list[tuple[float, int]], events: Sequence[Events], *, plan: Plan
) -> tuple[int, str] | None:
    """Go through the requests in order, lowering bets that would overshoot; ``scales`` is updated in place."""
    shares, threshold = plan.shares, 1.0 / plan.alpha
    parts = [share * _scaled(track, 0, scale) for share, track, scale in zip(shares, tracks, scales, strict=True)]
    for row, entries in _by_request(events):
        before = list(parts)
        total = math.fsum(before)
        for guardrail, time in entries:
            room = (threshold - (total - before[guardrail])) / shares[guardrail]
            scales[guardrail] = _bet(tracks[guardrail], time, scales[guardrail], room=room)
            parts[guardrail] = shares[guardrail] * _scaled(tracks[guardrail], time + 1, scales[guardrail])
        if math.fsum(parts) >= threshold * (1.0 - _ROUNDING):
            largest = max(range(len(parts)), key=parts.__getitem__)
            return row, plan.names[largest]
    return None


def _scaled(track: Track, time: int, scale: tuple[float, int]) -> float:
    return math.ldexp(scale[0] * track.value[time], track.exponent[time] + scale[1])


def _bet(track: Track, time: int, scale: tuple[float, int], *, room: float) -> tuple[float, int]:
    """The scale after one event: as it was, unless the event on the canary would have gone beyond ``room``."""
    if math.ldexp(scale[0] * track.raised[time], track.exponent[time] + scale[1]) <= room:
        return scale
    if track.canary[time]:
        landed = room
    else:
        null = track.null[time]
        paid_out = (_scaled(track, time, scale) - null * room) / (1.0 - null)
        landed = max(paid_out, _scaled(track, time + 1, scale))
    fraction, exponent = math.frexp(landed / track.value[time + 1])
    return fraction, exponent - track.exponent[time + 1]


def _by_request(events: Sequence[Events]) -> list[tuple[int, list[tuple[int, int]]]]:
    """(row, [(guardrail, its event's number)]) in order of the rows."""
    grouped: dict[int, list[tuple[int, int]]] = {}
    rows = np.concatenate([one.row for one in events])
    guardrails = np.concatenate([np.full(len(one.row), k) for k, one in enumerate(events)])
    times = np.concatenate([np.arange(len(one.row)) for one in events])
    order = np.lexsort((guardrails, rows))
    for row, guardrail, time in zip(
        rows[order].tolist(), guardrails[order].tolist(), times[order].tolist(), strict=True
    ):
        grouped.setdefault(row, []).append((guardrail, time))
    return list(grouped.items())


def harm_evidence(harm: Harm) -> list[float]:
    """Natural logarithm of each guardrail's process at present."""
    values = []
    for products, (scale, scale_exponent) in zip(harm.products, harm.scales, strict=True):
        value, exponent = _point(products)
        values.append(math.log(value * scale) + (exponent + scale_exponent) * math.log(2.0))
    return values
