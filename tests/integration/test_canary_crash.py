"""Controllers that die at every moment: by ``kill -9`` of a process, and before and after each single action."""

from __future__ import annotations

import os
import signal
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from genai_operators.release.canary import Controller
from genai_operators.release.journal import EventType, Journal
from genai_operators.release.plan import ReleasePlan
from genai_operators.release.progress import Phase
from genai_operators.release.replay import replay
from tests.fakes import drive_release
from tests.fakes.releases import MODEL, Bench
from tests.fakes.serving import Behaviour, FakeServing

PROMOTED = ["started", "deployed", "ready", *("weight_set", "step_passed") * 2, "weight_set", "promoting", "promoted"]
ROLLED_BACK = ["started", "deployed", "ready", "weight_set", "rolling_back", "returned", "rolled_back"]
GOOD, BAD = Behaviour(), Behaviour(errors=0.5)
SCENARIOS = pytest.mark.parametrize(
    ("behaviour", "expected", "weights", "champion"),
    [
        pytest.param(GOOD, PROMOTED, [0.0, 5.0, 25.0, 50.0, 0.0], 2, id="good candidate"),
        pytest.param(BAD, ROLLED_BACK, [0.0, 5.0, 0.0], 1, id="bad candidate"),
    ],
)


def begin(folder: Path, behaviour: Behaviour) -> tuple[Bench, ReleasePlan]:
    bench = Bench(folder)
    plan = bench.plan(champion=bench.crown())
    bench.serving.behave(plan.candidate, behaviour)
    return bench, plan


def types(bench: Bench, plan: ReleasePlan) -> list[str]:
    events = Journal(bench.store, plan.directory).after(0)
    return [str(event.type) for event in events if event.type is not EventType.OBSERVED]


def assert_as_if_undisturbed(bench: Bench, plan: ReleasePlan, expected: list[str], weights: list[float], champion: int):
    assert types(bench, plan) == expected
    assert bench.serving.weights() == weights, "no step was repeated or skipped"
    assert bench.ledger.champion().version == champion
    assert len(bench.ledger.verify()) == champion
    status = bench.serving.status()
    assert (status.champion.version, status.canary) == (champion, None)
    observed = [
        event.data for event in Journal(bench.store, plan.directory).after(0) if event.type is EventType.OBSERVED
    ]
    numbers = [number for data in observed for number in data["facts"]["requests"]["request_id"]]
    assert max(Counter(numbers).values()) == 1, "no request was taken in twice"
    assert [data["since"] for data in observed[1:]] == [data["next"] for data in observed[:-1]], "and none was left out"
    assert replay(bench.store, MODEL, plan.release).differences == ()


class TestKilledProcess:
    @SCENARIOS
    def test_after_every_event_the_next_process_goes_on(self, tmp_path, behaviour, expected, weights, champion):
        bench, plan = begin(tmp_path, behaviour)
        journal = Journal(bench.store, plan.directory)
        kills = 0
        for _ in range(200):
            killed_at = sum(1 for _ in journal.after(0)) + 1
            process = drive_release.start(bench, plan.release)
            while process.is_alive() and not journal.has(killed_at):
                process.join(0.002)
            if not process.is_alive():
                break
            process.kill()
            process.join()
            kills += 1
            newest = list(journal.after(0))[-1]
            if newest.type is EventType.OBSERVED and kills > 3 * len(expected):
                drive_release.start(bench, plan.release).join(120)
        assert kills >= len(expected) - 1
        assert_as_if_undisturbed(bench, plan, expected, weights, champion)

    def test_two_processes_at_once_take_every_step_once(self, tmp_path):
        bench, plan = begin(tmp_path, GOOD)
        processes = [drive_release.start(bench, plan.release) for _ in range(2)]
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0, 0]
        assert_as_if_undisturbed(bench, plan, PROMOTED, [0.0, 5.0, 25.0, 50.0, 0.0], 2)

    def test_one_that_slept_while_another_went_on_changes_nothing(self, tmp_path):
        bench, plan = begin(tmp_path, GOOD)
        journal = Journal(bench.store, plan.directory)
        sleeper = drive_release.start(bench, plan.release)
        while not journal.has(5):
            sleeper.join(0.002)
        put_to_sleep(sleeper, bench)
        awake = drive_release.start(bench, plan.release)
        awake.join(120)
        assert awake.exitcode == 0
        os.kill(sleeper.pid, signal.SIGCONT)
        sleeper.join(60)
        assert sleeper.exitcode == 0
        assert_as_if_undisturbed(bench, plan, PROMOTED, [0.0, 5.0, 25.0, 50.0, 0.0], 2)


def put_to_sleep(process: BaseProcess, bench: Bench) -> None:
    """Stop a process at a moment when it does not hold the lock of the fake, which nobody else could get then."""
    while True:
        os.kill(process.pid, signal.SIGSTOP)
        if bench.serving.is_free():
            return
        os.kill(process.pid, signal.SIGCONT)
        process.join(0.01)


class Crash(BaseException):
    """As sudden as a kill: nothing that catches errors catches it."""


class CrashingServing(FakeServing):
    """Dies before or after its n-th call that changes something."""

    def __init__(self, folder: Path, *, at: int, after: bool) -> None:
        super().__init__(folder)
        self.left, self.after = at, after

    def _crashing(self, call, *args, **more):
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Crash
        result = call(*args, **more)
        if self.left == 0:
            raise Crash
        return result

    def deploy(self, *args, **more):
        return self._crashing(super().deploy, *args, **more)

    def set_weight(self, *args, **more):
        return self._crashing(super().set_weight, *args, **more)

    def promote(self):
        return self._crashing(super().promote)

    def rollback(self):
        return self._crashing(super().rollback)


class TestEveryAction:
    @SCENARIOS
    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_a_crash_at_each_is_healed(self, tmp_path, behaviour, expected, weights, champion, after):
        for at in range(1, 20):
            bench, plan = begin(tmp_path / str(at), behaviour)
            crashing = CrashingServing(bench.folder / "serving", at=at, after=after)
            try:
                bench.settle(Controller(plan, bench.parts(serving=crashing)))
            except Crash:
                bench.settle(bench.controller(plan))
                assert_as_if_undisturbed(bench, plan, expected, weights, champion)
                continue
            break
        assert at > (5 if champion == 2 else 3), "every action had its crash"
        assert bench.controller(plan).tick().phase in (Phase.PROMOTED, Phase.ROLLED_BACK)
