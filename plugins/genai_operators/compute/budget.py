"""What a workload has cost: a record for each pod of each attempt, the sum over all, and the limit.

``attempts/<n>/usage/<pod>.json`` is written anew while the pod runs; the record with the most seconds is the newest.
``usage.json`` of the workload is the sum, written when somebody's waiting ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from genai_operators.compute.backends import BackendOf
from genai_operators.compute.contract import RECORD_VERSION, Attempt
from genai_operators.compute.resources import Usage
from genai_operators.store import Store

#: Usage of a running attempt is asked for this often.
USAGE_INTERVAL_S = 10.0
USAGE_FOLDER = "usage"
TOTAL_NAME = "usage.json"
#: Why an attempt is asked to stop.
SPENT = "its budget is spent"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The most that a workload may cost, over all its attempts. At the limit it checkpoints and stops."""

    max_cost: float
    currency: str = ""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The sum over all pods of all attempts. ``cost`` is in the price list's currency; unknown prices count nothing."""

    cost: float = 0.0
    gpu_hours: float = 0.0
    pods: int = 0
    currency: str = ""

    def describe(self) -> str:
        """In a few words, for the log."""
        return f"spent {self.cost:.2f} {self.currency}".rstrip() + f" for {self.gpu_hours:.2f} GPU-hours"

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Spent:
        """From ``usage.json``."""
        return cls(
            cost=float(record["cost"]),
            gpu_hours=float(record["gpu_hours"]),
            pods=int(record["pods"]),
            currency=record["currency"],
        )

    def to_json(self) -> dict[str, Any]:
        """The content of ``usage.json``."""
        return {
            "version": RECORD_VERSION,
            "cost": round(self.cost, 6),
            "currency": self.currency,
            "gpu_hours": round(self.gpu_hours, 6),
            "pods": self.pods,
        }


def usages(attempt: Attempt) -> list[Usage]:
    """What was recorded of an attempt, by pod."""
    folder = attempt.path(USAGE_FOLDER)
    records = (attempt.store.find_json(f"{folder}/{name}") for name in attempt.store.list_names(folder))
    return [Usage.from_json(record) for record in records if record is not None]


def total(records: Iterable[Usage], *, currency: str) -> Spent:
    """The sum."""
    found = list(records)
    return Spent(
        cost=sum(usage.cost for usage in found),
        gpu_hours=sum(usage.gpu_hours for usage in found),
        pods=len(found),
        currency=currency,
    )


def find_spent(store: Store, directory: str) -> Spent | None:
    """What ``usage.json`` says; ``None`` where the workload cost nothing that is known."""
    record = store.find_json(f"{directory}/{TOTAL_NAME}")
    return None if record is None else Spent.from_json(record)


def last_recorded(attempt: Attempt) -> float:
    """When its usage was last written down, in seconds since the epoch; 0 if it never was."""
    infos = attempt.store.list(attempt.path(USAGE_FOLDER))
    return max((info.last_modified.timestamp() for info in infos), default=0.0)


class Meter:
    """Keeps the usage of one workload. What it holds in memory can be read again from the store at any time."""

    def __init__(
        self, store: Store, directory: str, *, backend_of: BackendOf, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._directory = directory
        self._backend_of = backend_of
        self._monotonic = monotonic
        self._known: dict[int, dict[str, Usage]] = {}
        self._currency = ""
        self._asked: tuple[int, float] | None = None

    def record(self, attempt: Attempt, *, now: bool = False) -> None:
        """Write down what the attempt has used so far, if it is time to ask. :param now: it is."""
        if not now and self._asked is not None:
            number, at = self._asked
            if number == attempt.number and self._monotonic() - at < USAGE_INTERVAL_S:
                return
        self._asked = (attempt.number, self._monotonic())
        self._currency = attempt.resources.currency or self._currency
        known = self._of(attempt)
        for usage in self._backend_of(attempt).usage(attempt):
            before = known.get(usage.pod)
            if before is None or usage.seconds > before.seconds or usage.ended > before.ended:
                known[usage.pod] = usage
                self._store.put_json(attempt.path(f"{USAGE_FOLDER}/{usage.pod}.json"), usage.to_json())

    def spent(self, newest: Attempt) -> Spent:
        """The sum over the attempts up to ``newest``."""
        records: list[Usage] = []
        for number in range(1, newest.number + 1):
            attempt = Attempt(store=self._store, directory=self._directory, number=number)
            records.extend(self._of(attempt).values())
        return total(records, currency=self._currency)

    def write_total(self, newest: Attempt) -> Spent | None:
        """Write ``usage.json``. ``None``, and nothing written, where nothing was recorded."""
        spent = self.spent(newest)
        if not spent.pods:
            return None
        self._store.put_json(f"{self._directory}/{TOTAL_NAME}", spent.to_json())
        return spent

    def _of(self, attempt: Attempt) -> dict[str, Usage]:
        if attempt.number not in self._known:
            self._known[attempt.number] = {usage.pod: usage for usage in usages(attempt)}
        return self._known[attempt.number]
