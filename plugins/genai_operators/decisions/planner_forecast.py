"""What a planned canary can be expected to do: how long, how many requests, how many users; and how to say it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from genai_operators.exceptions import SpecError


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a canary.

    :param percent: share of the traffic, in (0, 100).
    :param minimum_soak_s: shortest stay, in seconds.
    :param minimum_requests: fewest canary requests.
    :raises SpecError: a value is outside its range.
    """

    percent: float
    minimum_soak_s: float = 0.0
    minimum_requests: int = 0

    def __post_init__(self) -> None:
        """Refuse what no step can be."""
        if not 0 < self.percent < 100:
            raise SpecError(f"steps need a percentage between 0 and 100 each, got {self.percent}")
        for name in ("minimum_soak_s", "minimum_requests"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise SpecError(f"step {self.percent:g} %: {name} must be at least 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class Wait:
    """How long something takes. Requests of both arms; seconds at the expected traffic; infinite: never.

    :param median: in half of all releases it takes at most so many requests. ``p90``: in nine of ten.
    :param canary_requests: those of the median that the canary answers. ``users``: how many users send them.
    """

    median: float
    p90: float
    median_s: float
    p90_s: float
    canary_requests: float
    users: float


@dataclass(frozen=True, kw_only=True)
class GuardrailForecast:
    """One guardrail at one step.

    :param detect: by ratio of bad rates, the wait until harm is proved.
    :param detect_broken: the wait when half of the canary's requests fail.
    :param certify: the wait until health is proved, for a canary that equals the champion.
    """

    name: str
    base_rate: float
    detect: Mapping[float, Wait]
    detect_broken: Wait
    certify: Wait


@dataclass(frozen=True, kw_only=True)
class StepForecast:
    """One step: how long it lasts at least, and what it can see."""

    step: Step
    shortest_s: float
    guardrails: tuple[GuardrailForecast, ...]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a release can be expected to do.

    :param certified_s: median time from the start until the last guardrail is proved acceptable, if all is well.
    :param harmless_rollback: for each guardrail, the probability that a canary half-way between ``harm_ratio`` and
        ``margin`` (geometrically), harmless by the plan's own words, is rolled back before it is certified.
    :param warnings: what the traffic is too small for, and what would help. Empty: nothing.
    """

    steps: tuple[StepForecast, ...]
    certified_s: float
    harmless_rollback: Mapping[str, float]
    warnings: tuple[str, ...]

    @property
    def enough_traffic(self) -> bool:
        """Nothing is too small."""
        return not self.warnings

    def render_text(self) -> str:
        """For the log of the plan task and ``make check``."""
        lines = []
        for forecast in self.steps:
            lines.append(f"step {forecast.step.percent:g} %, at least {duration(forecast.shortest_s)}:")
            for one in forecast.guardrails:
                found = ", ".join(
                    f"x{ratio:g} {_requests(wait)} (about {wait.users:,.0f} users)"
                    for ratio, wait in one.detect.items()
                )
                lines.append(f"  {one.name} at {one.base_rate:.2%}: finds {found}; certifies {_requests(one.certify)}")
        lines.append(f"a good canary is certified after about {duration(self.certified_s)} (median)")
        lines += [
            f"  {name}: half-way to the margin it is rolled back in {probability:.0%} of cases"
            for name, probability in self.harmless_rollback.items()
        ]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)


def _requests(wait: Wait) -> str:
    if math.isinf(wait.median):
        return "never"
    return f"after {wait.median:,.0f} requests ({duration(wait.median_s)}, 90 %: {duration(wait.p90_s)})"


def duration(seconds: float) -> str:
    """A duration in the unit that a person would use."""
    if not math.isfinite(seconds):
        return "forever"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
