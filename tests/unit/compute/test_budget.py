from __future__ import annotations

import pytest

from genai_operators.compute.backends import BackendOf
from genai_operators.compute.budget import USAGE_INTERVAL_S, Meter, find_spent, usages
from genai_operators.compute.contract import Attempt
from genai_operators.compute.resources import Usage
from genai_operators.store import Store
from tests.fakes.backend import FakeBackend

DIRECTORY = "workloads/fine_tune/abc"


def pod(name: str, *, hours: float, ended: bool = False, price: float | None = 2.0, gpus: int = 4) -> Usage:
    return Usage(pod=name, gpu_count=gpus, seconds=hours * 3600, ended=ended, price_per_hour=price)


class Metered:
    """Attempts whose backend says what they used, and a meter with a clock of its own."""

    def __init__(self, store: Store) -> None:
        self.store, self.backend, self.now = store, FakeBackend(), 0.0
        self.meter = self.another()

    def another(self) -> Meter:
        return Meter(self.store, DIRECTORY, backend_of=BackendOf(self.backend), monotonic=lambda: self.now)

    def attempt(self, number: int = 1) -> Attempt:
        claim = {"backend": {"target": "local"}, "resources": {"currency": "USD"}}
        return Attempt(store=self.store, directory=DIRECTORY, number=number, claim=claim)

    def use(self, number: int, *used: Usage) -> None:
        self.backend.used[number] = list(used)
        self.meter.record(self.attempt(number), now=True)


@pytest.fixture
def metered(store: Store) -> Metered:
    return Metered(store)


def test_all_pods_of_all_attempts_are_counted_once(metered: Metered) -> None:
    metered.use(1, pod("a", hours=1))
    metered.use(1, pod("a", hours=2, ended=True), pod("b", hours=0.5))
    metered.use(2, pod("c", hours=1))
    spent = metered.meter.spent(metered.attempt(2))
    assert (spent.cost, spent.gpu_hours, spent.pods, spent.currency) == (7.0, 14.0, 3, "USD")


def test_a_pod_that_the_platform_forgot_still_counts_for_whoever_comes_next(metered: Metered) -> None:
    metered.use(1, pod("a", hours=2))
    metered.backend.used.clear()
    assert metered.another().spent(metered.attempt(1)).cost == 4.0


def test_the_record_with_the_most_seconds_is_the_newest(metered: Metered) -> None:
    metered.use(1, pod("a", hours=2))
    metered.use(1, pod("a", hours=1))
    assert usages(metered.attempt(1)) == [pod("a", hours=2)]


def test_the_platform_is_not_asked_at_every_look(metered: Metered) -> None:
    metered.use(1, pod("a", hours=1))
    metered.backend.used[1] = [pod("a", hours=2)]
    metered.meter.record(metered.attempt(1))
    assert metered.meter.spent(metered.attempt(1)).cost == 2.0
    metered.now += USAGE_INTERVAL_S
    metered.meter.record(metered.attempt(1))
    assert metered.meter.spent(metered.attempt(1)).cost == 4.0


def test_an_unknown_price_costs_nothing_but_hours(metered: Metered) -> None:
    metered.use(1, pod("a", hours=1, price=None))
    spent = metered.meter.spent(metered.attempt(1))
    assert (spent.cost, spent.gpu_hours) == (0.0, 4.0)


def test_the_total_is_written_for_the_result_the_registry_and_the_page(metered: Metered) -> None:
    metered.use(1, pod("a", hours=1.5))
    written = metered.meter.write_total(metered.attempt(1))
    assert written is not None
    assert find_spent(metered.store, DIRECTORY) == written
    assert written.describe() == "spent 3.00 USD for 6.00 GPU-hours"


def test_where_nothing_is_known_nothing_is_written(metered: Metered) -> None:
    metered.meter.record(metered.attempt(1), now=True)
    assert metered.meter.write_total(metered.attempt(1)) is None
    assert find_spent(metered.store, DIRECTORY) is None
