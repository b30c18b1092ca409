"""Which batches of captured traffic a task run reads. Chosen once a run, so that a retry meets the same workload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genai_operators.serving import batches
from genai_operators.workloads.traffic import TrafficWindow

if TYPE_CHECKING:
    from genai_operators.store import Store


def feedback_window(store: Store, model: str, *, after: int | None, owner: str) -> TrafficWindow | None:
    """The batches since those that the champion learnt from; ``None`` when there are none.

    :param after: number of the last batch that the champion learnt from.
    :param owner: key of the task run.
    """
    newest = batches.next_number(store, model) - 1
    return _pinned(store, model, owner=owner, first=0 if after is None else after + 1, last=newest)


def first_batch_since(store: Store, model: str, *, since: float) -> int:
    """Number of the first batch whose traffic arrived at or after ``since`` (seconds since the epoch); the number that
    the next batch will have where there is none.

    Batches are in the order of time, so it is found by halving: a few small reads, however many there are.
    """
    low, high = 0, batches.next_number(store, model)
    while low < high:
        middle = (low + high) // 2
        if _time_of(store, model, middle) < since:
            low = middle + 1
        else:
            high = middle
    return low


def _pinned(store: Store, model: str, *, owner: str, first: int, last: int) -> TrafficWindow | None:
    """The window of this run: the one chosen by its first try, whatever has arrived since."""
    path = f"{batches.ROOT}/{model}/windows/{owner}.json"
    store.create_json(path, {"first": first, "last": last})
    chosen = store.get_json(path)
    return TrafficWindow(first=chosen["first"], last=chosen["last"]) if chosen["first"] <= chosen["last"] else None


def _time_of(store: Store, model: str, number: int) -> float:
    """When the traffic of a batch arrived: the time of its last record."""
    records = batches.read_batch(store, model, "facts", number) or []
    times = [record.get("arrived_at", record.get("at")) for record in records]
    return float(max((moment for moment in times if moment is not None), default=0.0))
