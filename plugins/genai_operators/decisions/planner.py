"""Before the release: can this traffic answer this question, how long will it take, and who would meet a bad canary?

*Method*: exact first passage of the evidence on the lattice of bad events
(:mod:`~genai_operators.decisions.planner_lattice`), at one weight and for one guardrail; the rest is arithmetic and
approximate, as is said where it happens:

- each step is forecast as if the evidence began with it; in the time until certification the parts of the proof that
  the steps provide are *added* (a step that lasts a third of what it would need gives a third). Logarithms of evidence
  do add over steps in the mean; medians of first passages only nearly.
- relative and absolute proof of health are each asked for their share of the mixture and the earlier one is taken:
  together they may be quicker, never slower.
- the absolute process is fed with the expected number of bad requests; its 90 % quantile is set to 1.5 times that.

Source: first passage by dynamic programming over a random walk's lattice, e.g. Siegmund 1985, "Sequential Analysis".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from genai_operators.decisions.planner_forecast import (
    Forecast,
    GuardrailForecast,
    Step,
    StepForecast,
    Wait,
    duration,
)
from genai_operators.decisions.planner_lattice import Passage, passage
from genai_operators.decisions.sequential_health import RELATIVE_SHARE, log_absolute
from genai_operators.decisions.sequential_plan import Guardrail, Plan
from genai_operators.exceptions import SpecError

__all__ = ["Forecast", "GuardrailForecast", "Step", "StepForecast", "Wait", "duration", "plan_steps"]

BAD_RATIOS = (2.0, 3.0, 5.0)
BROKEN_RATE = 0.5
"""A canary that fails every other request: the case that must be found at once."""
LARGEST_REQUESTS = 1e12


def plan_steps(
    plan: Plan,
    *,
    steps: Sequence[Step],
    requests_per_s: float,
    base_rates: Mapping[str, float],
    requests_per_user: float = 1.0,
    deadline_s: float = math.inf,
    ratios: Sequence[float] = BAD_RATIOS,
) -> Forecast:
    """Forecast each step of a canary.

    Method: first passage on the lattice of bad events (:mod:`~genai_operators.decisions.planner_lattice`) at the
    step's propensity, as if the evidence began with the step; one guardrail is bad, the others are silent. Bad events
    are turned into requests at their expected rate.

    :param requests_per_s: expected traffic of both arms, above 0.
    :param base_rates: the champion's bad rate for each guardrail, in [0, 1).
    :param requests_per_user: mean number of canary requests that one user sends meanwhile, at least 1.
    :param deadline_s: longest release, above 0; infinite: none.
    :param ratios: of bad rates, each above 0: how long until a canary with so much is found.
    :raises SpecError: a value is outside its range, or a guardrail lacks its base rate.
    """
    _check(plan, steps, requests_per_s, base_rates, requests_per_user)
    if not deadline_s > 0:
        raise SpecError(f"deadline_s must be positive, got {deadline_s}")
    if not all(math.isfinite(ratio) and ratio > 0 for ratio in ratios):
        raise SpecError(f"ratios must be positive numbers, got {tuple(ratios)}")
    traffic = _Traffic(requests_per_s=requests_per_s, requests_per_user=requests_per_user)
    forecasts = tuple(_forecast_step(plan, step, traffic, base_rates, tuple(ratios)) for step in steps)
    certified_s = _certified(forecasts)
    return Forecast(
        steps=forecasts,
        certified_s=certified_s,
        harmless_rollback={
            guardrail.name: _harmless_rollback(plan, number, steps[-1].percent / 100)
            for number, guardrail in enumerate(plan.guardrails)
        },
        warnings=tuple(_warnings(forecasts, certified_s, deadline_s, requests_per_s)),
    )


def _check(
    plan: Plan,
    steps: Sequence[Step],
    requests_per_s: float,
    base_rates: Mapping[str, float],
    requests_per_user: float,
) -> None:
    if not steps:
        raise SpecError("steps: a canary needs at least one")
    if not (math.isfinite(requests_per_s) and requests_per_s > 0):
        raise SpecError(f"requests_per_s must be positive, got {requests_per_s}")
    if not (math.isfinite(requests_per_user) and requests_per_user >= 1):
        raise SpecError(f"requests_per_user must be at least 1, got {requests_per_user}")
    for name in plan.names:
        if not 0 <= base_rates.get(name, -1.0) < 1:
            raise SpecError(f"base_rates: guardrail {name!r} needs a rate in [0, 1), got {base_rates.get(name)}")


@dataclass(frozen=True, kw_only=True)
class _Traffic:
    requests_per_s: float
    requests_per_user: float

    def wait(self, *, median: float, p90: float, share: float) -> Wait:
        canary = median * share
        return Wait(
            median=median,
            p90=p90,
            median_s=median / self.requests_per_s,
            p90_s=p90 / self.requests_per_s,
            canary_requests=canary,
            users=max(canary / self.requests_per_user, min(canary, 1.0)),
        )


def _forecast_step(
    plan: Plan, step: Step, traffic: _Traffic, base_rates: Mapping[str, float], ratios: tuple[float, ...]
) -> StepForecast:
    share = step.percent / 100
    guardrails = []
    for number, guardrail in enumerate(plan.guardrails):
        base = base_rates[guardrail.name]
        guardrails.append(
            GuardrailForecast(
                name=guardrail.name,
                base_rate=base,
                detect={ratio: _detect(plan, number, share, base, base * ratio, traffic) for ratio in ratios},
                detect_broken=_detect(plan, number, share, base, _broken_rate(base), traffic),
                certify=_certify(plan, guardrail, share, base, traffic),
            )
        )
    shortest = max(step.minimum_soak_s, step.minimum_requests / (share * traffic.requests_per_s))
    return StepForecast(step=step, shortest_s=shortest, guardrails=tuple(guardrails))


def _broken_rate(base: float) -> float:
    """Of a canary that is broken; where much is "bad" already (a median as threshold), half-way to everything."""
    return BROKEN_RATE if base < BROKEN_RATE / 2 else (1 + base) / 2


def _detect(plan: Plan, number: int, share: float, base: float, rate: float, traffic: _Traffic) -> Wait:
    rate = min(rate, 1.0)
    if rate == 0.0:
        return traffic.wait(median=math.inf, p90=math.inf, share=share)
    ratio = rate / base if base > 0 else math.inf
    crossing = _harm_passage(share, ratio, plan.guardrails[number].harm_ratio, 1.0 / (plan.alpha * plan.shares[number]))
    per_request = share * rate + (1 - share) * base
    return traffic.wait(
        median=crossing.harm_quantile(0.5) / per_request, p90=crossing.harm_quantile(0.9) / per_request, share=share
    )


@lru_cache(maxsize=512)
def _harm_passage(share: float, ratio: float, harm_ratio: float, threshold: float) -> Passage:
    return passage(
        propensity=share,
        ratio=min(ratio, 1e9),
        harm_ratio=harm_ratio,
        harm_threshold=threshold,
        margin=harm_ratio + 1.0,
        health_threshold=math.inf,
    )


def _certify(plan: Plan, guardrail: Guardrail, share: float, base: float, traffic: _Traffic) -> Wait:
    """The earlier of the relative and the absolute proof, each at its share of the mixture."""
    with_ceiling = guardrail.ceiling is not None
    threshold = 1.0 / (plan.beta * (RELATIVE_SHARE if with_ceiling else 1.0))
    median = p90 = math.inf
    if base > 0:
        crossing = _health_passage(share, 1.0, guardrail.margin, threshold)
        median, p90 = crossing.health_quantile(0.5) / base, crossing.health_quantile(0.9) / base
    if guardrail.ceiling is not None:
        absolute = _absolute_requests(base, guardrail.ceiling, 1.0 / (plan.beta * (1 - RELATIVE_SHARE))) / share
        soaked = plan.minimum_soak_s * traffic.requests_per_s
        median, p90 = min(median, max(absolute, soaked)), min(p90, max(1.5 * absolute, soaked))
    return traffic.wait(median=median, p90=p90, share=share)


@lru_cache(maxsize=512)
def _health_passage(share: float, ratio: float, margin: float, threshold: float) -> Passage:
    return passage(
        propensity=share,
        ratio=ratio,
        harm_ratio=1.0,
        harm_threshold=math.inf,
        margin=margin,
        health_threshold=threshold,
    )


def _absolute_requests(base: float, ceiling: float, threshold: float) -> float:
    """Canary requests until the absolute process, fed with the expected number of bad ones, reaches its threshold."""

    def short(requests: float) -> bool:
        bad = round(base * requests)
        return log_absolute(requests=math.ceil(requests), bad=bad, ceiling=ceiling) < math.log(threshold)

    high = 1.0
    while short(high):
        high *= 2
        if high > LARGEST_REQUESTS:
            return math.inf
    low = high / 2
    while high - low > max(1.0, 0.001 * high):
        middle = (low + high) / 2
        low, high = (middle, high) if short(middle) else (low, middle)
    return high


def _harmless_rollback(plan: Plan, number: int, share: float) -> float:
    guardrail = plan.guardrails[number]
    return _lost_races(
        share,
        guardrail.harm_ratio,
        1.0 / (plan.alpha * plan.shares[number]),
        guardrail.margin,
        1.0 / (plan.beta * (RELATIVE_SHARE if guardrail.ceiling is not None else 1.0)),
    )


@lru_cache(maxsize=512)
def _lost_races(
    share: float, harm_ratio: float, harm_threshold: float, margin: float, health_threshold: float
) -> float:
    race = passage(
        propensity=share,
        ratio=math.sqrt(harm_ratio * margin),
        harm_ratio=harm_ratio,
        harm_threshold=harm_threshold,
        margin=margin,
        health_threshold=health_threshold,
        enough=0.99,
    )
    return float(race.harm[-1])


def _certified(forecasts: tuple[StepForecast, ...]) -> float:
    """Seconds until everything is certified: earlier steps last their shortest time and add what they can."""
    elapsed, proved = 0.0, 0.0
    for forecast in forecasts[:-1]:
        elapsed += forecast.shortest_s
        proved += forecast.shortest_s / max(_slowest(forecast), 1e-9)
    last = forecasts[-1]
    return elapsed + max(last.shortest_s, (1 - min(proved, 1.0)) * _slowest(last))


def _slowest(forecast: StepForecast) -> float:
    return max(one.certify.median_s for one in forecast.guardrails)


def _warnings(
    forecasts: tuple[StepForecast, ...], certified_s: float, deadline_s: float, requests_per_s: float
) -> list[str]:
    found = []
    last = forecasts[-1]
    for one in last.guardrails:
        if math.isinf(one.certify.median_s):
            found.append(
                f"{one.name}: at a base rate of {one.base_rate:.2%} nothing can certify it; "
                "raise its margin or its ceiling"
            )
    if math.isfinite(certified_s) and certified_s > deadline_s:
        slowest = max(last.guardrails, key=lambda one: one.certify.median_s)
        found.append(
            f"{requests_per_s:g} requests/s are too few for the question: a good canary needs about "
            f"{duration(certified_s)}, the deadline is {duration(deadline_s)}; {slowest.name} takes longest. Raise its "
            "margin or ceiling, the last step's share, or the deadline"
        )
    for forecast in forecasts[:-1]:  # the last step is left by proof only
        slowest = max(forecast.guardrails, key=lambda one: one.detect_broken.p90_s)
        if slowest.detect_broken.p90_s > forecast.shortest_s:
            found.append(
                f"step {forecast.step.percent:g} %: lasts at least {duration(forecast.shortest_s)}, but a canary that "
                f"fails half of its requests may take {duration(slowest.detect_broken.p90_s)} to be found by "
                f"{slowest.name}; raise minimum_soak or minimum_requests"
            )
    return found
