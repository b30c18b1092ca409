from __future__ import annotations

from genai_operators.compute import owners
from genai_operators.compute.owners import Owner
from genai_operators.store import Store

DIRECTORY = "workloads/fine_tune/abc"
ONE = Owner(dag_id="d", run_id="manual__2026-01-01T00:00:00+00:00", task_id="group.train")
TWO = Owner(dag_id="d", run_id="manual__2", task_id="group.train", map_index=3)


def test_only_the_last_to_leave_is_told_so(store: Store) -> None:
    owners.enter(store, DIRECTORY, ONE)
    owners.enter(store, DIRECTORY, TWO)
    assert not owners.leave(store, DIRECTORY, ONE)
    assert owners.leave(store, DIRECTORY, TWO)


def test_a_retry_is_the_same_owner(store: Store) -> None:
    owners.enter(store, DIRECTORY, ONE)
    owners.enter(store, DIRECTORY, ONE)
    assert owners.leave(store, DIRECTORY, ONE)


def test_the_index_keeps_who_left_until_it_is_told_to_forget(store: Store) -> None:
    owners.enter(store, DIRECTORY, ONE)
    owners.enter(store, DIRECTORY, TWO)
    owners.leave(store, DIRECTORY, ONE)
    assert set(owners.active(store)) == {(DIRECTORY, ONE), (DIRECTORY, TWO)}
    owners.forget(store, DIRECTORY, ONE)
    assert set(owners.active(store)) == {(DIRECTORY, TWO)}


def test_a_mapped_task_is_another_owner() -> None:
    assert Owner(dag_id="d", run_id="r", task_id="t").key != Owner(dag_id="d", run_id="r", task_id="t", map_index=0).key


def test_json_round_trip() -> None:
    assert Owner.from_json(TWO.to_json()) == TWO
