from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from genai_operators.compute import attempts
from genai_operators.compute.cancelling import withdraw
from genai_operators.compute.contract import UNREACHABLE, Attempt, Phase, Probe, Workload
from genai_operators.compute.driver import FINISH_S, RELAUNCH_S, Driver
from genai_operators.compute.liveness import LOST_AFTER_S, STALE_AFTER_S
from genai_operators.compute.owners import Owner
from genai_operators.compute.patience import CANCEL_PATIENCE_S
from genai_operators.compute.standing import Limits, Settled, Status
from genai_operators.exceptions import ConfigurationError
from genai_operators.store import Store
from tests.fakes.backend import FakeBackend

WORKLOAD = Workload(kind="fine_tune", params={"seed": 1})
DIRECTORY = WORKLOAD.directory


class Scene:
    """A workload, its backend, a clock, and the driver of one owner."""

    def __init__(self, store: Store, **limits: Any) -> None:
        self.store = store
        self.backend = FakeBackend()
        self.now = 1000.0
        self.limits = limits
        self.driver = self.another_driver()

    def another_driver(self, name: str = "one") -> Driver:
        owner = Owner(dag_id="d", run_id=name, task_id="t")
        joined = attempts.join(self.store, WORKLOAD, owner)
        return Driver(
            store=self.store,
            directory=DIRECTORY,
            backend=self.backend,
            owner=owner,
            after=joined.after,
            limits=Limits(**self.limits),
            monotonic=lambda: self.now,
        )

    def attempt(self, number: int = 1) -> Attempt:
        return Attempt(store=self.store, directory=DIRECTORY, number=number)

    def newest(self) -> int:
        attempt = attempts.newest_attempt(self.store, DIRECTORY)
        return attempt.number if attempt else 0

    def begun(self, number: int = 1, *, at: float | None = None) -> Attempt:
        """The driver has claimed and launched the attempt, and its supervisor is up."""
        while self.newest() < number:
            self.driver.advance()
        self.backend.begin(self.attempt(number), at=at)
        return self.attempt(number)

    def checkpoint(self, number: int, step: int) -> None:
        self.store.put_json(f"{self.attempt(number).prefix}/checkpoints/{step}/MANIFEST.json", {})

    def change_claim(self, number: int, change: Mapping[str, Any]) -> None:
        path = self.attempt(number).path("claim.json")
        self.store.put_json(path, {**self.store.get_json(path), **change})

    def finish(self, number: int) -> None:
        self.store.create_json(f"{DIRECTORY}/result.json", {"version": 1, "attempt": number})

    def settled(self) -> Settled:
        settled = self.driver.advance().settled
        assert settled is not None
        return settled


@pytest.fixture
def scene(store: Store) -> Scene:
    return Scene(store)


class TestExactlyOneAttempt:
    def test_two_drivers_claim_one(self, scene: Scene) -> None:
        other = scene.another_driver("two")
        for _ in range(3):
            scene.driver.advance()
            other.advance()
        assert scene.newest() == 1
        assert scene.backend.launched == [1]

    def test_none_is_claimed_while_one_lives(self, scene: Scene) -> None:
        scene.begun()
        for _ in range(5):
            scene.now += 10 * STALE_AFTER_S
            assert scene.driver.advance().phase is Phase.RUNNING
        assert scene.newest() == 1

    def test_none_is_claimed_while_the_heartbeat_of_a_vanished_one_moves(self, scene: Scene) -> None:
        attempt = scene.begun()
        scene.backend.vanish(attempt)
        for beat in range(1, 5):
            scene.backend.beat(attempt, beat)
            scene.driver.advance()
            scene.now += STALE_AFTER_S / 2
        assert scene.newest() == 1

    def test_the_next_is_claimed_once_it_is_gone_and_silent(self, scene: Scene) -> None:
        attempt = scene.begun()
        scene.backend.vanish(attempt)
        scene.driver.advance()
        assert scene.newest() == 1
        scene.now += STALE_AFTER_S
        standing = scene.driver.advance()
        assert scene.newest() == 2
        assert "attempt 1 ended" in standing.news[0]

    def test_where_nobody_can_look_only_the_lease_is_proof(self, scene: Scene) -> None:
        scene.begun()
        scene.backend.probes[1] = Probe(Phase.RUNNING, UNREACHABLE)
        scene.driver.advance()
        scene.now += LOST_AFTER_S - 1
        scene.driver.advance()
        assert scene.newest() == 1
        scene.now += 2
        scene.driver.advance()
        assert scene.newest() == 2

    def test_a_claimed_one_that_nobody_launched_is_launched_by_whoever_comes_next(self, scene: Scene) -> None:
        attempts.claim(
            scene.store, DIRECTORY, number=1, backend={"target": "local"}, owner=None, step=-1, stalls=0
        )  # and its claimer died
        scene.driver.advance()
        assert scene.backend.launched == []  # it may be on its way
        scene.change_claim(1, {"at": time.time() - RELAUNCH_S - 1})
        scene.another_driver("two").advance()
        assert scene.backend.launched == [1]
        assert scene.newest() == 1


class TestResume:
    def test_a_stop_that_can_be_resumed_costs_the_task_nothing(self, scene: Scene) -> None:
        scene.backend.stop_resumably(scene.begun())
        scene.checkpoint(1, 40)
        standing = scene.driver.advance()
        assert standing.settled is None
        assert standing.attempt == 2
        assert "step 40" in standing.news[1]

    def test_gives_up_when_resuming_brings_nothing(self, store: Store) -> None:
        scene = Scene(store, resumes_without_progress=2)
        scene.checkpoint(1, 40)
        for number in (1, 2, 3):
            scene.backend.stop_resumably(scene.begun(number), code=-9)
            scene.checkpoint(number, 40)
        # Attempt 1 reached step 40; 2 and 3 did not get past it.
        scene.driver.advance()
        scene.backend.stop_resumably(scene.begun(4), code=-9)
        settled = scene.settled()
        assert settled.error == "NoProgress"
        assert "step 40" in settled.message
        assert scene.newest() == 4

    def test_goes_on_for_ever_while_each_brings_something(self, store: Store) -> None:
        scene = Scene(store, resumes_without_progress=1)
        for number in range(1, 8):
            scene.backend.stop_resumably(scene.begun(number), code=-9)
            scene.checkpoint(number, number)
        assert scene.driver.advance().attempt == 8

    def test_after_giving_up_a_new_try_begins_afresh(self, store: Store) -> None:
        scene = Scene(store, resumes_without_progress=0)
        scene.backend.stop_resumably(scene.begun(1), code=-9)
        assert scene.settled().error == "NoProgress"
        standing = scene.another_driver().advance()
        assert standing.settled is None
        assert standing.attempt == 2


class TestFailure:
    def test_is_told_with_its_class(self, scene: Scene) -> None:
        scene.backend.end(scene.begun(), code=65, error="DataError", message="line 7")
        settled = scene.settled()
        assert (settled.status, settled.error) == (Status.FAILED, "DataError")
        assert "line 7" in settled.message

    def test_everybody_who_waits_hears_of_it(self, scene: Scene) -> None:
        other = scene.another_driver("two")
        scene.backend.end(scene.begun(), code=65)
        assert scene.settled() == other.advance().settled

    def test_a_new_try_begins_the_next_attempt(self, scene: Scene) -> None:
        scene.backend.end(scene.begun(), code=1)
        assert scene.settled().error == "WorkloadFailed"
        standing = scene.another_driver().advance()
        assert standing.settled is None
        assert standing.attempt == 2

    def test_exit_code_zero_without_a_result_is_one(self, scene: Scene) -> None:
        scene.backend.end(scene.begun(), code=0)
        assert "no result.json" in scene.settled().message

    def test_a_launch_that_cannot_work_ends_the_attempt(self, scene: Scene) -> None:
        scene.backend.launch_error = ConfigurationError("no python")
        assert scene.settled().error == "ConfigurationError"
        assert attempts.recorded_ending(scene.attempt()) is not None
        assert scene.backend.stopped == [1], "half of it may be there"


class TestResult:
    def test_settles_once_its_process_has_ended(self, scene: Scene) -> None:
        attempt = scene.begun()
        scene.finish(1)
        assert scene.driver.advance().settled is None
        scene.backend.end(attempt, code=0)
        assert scene.settled().status is Status.SUCCEEDED

    def test_does_not_wait_for_ever_for_a_process_that_hangs_at_its_end(self, scene: Scene) -> None:
        attempt = scene.begun()
        scene.finish(1)
        scene.driver.advance()
        scene.now += FINISH_S
        assert scene.settled().status is Status.SUCCEEDED
        assert attempts.is_cancelled(attempt)

    def test_wins_over_a_bad_exit_code(self, scene: Scene) -> None:
        attempt = scene.begun()
        scene.finish(1)
        scene.backend.end(attempt, code=-11)
        assert scene.settled().status is Status.SUCCEEDED

    def test_of_a_zombie_stands_and_the_attempt_after_it_is_stopped(self, scene: Scene) -> None:
        scene.backend.stop_resumably(scene.begun(1))
        scene.begun(2)
        scene.finish(1)
        assert scene.settled().status is Status.SUCCEEDED
        assert attempts.is_cancelled(scene.attempt(2))


class TestCancel:
    def test_one_who_was_taken_off_the_owners_starts_nothing(self, scene: Scene) -> None:
        scene.begun()
        withdraw(scene.store, DIRECTORY, Owner(dag_id="d", run_id="one", task_id="t"), reason="marked failed")
        scene.backend.stop_resumably(scene.attempt())
        settled = scene.settled()
        assert (settled.status, settled.error) == (Status.CANCELLED, "WorkloadCancelled")
        assert scene.newest() == 1

    def test_one_who_came_while_it_was_stopping_waits_and_resumes(self, scene: Scene) -> None:
        attempt = scene.begun()
        withdraw(scene.store, DIRECTORY, Owner(dag_id="d", run_id="one", task_id="t"), reason="marked failed")
        late = scene.another_driver("two")
        assert late.advance().phase is Phase.RUNNING
        scene.backend.stop_resumably(attempt)
        assert late.advance().attempt == 2

    def test_an_owner_who_still_wants_it_resumes_what_somebody_else_stopped(self, scene: Scene) -> None:
        attempt = scene.begun()
        attempts.request_cancel(attempt, reason="the machine is needed")
        scene.backend.stop_resumably(attempt)
        assert scene.driver.advance().attempt == 2

    def test_who_does_not_obey_is_killed(self, scene: Scene) -> None:
        attempt = scene.begun()
        scene.store.create_json(attempt.path("cancel.json"), {"at": time.time() - CANCEL_PATIENCE_S - 1})
        scene.driver.advance()
        assert scene.backend.stopped == [1]


class TestPhaseTimeouts:
    def late(self, scene: Scene) -> None:
        scene.driver.advance()
        scene.change_claim(1, {"at": time.time() - 100})
        scene.driver = scene.another_driver()

    def test_starting(self, store: Store) -> None:
        scene = Scene(store, starting_s=50)
        self.late(scene)
        assert scene.settled().error == "WorkloadFailed"
        assert not scene.store.create_json(scene.attempt().path("started.json"), {}), "it could still begin"

    def test_queued(self, store: Store) -> None:
        scene = Scene(store, queued_s=50)
        self.late(scene)
        scene.backend.probes[1] = Probe(Phase.QUEUED, detail="3 jobs before it")
        settled = scene.settled()
        assert settled.error == "QuotaExceeded"
        assert "3 jobs before it" in settled.message
        assert scene.backend.stopped == [1]

    def test_running(self, store: Store) -> None:
        scene = Scene(store, running_s=50)
        attempt = scene.begun(at=time.time() - 100)
        assert scene.settled().error == "WorkloadTimeout"
        assert attempts.is_cancelled(attempt)

    def test_starting_is_not_counted_against_one_that_runs(self, store: Store) -> None:
        scene = Scene(store, starting_s=50, queued_s=50)
        scene.begun()
        scene.change_claim(1, {"at": time.time() - 100})
        assert scene.another_driver().advance().phase is Phase.RUNNING
