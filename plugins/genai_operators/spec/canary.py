"""``canary``: how a candidate earns traffic, and what stops it."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from pydantic import Field, model_validator

from genai_operators.spec.quantities import AutoDuration, Delay, Duration, Fraction, PositiveInt
from genai_operators.spec.section import Section


class OnDeadline(StrEnum):
    """What happens to a canary that proved neither harm nor health in time."""

    HOLD = "hold"
    ASK = "ask"
    ROLL_BACK = "roll_back"


class Step(Section):
    """One share of the traffic. It is left when soak and count are reached and no harm is proved."""

    percent: float = Field(gt=0, lt=100, description="Share of the traffic for the candidate.")
    minimum_soak: Duration = Field(default=timedelta(minutes=10), description="Shortest stay on this step.")
    minimum_requests: PositiveInt = Field(
        default=100, description="Fewest requests answered by the candidate on this step."
    )


class Guardrail(Section):
    """One kind of bad outcome, compared between candidate and champion."""

    margin: float = Field(
        default=2.0, gt=1, description="Acceptable: proved below this many times the champion's rate, or ..."
    )
    ceiling: float | None = Field(
        default=0.05, gt=0, lt=1, description="... when the candidate's rate is proved below this."
    )
    harm_ratio: float = Field(
        default=1.0, ge=1, description="Harm is a rate proved above this many times the champion's."
    )
    alpha_weight: float = Field(
        default=1.0, gt=0, description="This guardrail's part of `alpha`, relative to the others."
    )

    @model_validator(mode="after")
    def _margin_beyond_harm(self) -> Guardrail:
        if self.harm_ratio >= self.margin:
            raise ValueError(f"harm_ratio {self.harm_ratio:g} must be below margin {self.margin:g}")
        return self


class TimedGuardrail(Guardrail):
    """A request is bad when a time of its answer is longer than the limit.

    ``auto``: the champion's own times before the release give several limits (the times that a half, a tenth and a
    hundredth of its answers exceed), frozen when the release starts, so that a shift anywhere is found.
    """

    limit: AutoDuration = Field(
        default=None, description="Longest acceptable time; `auto`: several, from the champion's own times."
    )


#: How many limits ``auto`` takes from the champion's own times, and how much a release compares of one request.
AUTO_LIMITS, MOST_COMPARISONS = 3, 8


class Guardrails(Section):
    """`null` switches one off. Every one that is on must be proved acceptable before promotion."""

    errors: Guardrail | None = Field(default=Guardrail(), description="Failed, retried or timed-out requests.")
    invalid_output: Guardrail | None = Field(
        default=Guardrail(), description="Answers that are no JSON object (`output: json`) or empty."
    )
    refusal: Guardrail | None = Field(default=None, description="Answers that decline, told by their phrases.")
    negative_feedback: Guardrail | None = Field(default=None, description="Answers that users marked wrong.")
    slow_first_token: TimedGuardrail | None = Field(default=None, description="Answers whose first token came late.")
    long_gap: TimedGuardrail | None = Field(default=None, description="Streamed answers that paused for long.")

    @model_validator(mode="after")
    def _one_speaks_of_requests(self) -> Guardrails:
        # Who sends feedback depends on the answer, so feedback alone cannot tell whether the split is intact.
        if not self._of_requests():
            raise ValueError("switch on at least one of errors, invalid_output, refusal, slow_first_token, long_gap")
        return self

    @model_validator(mode="after")
    def _not_too_many(self) -> Guardrails:
        count = sum(
            AUTO_LIMITS if isinstance(each, TimedGuardrail) and each.limit is None else 1
            for each in self._of_requests()
        )
        if count > MOST_COMPARISONS:
            raise ValueError(
                f"these make {count} comparisons, and a release makes at most {MOST_COMPARISONS}: give "
                f"slow_first_token or long_gap a limit (`auto` compares {AUTO_LIMITS} times), or switch one off"
            )
        return self

    def _of_requests(self) -> list[Guardrail]:
        every = (self.errors, self.invalid_output, self.refusal, self.slow_first_token, self.long_gap)
        return [each for each in every if each is not None]


class BlastRadius(Section):
    """Most that a candidate may touch before it is promoted, whatever is proved by then."""

    requests: PositiveInt | None = Field(default=None, description="Most requests that the candidate may answer.")
    users: PositiveInt | None = Field(default=None, description="Most users that may meet the candidate.")
    tokens: PositiveInt | None = Field(default=None, description="Most tokens that the candidate may generate.")
    cost: float | None = Field(
        default=None, gt=0, description="Most that the candidate may cost, in your currency; needs one of the prices."
    )
    cost_per_hour: float | None = Field(
        default=None, gt=0, description="What the candidate's server costs an hour, counted from its start."
    )
    cost_per_1k_tokens: float | None = Field(
        default=None, gt=0, description="What a thousand generated tokens cost, where they are paid for."
    )

    @model_validator(mode="after")
    def _cost_has_a_price(self) -> BlastRadius:
        if self.cost is not None and self.cost_per_hour is None and self.cost_per_1k_tokens is None:
            raise ValueError("cost needs a price: give cost_per_hour, cost_per_1k_tokens, or both")
        return self


DAILY_CYCLE = timedelta(days=1)
_DEFAULT_STEPS = tuple(Step(percent=percent) for percent in (5, 25, 50))


class Canary(Section):
    """Silence never promotes; only a proof does."""

    steps: tuple[Step, ...] = Field(default=_DEFAULT_STEPS, min_length=1, description="Shares of the traffic, rising.")
    guardrails: Guardrails = Field(default=Guardrails(), description="What counts as bad, and how much of it.")
    alpha: Fraction = Field(default=0.05, description="Chance of rolling back a candidate that is no worse.")
    beta: Fraction = Field(default=0.05, description="Chance of promoting a candidate that is not acceptable.")
    deadline: Duration = Field(default=timedelta(days=2), description="Longest canary.")
    ceiling_soak: Duration | None = Field(
        default=None,
        description="A guardrail's `ceiling` certifies the rate so far, so it waits this long: one that saw no daily "
        "peak certifies a quiet night. Default: a day, or the steps' soaks where `deadline` leaves no day.",
    )
    on_deadline: OnDeadline = Field(
        default=OnDeadline.ROLL_BACK, description="What happens at the deadline without a proof."
    )
    blast_radius: BlastRadius = Field(default=BlastRadius(), description="Most that the candidate may touch.")
    startup_timeout: Duration = Field(
        default=timedelta(minutes=5), description="Longest wait until the candidate's server answers."
    )
    warm_up: Delay = Field(
        default=timedelta(0), description="Requests this soon after the first are left out of the evidence."
    )
    incident_window: Duration = Field(
        default=timedelta(minutes=2),
        description="Failures of one cause that follow each other this closely are one event, for up to twice as long.",
    )

    @property
    def soak(self) -> timedelta:
        """How long the steps take at least."""
        return sum((step.minimum_soak for step in self.steps), timedelta())

    @property
    def soak_before_ceiling(self) -> timedelta:
        """How long evidence is gathered before a ceiling may certify."""
        if self.ceiling_soak is not None:
            return max(self.ceiling_soak, self.soak)
        return max(DAILY_CYCLE, self.soak) if self.deadline > DAILY_CYCLE else self.soak

    @model_validator(mode="after")
    def _ceiling_in_time(self) -> Canary:
        if self.ceiling_soak is not None and self.ceiling_soak >= self.deadline:
            raise ValueError("ceiling_soak must be shorter than deadline, or no ceiling can certify in time")
        return self

    @model_validator(mode="after")
    def _steps_rise(self) -> Canary:
        percents = [step.percent for step in self.steps]
        if percents != sorted(set(percents)):
            raise ValueError(f"steps must rise; got {', '.join(f'{p:g}' for p in percents)} percent")
        return self
