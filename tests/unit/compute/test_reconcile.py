from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute import attempts, backends, owners, reconcile
from genai_operators.compute.contract import Attempt, Phase, Probe, Workload
from genai_operators.compute.owners import Owner
from genai_operators.compute.reconcile import reconcile_workloads, running_attempts, stop_all
from genai_operators.compute.resources import Usage
from genai_operators.store import Store
from tests.fakes.backend import FakeBackend, FakeCluster
from tests.fakes.checkpointing import final_state
from tests.fakes.workload_run import WorkloadRun, owner, wait_for

StartRun = Callable[..., WorkloadRun]


class States:
    """Airflow's answers."""

    def __init__(self, **states: str | None) -> None:
        self.states = {f"manual__{name}": state for name, state in states.items()}

    def __call__(self, who: Owner) -> str | None:
        return self.states[who.run_id]


def begin(run: WorkloadRun, *names: str) -> None:
    """Start the workload for these owners; afterwards nobody watches it."""
    subjects = [run.subject(owner(name)) for name in names]
    run.drive(subjects[0], until=run.began)


def running(store: Store) -> Attempt:
    """A workload of one owner, without a process: enough to see what would be asked of it."""
    joined = attempts.join(store, Workload(kind="fine_tune"), owner())
    attempt = attempts.claim(
        store, joined.directory, number=1, backend={"target": "local"}, owner=owner(), step=-1, stalls=0
    )
    assert attempt is not None
    FakeBackend().begin(attempt)
    return attempt


@pytest.mark.parametrize("state", ["failed", "success", "skipped", "removed", "upstream_failed"])
def test_a_workload_whose_task_has_ended_is_asked_to_stop(store: Store, state: str) -> None:
    attempt = running(store)
    assert state in reconcile_workloads(store, States(one=state))[0]
    assert attempts.is_cancelled(attempt)


@pytest.mark.parametrize(
    "state", ["running", "deferred", "queued", "scheduled", "up_for_retry", "awaiting_input", None]
)
def test_nothing_is_asked_while_its_task_may_still_want_it(store: Store, state: str | None) -> None:
    attempt = running(store)
    assert reconcile_workloads(store, States(one=state)) == []
    assert not attempts.is_cancelled(attempt)


def test_a_workload_that_nobody_watched_stops_and_is_forgotten(start_run: StartRun, tmp_path: Path) -> None:
    run = start_run(until=str(tmp_path / "gate"))
    begin(run, "one")
    assert len(reconcile_workloads(run.store, States(one="failed"))) == 1
    wait_for(lambda: attempts.recorded_ending(run.attempt()), what="the stop")
    assert reconcile_workloads(run.store, States(one="failed")) == []
    assert list(owners.active(run.store)) == []


def test_one_of_two_owners_that_ended_is_taken_off_and_the_workload_goes_on(
    start_run: StartRun, tmp_path: Path
) -> None:
    run = start_run(until=str(tmp_path / "gate"))
    begin(run, "one", "two")
    assert len(reconcile_workloads(run.store, States(one="failed", two="deferred"))) == 1
    assert not attempts.is_cancelled(run.attempt())
    assert [who.run_id for _, who in owners.active(run.store)] == ["manual__two"]


def test_one_that_does_not_obey_is_killed(start_run: StartRun, tmp_path: Path) -> None:
    run = start_run(until=str(tmp_path / "gate"))
    begin(run, "one")
    run.supervisor()
    owners.leave(run.store, run.directory, owner("one"))
    run.store.create_json(run.attempt().path("cancel.json"), {"at": time.time() - 1000})
    assert "killed" in reconcile_workloads(run.store, States())[0]
    assert not run.supervisor().is_alive()
    assert not run.child().is_alive()
    assert reconcile_workloads(run.store, States()) == []
    assert list(owners.active(run.store)) == []


class TestCluster:
    """A platform that replaces what it takes away, and may not answer."""

    @pytest.fixture
    def cluster(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
        monkeypatch.setattr(backends, "BACKENDS", {**backends.BACKENDS, "fake": "tests.fakes.backend:FakeCluster"})
        yield FakeCluster(name=store.uri)
        FakeCluster.opened.clear()

    def claimed(
        self, store: Store, backend: dict[str, Any], name: str = "one", *, budget: dict[str, Any] | None = None
    ) -> Attempt:
        joined = attempts.join(store, Workload(kind="fine_tune", nonce=name), owner(name))
        attempt = attempts.claim(
            store, joined.directory, number=1, backend=backend, owner=owner(name), step=-1, stalls=0, budget=budget
        )
        assert attempt is not None
        return attempt

    def test_what_never_began_is_taken_out_of_its_queue_and_forgotten(self, store: Store, cluster: FakeCluster) -> None:
        attempt = self.claimed(store, cluster.describe())
        cluster.probes[1] = Probe(Phase.QUEUED)
        reconcile_workloads(store, States(one="failed"))
        assert cluster.stopped == [1]
        reconcile_workloads(store, States())
        assert list(owners.active(store)) == []
        assert not store.create_json(attempt.path("started.json"), {}), "it could still begin"

    def test_a_queue_that_could_not_be_asked_at_first_is_asked_again(self, store: Store, cluster: FakeCluster) -> None:
        attempt = self.claimed(store, cluster.describe())
        attempts.request_cancel(attempt, reason="its task is removed")
        owners.leave(store, attempt.directory, owner())
        cluster.probes[1] = Probe(Phase.QUEUED)
        assert "out of its queue" in reconcile_workloads(store, States())[0]
        assert cluster.stopped == [1]

    def test_what_was_taken_away_may_begin_again_and_so_is_asked_to_stop(
        self, store: Store, cluster: FakeCluster
    ) -> None:
        attempt = self.claimed(store, cluster.describe())
        cluster.begin(attempt)
        cluster.take_away(attempt)
        reconcile_workloads(store, States(one="failed"))
        assert attempts.is_cancelled(attempt)
        assert list(owners.active(store)) != [], "it is looked after until its platform says that it is gone"

    def test_what_was_cancelled_and_ended_is_removed(self, store: Store, cluster: FakeCluster) -> None:
        attempt = self.claimed(store, cluster.describe())
        cluster.begin(attempt)
        reconcile_workloads(store, States(one="failed"))
        cluster.stop_resumably(attempt)
        assert reconcile_workloads(store, States()) == []
        assert cluster.stopped == [1]
        assert list(owners.active(store)) == []

    def test_a_platform_that_cannot_be_opened_keeps_no_other_from_its_turn(
        self, store: Store, cluster: FakeCluster
    ) -> None:
        lost, other = self.claimed(store, {"target": "nowhere"}, "lost"), self.claimed(store, cluster.describe(), "two")
        for attempt in (lost, other):
            cluster.begin(attempt)
            cluster.beat(attempt, 5, ended=True, code=75)
        lines = reconcile_workloads(store, States(lost="failed", two="failed"))
        assert len(lines) == 2
        assert any("cannot look after" in line and "nowhere" in line for line in lines)
        assert attempts.is_cancelled(other)

    def test_its_budget_holds_where_no_triggerer_lives(
        self, store: Store, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attempt = self.claimed(store, cluster.describe(), budget={"max_cost": 10.0, "currency": "USD"})
        cluster.begin(attempt)
        cluster.used[1] = [Usage(pod="p", seconds=3600, price_per_hour=9.0)]
        assert reconcile_workloads(store, States(one="deferred")) == []
        cluster.used[1] = [Usage(pod="p", seconds=7200, price_per_hour=9.0)]
        assert reconcile_workloads(store, States(one="deferred")) == [], "somebody has just looked at it"
        monkeypatch.setattr(reconcile, "UNATTENDED_S", -1.0)
        assert "its budget is spent" in reconcile_workloads(store, States(one="deferred"))[0]
        assert store.get_json(attempt.path("cancel.json"))["error"] == "BudgetExceeded"
        assert cluster.stopped == [], "it has time for a checkpoint"
        monkeypatch.setattr(reconcile, "CANCEL_PATIENCE_S", 0.0)
        assert "killed" in reconcile_workloads(store, States(one="deferred"))[0]
        assert reconcile_workloads(store, States(one="deferred")) == []

    @pytest.mark.parametrize("budget", [None, {"max_cost": 100.0, "currency": "USD"}])
    def test_within_its_budget_it_goes_on(
        self, store: Store, cluster: FakeCluster, budget: dict[str, Any] | None
    ) -> None:
        attempt = self.claimed(store, cluster.describe(), budget=budget)
        cluster.begin(attempt)
        cluster.used[1] = [Usage(pod="p", seconds=7200, price_per_hour=9.0)]
        assert reconcile_workloads(store, States(one="deferred")) == []
        assert not attempts.is_cancelled(attempt)


class TestStopAll:
    def test_stops_what_runs_and_it_resumes_when_it_is_wanted_again(self, start_run: StartRun, tmp_path: Path) -> None:
        run = start_run(until=str(tmp_path / "gate"))
        begin(run, "one")
        assert stop_all(run.store, patience_s=30) == [run.attempt().name]
        assert running_attempts(run.store) == []
        assert not run.child().is_alive()
        run.let_finish()
        assert run.drive(run.subject(owner("one")))["status"] == "succeeded"
        assert run.state() == final_state(20)

    def test_kills_what_does_not_stop_in_time(self, start_run: StartRun, tmp_path: Path) -> None:
        run = start_run(until=str(tmp_path / "gate"))
        begin(run, "one")
        child = run.child()
        stop_all(run.store, patience_s=0)
        assert not child.is_alive()

    def test_with_nothing_to_stop_returns_at_once(self, start_run: StartRun) -> None:
        assert stop_all(start_run().store, patience_s=30) == []
