from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from genai_operators.compute import attempts, owners
from genai_operators.compute.cancelling import withdraw
from genai_operators.compute.contract import Artifact, Attempt, Result, Workload
from genai_operators.compute.owners import Owner
from genai_operators.exceptions import ManifestMismatch, ObjectNotFound, WorkloadFailed
from genai_operators.store import Store
from tests.fakes.backend import FakeBackend

WORKLOAD = Workload(kind="fine_tune", params={"seed": 1})
DIRECTORY = WORKLOAD.directory
ONE = Owner(dag_id="d", run_id="one", task_id="t")
TWO = Owner(dag_id="d", run_id="two", task_id="t")


def claim(store: Store, number: int = 1) -> Attempt | None:
    return attempts.claim(store, DIRECTORY, number=number, backend={"target": "local"}, owner=ONE, step=-1, stalls=0)


def claimed(store: Store, number: int = 1) -> Attempt:
    attempt = claim(store, number)
    assert attempt is not None
    return attempt


def finish(store: Store, **more: object) -> None:
    record = {"version": 1, "attempt": 1, "outputs": {}, **more}
    assert store.create_json(f"{DIRECTORY}/result.json", record)


class TestClaim:
    def test_one_of_many_racers_gets_it(self, store: Store) -> None:
        with ThreadPoolExecutor(8) as pool:
            for number in range(1, 11):
                won = list(pool.map(lambda _, n=number: claim(store, n), range(8)))
                assert sum(attempt is not None for attempt in won) == 1

    def test_the_newest_is_found_from_anywhere(self, store: Store) -> None:
        assert attempts.newest_attempt(store, DIRECTORY) is None
        first = claimed(store, 1)
        claimed(store, 2)
        for known in (None, first):
            newest = attempts.newest_attempt(store, DIRECTORY, known=known)
            assert newest is not None
            assert newest.number == 2


class TestJoin:
    def test_a_newcomer_is_written_down(self, store: Store) -> None:
        joined = attempts.join(store, WORKLOAD, ONE)
        assert (joined.after, joined.result, joined.returning) == (0, None, False)
        assert owners.is_owner(store, DIRECTORY, ONE)
        assert store.get_json(f"{DIRECTORY}/spec.json")["params"] == {"seed": 1}

    def test_a_retry_is_recognised(self, store: Store) -> None:
        attempts.join(store, WORKLOAD, ONE)
        assert attempts.join(store, WORKLOAD, ONE).returning

    def test_one_that_finds_a_result_owns_nothing(self, store: Store) -> None:
        finish(store)
        joined = attempts.join(store, WORKLOAD, ONE)
        assert joined.result == Result(attempt=1)
        assert not owners.is_owner(store, DIRECTORY, ONE)

    @pytest.mark.parametrize(("record", "after"), [(None, 0), ("exit.json", 1), ("cancel.json", 1)])
    def test_what_failed_or_was_told_to_stop_is_history(self, store: Store, record: str | None, after: int) -> None:
        attempt = claimed(store)
        if record:
            store.create_json(attempt.path(record), {"code": 1})
        assert attempts.join(store, WORKLOAD, ONE).after == after

    def test_a_result_whose_output_is_gone_is_not_reused(self, store: Store) -> None:
        finish(store, outputs={"model": {"uri": store.uri_of("gone"), "digest": "x"}})
        with pytest.raises(ObjectNotFound, match="reuse=False"):
            attempts.join(store, WORKLOAD, ONE)

    def test_a_result_whose_output_was_changed_is_not_reused(self, store: Store) -> None:
        store.put_json("model/MANIFEST.json", {"version": 1, "files": {}})
        artifact = Artifact(uri=store.uri_of("model"), digest="something else")
        finish(store, outputs={"model": artifact.to_json()})
        with pytest.raises(ManifestMismatch, match="changed"):
            attempts.join(store, WORKLOAD, ONE)


class TestEnding:
    def test_nothing_recorded_means_it_may_run(self, store: Store) -> None:
        attempt = claimed(store)
        assert attempts.recorded_ending(attempt) is None
        FakeBackend().begin(attempt)
        assert attempts.recorded_ending(attempt) is None

    def test_one_that_never_began_and_never_will_has_ended(self, store: Store) -> None:
        attempt = claimed(store)
        assert attempts.abandon(attempt, reason="late")
        ending = attempts.recorded_ending(attempt)
        assert ending is not None
        assert ending.code == 75

    def test_one_that_began_cannot_be_abandoned(self, store: Store) -> None:
        attempt = claimed(store)
        FakeBackend().begin(attempt)
        assert not attempts.abandon(attempt, reason="late")
        assert attempts.recorded_ending(attempt) is None

    def test_giving_up_does_not_change_an_end_that_is_written(self, store: Store) -> None:
        attempt = claimed(store)
        FakeBackend().end(attempt, code=65)
        attempts.give_up(attempt, WorkloadFailed("late"))
        ending = attempts.recorded_ending(attempt)
        assert ending is not None
        assert ending.code == 65


class TestWithdraw:
    def test_the_last_owner_cancels(self, store: Store) -> None:
        for owner in (ONE, TWO):
            attempts.join(store, WORKLOAD, owner)
        attempt = claimed(store)
        FakeBackend().begin(attempt)
        assert not withdraw(store, DIRECTORY, ONE, reason="enough")
        assert not attempts.is_cancelled(attempt)
        assert withdraw(store, DIRECTORY, TWO, reason="enough")
        assert attempts.is_cancelled(attempt)

    def test_what_has_ended_is_not_cancelled(self, store: Store) -> None:
        attempts.join(store, WORKLOAD, ONE)
        attempt = claimed(store)
        FakeBackend().end(attempt, code=1)
        assert not withdraw(store, DIRECTORY, ONE, reason="enough")
        assert not attempts.is_cancelled(attempt)
        assert list(owners.active(store)) == []

    def test_what_was_claimed_but_never_launched_will_not_begin(self, store: Store) -> None:
        attempts.join(store, WORKLOAD, ONE)
        attempt = claimed(store)
        assert withdraw(store, DIRECTORY, ONE, reason="enough")
        assert attempts.recorded_ending(attempt) is not None

    def test_the_index_keeps_a_workload_that_is_still_stopping(self, store: Store) -> None:
        attempts.join(store, WORKLOAD, ONE)
        FakeBackend().begin(claimed(store))
        withdraw(store, DIRECTORY, ONE, reason="enough")
        assert list(owners.active(store)) == [(DIRECTORY, ONE)]


def test_a_checkpoint_counts_once_its_manifest_is_there(store: Store) -> None:
    assert attempts.newest_checkpoint_step(store, DIRECTORY) == -1
    for attempt, step in ((1, 50), (2, 100), (2, 90)):
        store.put_json(f"{DIRECTORY}/attempts/{attempt}/checkpoints/{step}/MANIFEST.json", {})
    store.put(f"{DIRECTORY}/attempts/2/checkpoints/200/model.safetensors", b"")
    assert attempts.newest_checkpoint_step(store, DIRECTORY) == 100
