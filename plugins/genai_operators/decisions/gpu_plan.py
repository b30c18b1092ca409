"""Which hardware, for how long, for how much: the cheapest way that fits, the ways to fall back to, and why not others.

A way fits when the *upper* bound of its peak is within the GPU's memory. Of the ways that fit and respect the limits,
the cheapest by expected cost (interruptions of spot machines counted) is chosen; the chain behind it changes what could
fail: from spot to on-demand, then to another GPU type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from genai_operators.decisions.gpu_catalogue import gpu_named
from genai_operators.decisions.gpu_options import (
    GB,
    Knowledge,
    Option,
    Rejection,
    TrainingRun,
    fitted_setup,
    option,
)
from genai_operators.decisions.gpu_prices import Price, PriceList, Purchase
from genai_operators.decisions.gpu_setup import TrainingSetup
from genai_operators.decisions.gpu_shape import ModelShape
from genai_operators.exceptions import ConfigurationError

COUNTS = (1, 2, 4, 8)
FALLBACKS = 4
PRICES_OLD_AFTER_DAYS = 180


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a plan must respect.

    :param hours: the run's upper bound stays below. :param cost: likewise, in the price list's currency.
    :param spot: whether machines that can be taken away come into question.
    """

    hours: float | None = None
    cost: float | None = None
    spot: bool = True

    def __post_init__(self) -> None:
        for name in ("hours", "cost"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(f"plan limits: {name} is {value}; above 0")


@dataclass(frozen=True, kw_only=True)
class GpuPlan:
    """The answer. ``options`` are all ways that fit, cheapest first."""

    chosen: Option
    fallbacks: tuple[Option, ...]
    rejected: tuple[Rejection, ...]
    options: tuple[Option, ...]
    currency: str
    prices_of: date

    @property
    def chain(self) -> tuple[Option, ...]:
        """The chosen way, then the ones to fall back to, in order."""
        return (self.chosen, *self.fallbacks)

    def warnings(self, today: date) -> tuple[str, ...]:
        """What a reader should doubt."""
        age = (today - self.prices_of).days
        if age <= PRICES_OLD_AFTER_DAYS:
            return ()
        return (f"the prices are {age} days old ({self.prices_of}); update the price file",)

    def render_text(self) -> str:
        """For the log and the plan task."""
        lines = [f"GPU plan: {describe(self.chosen, self.currency)}"]
        lines += [
            f"  {place}. else {describe(way, self.currency)}" for place, way in enumerate(self.fallbacks, start=1)
        ]
        lines += [f"  not {line}" for line in _reasons([no for no in self.rejected if not no.dearer])]
        dearer = [no for no in self.rejected if no.dearer]
        if dearer:
            lines.append(f"  {len(dearer)} dearer ways left out; next: {name_of(dearer[0])} {dearer[0].reason}")
        return "\n".join([*lines, f"  prices of {self.prices_of} in {self.currency}"])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; what a decision stores."""
        return {
            "chain": [asdict(way) for way in self.chain],
            "rejected": [asdict(no) for no in self.rejected],
            "currency": self.currency,
            "prices_of": self.prices_of.isoformat(),
        }


def plan(
    shape: ModelShape, setup: TrainingSetup, run: TrainingRun, *, prices: PriceList, gpus: Sequence[str] | None = None,
    counts: Sequence[int] = COUNTS, limits: Limits | None = None, knowledge: Knowledge | None = None,
) -> GpuPlan:  # fmt: skip
    """Plan a training run.

    :param setup: what is wanted; micro-batch, accumulation, GPUs and (unless it names one) sharding are decided here.
    :param gpus: types that come into question; by default every type that has a price.
    :param counts: of GPUs in one machine.
    :raises ConfigurationError: an unknown GPU, one without a price, or nothing fits; then the message has each reason.
    """
    knowledge, limits = knowledge or Knowledge(), limits or Limits()
    if not counts or min(counts) < 1:
        raise ConfigurationError(f"plan: counts are {list(counts)}; whole numbers of at least 1")
    found: list[Option] = []
    rejected: list[Rejection] = []
    for name in prices.gpus if gpus is None else gpus:
        gpu_named(name)
        if name not in prices.gpus:
            raise ConfigurationError(f"plan: GPU type {name!r} has no price; add it to the price file or leave it out")
        for count in sorted(set(counts)):
            ways, no = _ways(
                shape, setup, run, name=name, count=count, price=prices.gpus[name], limits=limits, knowledge=knowledge
            )
            found += ways
            rejected += no
    if not found:
        raise ConfigurationError(_impossible(rejected))
    options = tuple(sorted(found, key=lambda way: (way.cost.expected, way.hours.expected, way.name)))
    chain = _chain(options)
    dearer = [_dearer(way, chain[0], prices.currency) for way in options if way not in chain]
    return GpuPlan(
        chosen=chain[0],
        fallbacks=chain[1:],
        rejected=(*rejected, *dearer),
        options=options,
        currency=prices.currency,
        prices_of=prices.at,
    )


def describe(way: Option, currency: str) -> str:
    """One line: hardware, batch, peak with its interval, hours, cost."""
    memory, hours, cost = way.memory, way.hours, way.cost
    return (
        f"{way.name}, micro-batch {way.setup.micro_batch} x {way.setup.accumulation}"
        f"{'' if way.count == 1 else f', {way.setup.sharding}'}; "
        f"peak {memory.expected / GB:.1f} GB ({memory.lower / GB:.1f} to {memory.upper / GB:.1f} of "
        f"{way.capacity / GB:.1f}); {duration(hours.expected)} ({duration(hours.lower)} to "
        f"{duration(hours.upper)}); "
        f"{cost.expected:.2f} {currency} ({cost.lower:.2f} to {cost.upper:.2f})"
    )


def duration(hours: float) -> str:
    """As people say it: minutes below an hour."""
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:.1f} h"


def name_of(no: Rejection) -> str:
    """As people say it."""
    return f"{no.count} x {no.gpu}" + (f" {no.purchase.replace('_', '-')}" if no.purchase else "")


def _ways(
    shape: ModelShape, setup: TrainingSetup, run: TrainingRun, *, name: str, count: int, price: Price, limits: Limits,
    knowledge: Knowledge,
) -> tuple[list[Option], list[Rejection]]:  # fmt: skip
    gpu = gpu_named(name)
    fitted = fitted_setup(shape, setup, run, gpu, count=count, knowledge=knowledge)
    if isinstance(fitted, str):
        return [], [Rejection(gpu=name, count=count, purchase=None, reason=fitted)]
    found, rejected = [], []
    for purchase in Purchase:
        if price.of(purchase) is None or (purchase is Purchase.SPOT and not limits.spot):
            continue
        way = option(shape, fitted, run, gpu, price=price, purchase=purchase, knowledge=knowledge)
        reason = _over(way, limits)
        if reason is None:
            found.append(way)
        else:
            rejected.append(Rejection(gpu=name, count=count, purchase=purchase, reason=reason))
    return found, rejected


def _over(way: Option, limits: Limits) -> str | None:
    if limits.hours is not None and way.hours.upper > limits.hours:
        return f"may take {duration(way.hours.upper)}, the limit is {duration(limits.hours)}"
    if limits.cost is not None and way.cost.upper > limits.cost:
        return f"may cost {way.cost.upper:.2f}, the limit is {limits.cost:g}"
    return None


def _chain(options: Sequence[Option]) -> tuple[Option, ...]:
    """The cheapest; then, per step, the cheapest with another GPU type or a safer purchase than all before it."""
    chain: list[Option] = []
    for way in options:
        same = [other for other in chain if other.gpu == way.gpu]
        safer = way.purchase is Purchase.ON_DEMAND and all(other.purchase is Purchase.SPOT for other in same)
        if (not same or safer) and len(chain) <= FALLBACKS:
            chain.append(way)
    return tuple(chain)


def _dearer(way: Option, chosen: Option, currency: str) -> Rejection:
    reason = f"costs {way.cost.expected:.2f} {currency}; {chosen.name} does it for {chosen.cost.expected:.2f}"
    if way.hours.expected < chosen.hours.expected:
        reason += f" (it would take {duration(way.hours.expected)} instead of {duration(chosen.hours.expected)})"
    return Rejection(gpu=way.gpu, count=way.count, purchase=way.purchase, reason=reason, dearer=True)


def _reasons(rejected: Sequence[Rejection]) -> list[str]:
    """One line for each GPU type and purchase: all its counts, and the reason of the largest, which comes closest."""
    groups: dict[tuple[str, Purchase | None], list[Rejection]] = {}
    for no in rejected:
        groups.setdefault((no.gpu, no.purchase), []).append(no)
    return [
        f"{', '.join(str(no.count) for no in group[:-1])}{' or ' if group[:-1] else ''}{name_of(group[-1])}: "
        f"{group[-1].reason}"
        for group in groups.values()
    ]


def _impossible(rejected: Sequence[Rejection]) -> str:
    if not rejected:
        return "plan: no GPU type with a price comes into question; allow spot machines or add prices"
    reasons = "; ".join(_reasons(rejected))
    return f"plan: nothing fits. {reasons}. Shorten sequences, use qlora, allow more GPUs, or raise a limit"
