"""The driver on a platform that replaces processes, queues jobs, and costs money."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from genai_operators.compute import attempts, backends
from genai_operators.compute.budget import USAGE_INTERVAL_S, Budget, Spent, find_spent
from genai_operators.compute.cancelling import withdraw
from genai_operators.compute.contract import Attempt, Phase, Probe, Workload
from genai_operators.compute.driver import NO_ROOM_RELAUNCH_S, Driver
from genai_operators.compute.liveness import STALE_AFTER_S, VANISHED_AFTER_S
from genai_operators.compute.owners import Owner
from genai_operators.compute.patience import SILENT_S
from genai_operators.compute.resources import GIB, Resources, Usage
from genai_operators.compute.standing import Limits, Settled, Standing, Status
from genai_operators.compute.supervisor import LEASE_S
from genai_operators.exceptions import ClusterUnavailable, QuotaExceeded
from genai_operators.store import Store
from tests.fakes.backend import FakeCluster

WORKLOAD = Workload(kind="fine_tune", params={"seed": 1})
DIRECTORY = WORKLOAD.directory
L4 = Resources(gpu="l4", gpu_count=1, memory_bytes=16 * GIB, price_per_hour=1.0, currency="USD")
H100 = Resources(gpu="h100", gpu_count=1, memory_bytes=32 * GIB, price_per_hour=4.0, currency="USD")


class Scene:
    """A workload on a cluster, a clock, and the driver of one owner."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now = 1000.0
        self.cluster = FakeCluster(name=store.uri)
        self.news: list[str] = []
        self.drive()

    def drive(self, name: str = "one", *, budget: float | None = None, ladder: Any = (L4, H100), **limits: Any) -> None:
        """From here on another driver looks after it."""
        owner = Owner(dag_id="d", run_id=name, task_id="t")
        self.driver = Driver(
            store=self.store,
            directory=DIRECTORY,
            backend=self.cluster,
            owner=owner,
            after=attempts.join(self.store, WORKLOAD, owner).after,
            limits=Limits(**limits),
            ladder=ladder,
            budget=None if budget is None else Budget(max_cost=budget, currency="USD"),
            monotonic=lambda: self.now,
        )

    def step(self, *, after_s: float = 0.0) -> Standing:
        self.now += after_s
        standing = self.driver.advance()
        self.news.extend(standing.news)
        return standing

    def settled(self, *, after_s: float = 0.0) -> Settled:
        settled = self.step(after_s=after_s).settled
        assert settled is not None
        return settled

    def attempt(self, number: int = 1) -> Attempt:
        return attempts.find_attempt(self.store, DIRECTORY, number)

    def newest(self) -> int:
        attempt = attempts.newest_attempt(self.store, DIRECTORY)
        return attempt.number if attempt else 0

    def begun(self, number: int = 1) -> Attempt:
        while self.newest() < number:
            self.step()
        self.cluster.begin(self.attempt(number))
        self.step()
        return self.attempt(number)

    def fail(self, attempt: Attempt, **more: Any) -> None:
        self.cluster.end(attempt, code=1, error="OutOfMemory", **more)

    def spent(self) -> Spent:
        spent = find_spent(self.store, DIRECTORY)
        assert spent is not None
        return spent

    def asked(self, number: int) -> Resources:
        return self.cluster.asked[number]


@pytest.fixture
def scene(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(backends, "BACKENDS", {**backends.BACKENDS, "fake": "tests.fakes.backend:FakeCluster"})
    yield Scene(store)
    FakeCluster.opened.clear()


class TestTakenAway:
    def test_it_goes_on_in_the_same_attempt_however_often(self, scene: Scene) -> None:
        attempt = scene.begun()
        for number in range(1, 6):
            scene.cluster.take_away(attempt)
            assert scene.step(after_s=10 * STALE_AFTER_S).phase is Phase.PREEMPTED
            scene.cluster.replace(attempt, number=number, step=10 * number, stalls=0)
            assert scene.step().phase is Phase.RUNNING
        assert scene.newest() == 1
        assert scene.cluster.launched == [1]
        told = "attempt 1: taken away; process 6 of it goes on from the checkpoint of step 50"
        assert told in scene.news

    def test_only_when_the_platform_gives_it_up_the_next_attempt_follows(self, scene: Scene) -> None:
        attempt = scene.begun()
        scene.cluster.take_away(attempt)
        scene.step(after_s=60)
        assert scene.newest() == 1
        scene.cluster.probes[1] = Probe(Phase.FAILED, "disrupted", "its job failed", error="Preempted")
        scene.step()
        assert scene.newest() == 2

    def test_when_no_other_machine_of_its_kind_comes_the_next_of_the_plan_is_tried(self, scene: Scene) -> None:
        scene.drive(preempted_s=300)
        scene.cluster.take_away(scene.begun())
        scene.step()
        assert scene.step(after_s=290).phase is Phase.PREEMPTED
        assert scene.cluster.stopped == []
        scene.step(after_s=20)
        assert scene.cluster.stopped == [1]
        scene.cluster.probes[1] = Probe(Phase.FAILED, "deleted", "its Job was deleted")
        scene.step()
        assert scene.asked(2).gpu == "h100"

    def test_without_a_step_in_between_it_is_stopped(self, scene: Scene) -> None:
        scene.drive(resumes_without_progress=2)
        attempt = scene.begun()
        scene.cluster.replace(attempt, number=1, step=40, stalls=3)
        assert scene.step().settled is None
        assert attempts.is_cancelled(attempt)
        scene.cluster.stop_resumably(attempt)
        settled = scene.settled()
        assert settled.error == "NoProgress"
        assert "step 40" in settled.message
        assert scene.newest() == 1

    def test_stalls_within_an_attempt_count_for_the_next(self, scene: Scene) -> None:
        attempt = scene.begun()
        scene.cluster.replace(attempt, number=1, step=-1, stalls=2)
        scene.step()
        scene.cluster.stop_resumably(attempt)
        scene.step()
        assert scene.attempt(2).claim["stalls"] == 3


class TestPlatformSaysWhy:
    @pytest.mark.parametrize("error", ["NodeLost", "Preempted"])
    def test_a_machine_that_went_is_nobodys_fault(self, scene: Scene, error: str) -> None:
        scene.begun()
        scene.cluster.probes[1] = Probe(Phase.FAILED, "x", "the node is gone", error=error)
        assert scene.step(after_s=STALE_AFTER_S).settled is None
        assert scene.newest() == 2
        assert scene.asked(2) == scene.asked(1)

    def test_an_image_that_cannot_be_pulled_fails_for_everybody(self, scene: Scene) -> None:
        scene.step()
        scene.cluster.probes[1] = Probe(Phase.FAILED, "image", "no such image", error="ImagePullFailed")
        scene.step()
        settled = scene.settled(after_s=STALE_AFTER_S)
        assert (settled.error, "no such image" in settled.message) == ("ImagePullFailed", True)
        assert scene.store.get_json(scene.attempt().path("exit.json"))["error"] == "ImagePullFailed"

    def test_memory_of_the_host_is_doubled_once(self, scene: Scene) -> None:
        for number in (1, 2):
            scene.begun(number)
            killed = Probe(Phase.FAILED, "OOMKilled", "killed for its memory", error="OutOfMemory")
            scene.cluster.probes[number] = killed
            scene.step()
            standing = scene.step(after_s=STALE_AFTER_S)
        assert scene.asked(2).memory_bytes == 2 * scene.asked(1).memory_bytes
        assert standing.settled is not None
        assert standing.settled.error == "OutOfMemory"
        assert scene.newest() == 2

    def test_its_word_on_memory_counts_where_the_supervisor_saw_a_signal_only(self, scene: Scene) -> None:
        attempt = scene.begun()
        scene.cluster.beat(attempt, 9, ended=True, code=-9)
        scene.cluster.probes[1] = Probe(Phase.FAILED, "OOMKilled", "killed for its memory", error="OutOfMemory")
        scene.step()
        assert scene.asked(2).memory_bytes == 2 * scene.asked(1).memory_bytes

    @pytest.mark.parametrize("error", ["WorkloadFailed", None])  # its pod exited with 1; its pod is gone
    def test_what_another_node_told_itself_explains_an_exit_code(self, scene: Scene, error: str | None) -> None:
        scene.drive(ladder=(replace(L4, nodes=2),))
        attempt = scene.begun()
        told = {"class": "OutOfMemory", "message": "CUDA out of memory", "memory": "gpu"}
        scene.store.create_json(attempt.path("errors/0/1.json"), told)
        scene.cluster.beat(attempt, 9, ended=True, code=137, progress={"batch": 4})
        assert scene.step().settled is None
        assert scene.newest() == 1, "its pods are still there"
        scene.cluster.probes[1] = Probe(Phase.FAILED, "Error", "pod x: exit code 1", error=error)
        scene.step()
        assert scene.asked(2).micro_batch == 2

    def test_what_it_waits_for_is_news_once_each(self, scene: Scene) -> None:
        scene.step()
        for detail in ("0/3 nodes are available", "0/3 nodes are available", "pulling the image"):
            scene.cluster.probes[1] = Probe(Phase.STARTING, "pending", detail)
            scene.step()
        assert [line for line in scene.news if "(" in line] == [
            "attempt 1: starting (0/3 nodes are available)",
            "attempt 1: starting (pulling the image)",
        ]

    def test_one_that_does_not_answer_costs_no_try(self, scene: Scene) -> None:
        scene.cluster.launch_error = ClusterUnavailable("connection refused")
        assert scene.step().settled is None
        assert "connection refused" in scene.news[-1]
        scene.cluster.launch_error = None
        scene.step(after_s=60)
        assert scene.cluster.launched == [1]


class TestRemovedByForce:
    def test_the_next_begins_only_when_the_lease_of_a_process_that_may_live_on_has_run_out(self, scene: Scene) -> None:
        attempt = scene.begun()
        scene.cluster.probes[1] = Probe(Phase.FAILED, "deleted", "its Job was deleted", vouched=False)
        scene.step(after_s=LEASE_S)
        assert scene.newest() == 1
        scene.cluster.beat(attempt, 7)  # the store was away, the process was not
        scene.step(after_s=LEASE_S)
        assert scene.newest() == 1
        scene.step(after_s=VANISHED_AFTER_S)
        assert scene.newest() == 2


class TestGpuMemory:
    def test_the_micro_batch_is_halved_then_the_next_machine_is_tried(self, scene: Scene) -> None:
        for number in (1, 2, 3):
            attempt = scene.begun(number)
            scene.cluster.beat(attempt, 1, progress={"batch": 4})
            scene.fail(attempt, memory="gpu")
            assert scene.step().settled is None
        assert [scene.asked(n).micro_batch for n in (1, 2, 3)] == [None, 2, 1]
        assert (scene.asked(4).gpu, scene.asked(4).micro_batch) == ("h100", None)

    def test_the_last_words_count_before_the_heartbeat_repeats_them(self, scene: Scene) -> None:
        attempt = scene.begun()
        scene.fail(attempt, memory="gpu", beat=1, ended=True, progress={"batch": 4})
        scene.step()
        assert (scene.asked(2).gpu, scene.asked(2).micro_batch) == ("l4", 2)

    def test_at_the_end_of_the_ladder_it_fails(self, scene: Scene) -> None:
        scene.drive(ladder=(L4,))
        scene.fail(scene.begun(), memory="gpu")
        assert scene.settled().error == "OutOfMemory"

    def test_a_task_that_comes_back_does_not_begin_from_the_start(self, scene: Scene) -> None:
        attempt = scene.begun()
        scene.cluster.beat(attempt, 1, progress={"batch": 4})
        scene.fail(attempt, memory="gpu")
        scene.drive()  # the one that saw it fail was killed before it could claim
        scene.step()
        assert scene.asked(2).micro_batch == 2


class TestQueue:
    def waits(self, scene: Scene, number: int, *, for_s: float) -> None:
        queued = Probe(Phase.QUEUED, detail="quota", since=time.time() - for_s)
        scene.cluster.probes[number] = queued

    def test_too_long_in_it_tries_the_next_machine_then_fails(self, scene: Scene) -> None:
        scene.drive(queued_s=50)
        scene.step()
        self.waits(scene, 1, for_s=60)
        assert scene.step().settled is None
        assert (scene.asked(2).gpu, scene.cluster.stopped) == ("h100", [1, 1])
        self.waits(scene, 2, for_s=60)
        settled = scene.settled()
        assert (settled.error, "quota" in settled.message) == ("QuotaExceeded", True)
        assert not scene.store.create_json(scene.attempt(2).path("started.json"), {}), "it could still begin"

    def test_no_room_in_the_namespace_is_a_queue(self, scene: Scene) -> None:
        scene.cluster.launch_error = QuotaExceeded("exceeded quota: count/jobs.batch")
        scene.step()
        standing = scene.step()
        assert (standing.phase, standing.settled) == (Phase.QUEUED, None)
        assert scene.news[-1] == "attempt 1: queued (exceeded quota: count/jobs.batch)"
        scene.cluster.launch_error = None
        assert scene.step(after_s=2 * NO_ROOM_RELAUNCH_S).phase is Phase.STARTING
        assert scene.cluster.launched == [1]

    def test_too_long_without_room_tries_the_next_machine_then_fails(self, scene: Scene) -> None:
        scene.cluster.launch_error = QuotaExceeded("exceeded quota: count/jobs.batch")
        scene.drive(queued_s=50, starting_s=1)
        scene.step()
        for number in (1, 2):
            path = scene.attempt(number).path("claim.json")
            scene.store.put_json(path, {**scene.store.get_json(path), "at": time.time() - 40})
            scene.drive(queued_s=50, starting_s=1)  # another triggerer, which has not seen the refusal
            assert scene.step().phase is Phase.QUEUED
            scene.store.put_json(path, {**scene.store.get_json(path), "at": time.time() - 60})
            scene.drive(queued_s=50, starting_s=1)
            standing = scene.step()
        assert scene.attempt(2).resources == H100
        assert standing.settled is not None
        assert (standing.settled.error, scene.cluster.launched) == ("QuotaExceeded", [])

    def test_time_in_it_counts_from_when_the_platform_says(self, scene: Scene) -> None:
        scene.drive(queued_s=50)
        scene.step()
        path = scene.attempt().path("claim.json")
        scene.store.put_json(path, {**scene.store.get_json(path), "at": time.time() - 1000})
        self.waits(scene, 1, for_s=10)
        scene.drive(queued_s=50)
        assert scene.step().phase is Phase.QUEUED

    def test_one_that_was_put_back_into_it_is_stopped_before_the_next_begins(self, scene: Scene) -> None:
        scene.drive(queued_s=50)
        attempt = scene.begun()
        scene.cluster.beat(attempt, 9, ended=True, code=75)
        self.waits(scene, 1, for_s=60)
        scene.step()
        assert scene.newest() == 1, "its heartbeat moved a moment ago"
        scene.step(after_s=SILENT_S)
        assert scene.cluster.stopped == [1]
        scene.step()
        assert scene.asked(2).gpu == "h100"

    def test_a_new_try_begins_with_the_preferred_machine(self, scene: Scene) -> None:
        scene.drive(queued_s=50, ladder=(L4,))
        scene.step()
        self.waits(scene, 1, for_s=60)
        assert scene.settled().error == "QuotaExceeded"
        scene.drive(ladder=(L4,))
        scene.step()
        assert scene.asked(2) == L4


class TestBudget:
    def pod(self, *, hours: float) -> Usage:
        return Usage(pod="p", gpu_count=1, seconds=hours * 3600, price_per_hour=4.0)

    def test_at_its_limit_it_checkpoints_and_says_what_was_spent_and_how_far_it_got(self, scene: Scene) -> None:
        scene.drive(budget=10)
        attempt = scene.begun()
        assert attempt.claim["budget"] == {"max_cost": 10, "currency": "USD"}, "for whoever reconciles"
        scene.cluster.beat(attempt, 1, progress={"step": 40, "total": 90})
        scene.cluster.used[1] = [self.pod(hours=2)]
        scene.step(after_s=USAGE_INTERVAL_S)
        assert not attempts.is_cancelled(attempt)
        scene.cluster.used[1] = [self.pod(hours=2.6)]
        scene.step(after_s=USAGE_INTERVAL_S)
        assert attempts.is_cancelled(attempt)
        scene.cluster.stop_resumably(attempt, progress={"step": 42, "total": 90})
        settled = scene.settled()
        assert settled.error == "BudgetExceeded"
        assert "spent 10.40 USD for 2.60 GPU-hours of at most 10 USD; it reached step 42 of 90" in settled.message
        assert scene.spent().cost == 10.4

    def test_a_retry_does_not_help_and_starts_nothing(self, scene: Scene) -> None:
        self.test_at_its_limit_it_checkpoints_and_says_what_was_spent_and_how_far_it_got(scene)
        scene.drive(budget=10)
        assert scene.settled().error == "BudgetExceeded"
        assert scene.cluster.launched == [1]

    def test_raising_it_does(self, scene: Scene) -> None:
        self.test_at_its_limit_it_checkpoints_and_says_what_was_spent_and_how_far_it_got(scene)
        scene.drive(budget=20)
        assert scene.step().settled is None
        assert scene.cluster.launched == [1, 2]

    def test_an_owner_with_a_larger_one_goes_on(self, scene: Scene) -> None:
        scene.drive("poor", budget=10)
        attempt, poor = scene.begun(), scene.driver
        scene.drive("rich", budget=100)
        scene.cluster.used[1] = [self.pod(hours=3)]
        rich, scene.driver = scene.driver, poor
        scene.step(after_s=USAGE_INTERVAL_S)
        scene.cluster.stop_resumably(attempt)
        assert scene.settled().error == "BudgetExceeded"
        scene.driver = rich
        assert scene.step().settled is None
        assert scene.newest() == 2

    def test_one_that_nothing_can_be_held_to_is_told(self, scene: Scene) -> None:
        scene.drive(budget=10, ladder=(Resources(gpu="h100", gpu_count=1),))
        scene.step()
        assert "nobody knows what that costs" in scene.news[-1]

    def test_the_cost_of_a_success_is_kept(self, scene: Scene) -> None:
        attempt = scene.begun()
        scene.cluster.used[1] = [self.pod(hours=1)]
        scene.store.create_json(f"{DIRECTORY}/result.json", {"version": 1, "attempt": 1})
        scene.cluster.end(attempt, code=0)
        assert scene.settled().status is Status.SUCCEEDED
        assert scene.news[-1].endswith("spent 4.00 USD for 1.00 GPU-hours")
        assert scene.spent().gpu_hours == 1.0


class TestCancel:
    OWNER = Owner(dag_id="d", run_id="one", task_id="t")

    def test_one_that_has_not_begun_is_taken_out_of_its_queue(self, scene: Scene) -> None:
        scene.step()
        assert withdraw(scene.store, DIRECTORY, self.OWNER, reason="marked failed")
        assert scene.cluster.stopped == [1]

    def test_one_that_runs_is_asked_and_removed_once_it_has_ended(self, scene: Scene) -> None:
        attempt = scene.begun()
        attempts.request_cancel(attempt, reason="the machine is needed")
        scene.step()
        assert scene.cluster.stopped == []
        scene.cluster.stop_resumably(attempt)
        scene.step()
        assert scene.cluster.stopped == [1]

    def test_one_that_was_taken_away_can_still_begin_again_and_so_is_cancelled(self, scene: Scene) -> None:
        attempt = scene.begun()
        scene.cluster.take_away(attempt)
        assert withdraw(scene.store, DIRECTORY, self.OWNER, reason="marked failed")
        assert attempts.is_cancelled(attempt)


class TestWhereItWasBegun:
    def test_it_is_looked_after_although_the_model_file_says_elsewhere_now(self, scene: Scene) -> None:
        attempt = scene.begun()
        elsewhere = FakeCluster(name="elsewhere")
        there, scene.cluster = scene.cluster, elsewhere
        scene.drive()
        assert scene.step().phase is Phase.RUNNING
        there.stop_resumably(attempt)
        scene.step()
        assert (there.launched, elsewhere.launched) == ([1], [2])
