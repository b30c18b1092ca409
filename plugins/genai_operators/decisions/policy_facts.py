"""What the policy is told: the world as it is, and what was tried before. Plain records that serialise and replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from genai_operators.exceptions import ConfigurationError, DataError


class Trigger(StrEnum):
    """Why one would retrain, the most urgent first. ``REQUEST`` is somebody's wish or a fixed time, never a reason."""

    FEEDBACK = "feedback"
    DRIFT = "drift"
    DATA = "data"
    AGE = "age"
    REQUEST = "request"


class AttemptOutcome(StrEnum):
    """How a retraining ended. Only ``HELPED`` releases its trigger at once."""

    RUNNING = "running"
    HELPED = "helped"  # promoted, and what triggered it is gone
    NO_HELP = "no_help"  # rejected, rolled back, or promoted and the trigger is still there
    BROKEN = "broken"  # never got so far: no hardware, a lost node, a full disk


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One retraining. :param cost: in the budget's currency."""

    at: datetime
    trigger: Trigger
    outcome: AttemptOutcome
    cost: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trained and evaluated version that is not released yet.

    :param base_epoch: the champion's epoch that it was evaluated against; another champion makes it stale.
    """

    version: str
    base_epoch: int
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The world at one moment.

    :param now: with a time zone.
    :param champion_epoch: of the ledger; None without a champion.
    :param trained_at: when the champion was trained.
    :param drift: is a drift alarm running?
    :param wrong: answers that users called wrong since the champion's promotion, out of ``rated``.
    :param usual_wrong_share: share of wrong answers that the champion had when it was promoted, 0..1.
    :param new_rows: labelled rows that no model has been trained on.
    :param release_running: is a release in progress?
    :param rolled_back_at: when a release was last rolled back.
    """

    now: datetime
    champion_epoch: int | None
    trained_at: datetime | None
    drift: bool = False
    wrong: int = 0
    rated: int = 0
    usual_wrong_share: float = 0.0
    new_rows: int = 0
    candidate: Candidate | None = None
    release_running: bool = False
    rolled_back_at: datetime | None = None

    def __post_init__(self) -> None:
        for name in ("now", "trained_at", "rolled_back_at"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise DataError(f"policy facts: {name} is {moment.isoformat()}, without a time zone")
        if not 0 <= self.wrong <= self.rated or self.new_rows < 0:
            raise DataError(
                f"policy facts: {self.wrong} wrong of {self.rated} rated and {self.new_rows} new rows cannot be"
            )
        if not 0 <= self.usual_wrong_share <= 1:
            raise DataError(f"policy facts: usual_wrong_share is {self.usual_wrong_share}, not a share")
        if self.trained_at is not None and self.trained_at > self.now:
            raise DataError(f"policy facts: the champion was trained at {self.trained_at}, after now, {self.now}")


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """When retraining is worth it, and how often it may be.

    :param minimum_new_rows: labelled rows without which drift and feedback cannot be acted on; 0 where users teach
        nothing, and new rows come another way.
    :param data_rows: labelled rows that are a reason by themselves.
    :param maximum_age: of the champion's training; then it is retrained even if nothing happened.
    :param feedback_margin: how much the share of wrong answers must be proved to have risen.
    :param minimum_rated: answers that users rated, below which their share says nothing.
    :param cool_down: between any two retrainings.
    :param block: after a retraining that did not help, for its trigger; doubles with each further one.
    :param longest_block: no trigger is blocked for longer, so that none starves.
    :param budget_window: over which the two budgets count.
    :param retrainings: in one budget window. :param budget: cost in one budget window; None is no limit.
    :param release_pause: after a release was rolled back, before the next starts.
    """

    minimum_new_rows: int = 100
    data_rows: int = 5_000
    maximum_age: timedelta = timedelta(days=90)
    feedback_margin: float = 0.05
    minimum_rated: int = 50
    cool_down: timedelta = timedelta(days=1)
    block: timedelta = timedelta(days=3)
    longest_block: timedelta = timedelta(days=30)
    budget_window: timedelta = timedelta(days=30)
    retrainings: int = 6
    budget: float | None = None
    release_pause: timedelta = timedelta(hours=1)

    def __post_init__(self) -> None:
        wrong = [
            name
            for name in ("maximum_age", "cool_down", "block", "longest_block", "budget_window")
            if getattr(self, name) <= timedelta(0)
        ]
        if wrong or self.retrainings < 1 or self.minimum_new_rows < 0 or self.data_rows < 1 or self.minimum_rated < 1:
            raise ConfigurationError(f"retraining policy: {wrong or 'counts'} must be above zero")
        if self.longest_block < self.block:
            raise ConfigurationError(
                f"retraining policy: longest_block {self.longest_block} is below block {self.block}"
            )
        if self.budget is not None and self.budget <= 0:
            raise ConfigurationError(f"retraining policy: a budget of {self.budget} never allows a retraining")


def to_json(record: Facts | Attempt | PolicySettings) -> dict[str, Any]:
    """Plain JSON types: times in ISO 8601, durations in seconds; what a decision stores to be replayed."""
    return {name: _plain(value) for name, value in asdict(record).items()}


def facts_from_json(record: Mapping[str, Any]) -> Facts:
    """What :func:`to_json` made of facts. :raises DataError: a record that is not one."""
    try:
        candidate = record["candidate"]
        moments = {name: _moment(record[name]) for name in ("now", "trained_at", "rolled_back_at")}
        return Facts(**{**record, **moments, "candidate": Candidate(**candidate) if candidate else None})
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"not the facts of a policy decision: {error!r}") from error


def attempt_from_json(record: Mapping[str, Any]) -> Attempt:
    """What :func:`to_json` made of an attempt. :raises DataError: a record that is not one."""
    try:
        return Attempt(
            at=datetime.fromisoformat(record["at"]),
            trigger=Trigger(record["trigger"]),
            outcome=AttemptOutcome(record["outcome"]),
            cost=float(record["cost"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"not an attempt of a policy's history: {error!r}") from error


def settings_from_json(record: Mapping[str, Any]) -> PolicySettings:
    """What :func:`to_json` made of settings. :raises DataError: a record that is not one."""
    lengths = {field.name for field in fields(PolicySettings) if isinstance(field.default, timedelta)}
    values: dict[str, Any] = {
        name: timedelta(seconds=value) if name in lengths else value for name, value in record.items()
    }
    try:
        return PolicySettings(**values)
    except TypeError as error:
        raise DataError(f"not the settings of a policy: {error!r}") from error


def _moment(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, timedelta) else value
