"""The same promises as in ``test_canary_crash.py``, kept inside a real Airflow whose processes are killed.

Every release begins with one user, so that it is under way while something happens to it; then all come, so that it
ends soon.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from genai_operators.release.journal import EventType
from genai_operators.release.replay import replay
from tests.fakes.canary_platform import CanaryPlatform, Release, wait

pytestmark = pytest.mark.slow

BEGUN = ["started", "deployed", "ready", "weight_set"]
PROMOTED = [*BEGUN, "step_passed", "weight_set", "step_passed", "weight_set", "promoting", "promoted"]
ABORTED = [*BEGUN, "rolling_back", "returned", "rolled_back"]
#: How long a process runs at a time that is to be killed between two of its actions.
SLICE_S = 0.002
KILLS_IN_TIME_TRIED = 3
#: Each test releases a model of its own; by name, whether its task waits in the triggerer.
MODELS = {
    **{f"before_deferral_{number}": True for number in range(KILLS_IN_TIME_TRIED)},
    "on_worker": False,
    "scheduler": True,
    "triggerer": True,
    "asleep": True,
    "marked": True,
    "unheard": True,
    "bystander": True,
}

Start = Callable[[str], Release]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, project_root: Path, mlflow_uri: str) -> Iterator[CanaryPlatform]:
    platform = CanaryPlatform(tmp_path_factory.mktemp("airflow"), project_root, mlflow_uri=mlflow_uri, models=MODELS)
    yield platform
    platform.end()


@pytest.fixture
def start(platform: CanaryPlatform) -> Iterator[Start]:
    releases: list[Release] = []

    def start(model: str) -> Release:
        if "triggerer" not in platform.airflow.processes:
            platform.airflow.start("triggerer")
        releases.append(Release(platform, model))
        return releases[-1]

    yield start
    for release in releases:
        release.users.leave()


def under_way(release: Release) -> Release:
    """The task waits in the triggerer, and the candidate has its first share of the traffic."""
    release.wait_until_under_way()
    release.wait_for_state("deferred")
    return release


def finish(release: Release) -> None:
    """Let everybody ask; the release must end as one to which nothing happened."""
    assert release.weights() == [5.0], "it was under way until now"
    release.users.come_all()
    release.wait_for_state("success")
    assert_promoted_as_if_undisturbed(release)


def assert_promoted_as_if_undisturbed(release: Release) -> None:
    assert release.steps() == PROMOTED
    assert release.weights() == [5.0, 25.0, 50.0]
    assert_routed(release, [0.0, 5.0, 25.0, 50.0, 0.0])
    assert [(entry.version, entry.evidence.get("release")) for entry in release.ledger.verify()] == [
        (1, None),
        (2, release.id),
    ]
    status = release.status()
    assert (status.champion.version, status.canary, status.percent) == (2, None, 0)
    assert release.platform.registry.champion(release.model) == 2
    assert not release.is_cancelled
    assert replay(release.store, release.model, release.id).differences == ()
    release.users.leave()
    assert set(release.users.answers) == {200}, "and no user noticed"


def assert_aborted(release: Release) -> None:
    """The champion has all traffic back, and the ledger knows of nothing."""
    release.wait_for_step(EventType.ROLLED_BACK)
    assert release.steps() == ABORTED
    assert release.weights() == [5.0]
    status = release.status()
    assert (status.champion.version, status.canary, status.percent) == (1, None, 0)
    assert_routed(release, [0.0, 5.0, 0.0])
    assert [entry.version for entry in release.ledger.verify()] == [1]
    assert release.task["state"] == "failed"
    release.users.leave()
    assert set(release.users.answers) == {200}, "and no user noticed"


def assert_routed(release: Release, shares: list[float]) -> None:
    """What the gateway did, as it noted itself with each request; the last ones become known a little later."""
    wait(lambda: len(release.routed()) >= len(shares), what="the last route")
    assert release.routed() == shares


def kill_once_the_plan_is_frozen(release: Release) -> bool:
    """Let the task's process run for a moment at a time, so that it is killed before it does anything else.

    On a busy machine a moment can be long enough for the task to defer as well: ``False`` then.
    """
    pid = wait(lambda: release.task["state"] == "running" and release.task["pid"], every_s=0.01)
    process = psutil.Process(pid)
    process.suspend()
    while not release.has_plan:
        process.resume()
        time.sleep(SLICE_S)
        process.suspend()
    process.kill()
    events = len(release.events())
    wait(lambda: release.task["state"] == "deferred" or release.task["try_number"] == 2, what="the death is noticed")
    return release.task["try_number"] == 2 and events == 0


class TestTaskProcess:
    def test_killed_before_it_defers_goes_on_with_the_same_plan(self, start: Start) -> None:
        for number in range(KILLS_IN_TIME_TRIED):
            release = start(f"before_deferral_{number}")
            if kill_once_the_plan_is_frozen(release):
                break
            finish(under_way(release))
        else:
            pytest.fail(f"the machine is too busy: {KILLS_IN_TIME_TRIED} tasks deferred before they could be killed")
        under_way(release)
        assert "was started by an earlier try; going on with it" in release.log(2)
        finish(release)

    def test_killed_while_it_drives_is_tried_again_and_goes_on(self, start: Start) -> None:
        release = start("on_worker")
        release.wait_until_under_way()
        (driver,) = release.drivers()
        os.kill(driver, signal.SIGKILL)
        release.wait_for_another_driver(driver)
        assert release.task["try_number"] == 2
        finish(release)


class TestScheduler:
    def test_killed_is_not_needed_until_the_end(self, platform: CanaryPlatform, start: Start) -> None:
        release = under_way(start("scheduler"))
        platform.airflow.kill("scheduler")
        release.users.come_all()
        release.wait_for_step(EventType.PROMOTED)
        assert release.task["state"] != "success"
        platform.airflow.start("scheduler")
        release.wait_for_state("success")
        assert_promoted_as_if_undisturbed(release)


class TestTriggerer:
    def test_killed_and_another_started(self, platform: CanaryPlatform, start: Start) -> None:
        release = under_way(start("triggerer"))
        (driver,) = release.drivers()
        platform.airflow.kill("triggerer")
        platform.airflow.start("triggerer")
        release.wait_for_another_driver(driver)
        finish(release)

    def test_asleep_while_another_took_over(self, platform: CanaryPlatform, start: Start) -> None:
        release = under_way(start("asleep"))
        (asleep,) = release.drivers()
        platform.airflow.signal("triggerer", signal.SIGSTOP)
        platform.airflow.start("second triggerer")
        release.wait_for_another_driver(asleep)

        platform.airflow.signal("triggerer", signal.SIGCONT)
        # It learns that the trigger is no longer its own, and drops it as if somebody had killed the task.
        wait(lambda: "what it waits for goes on" in release.log(), what="its waking")
        finish(release)
        platform.airflow.kill("triggerer")
        platform.airflow.processes["triggerer"] = platform.airflow.processes.pop("second triggerer")


class TestUser:
    def test_marks_it_failed(self, platform: CanaryPlatform, start: Start) -> None:
        release = under_way(start("marked"))
        platform.airflow.mark(release.dag, release.run, "failed")
        assert_aborted(release)

    def test_marks_it_failed_while_no_triggerer_lives(self, platform: CanaryPlatform, start: Start) -> None:
        bystander, release = start("bystander"), start("unheard")
        for each in (bystander, release):
            under_way(each)
        platform.airflow.kill("triggerer")
        platform.airflow.mark(release.dag, release.run, "failed")
        assert (release.steps(), release.status().percent) == (BEGUN, 5), "nobody heard it"

        turn = platform.airflow.trigger("reconcile")
        ended = ("success", "failed")
        wait(lambda: platform.airflow.run_state("reconcile", turn) in ended)
        assert release.steps() == ABORTED, "one turn is enough"
        assert_aborted(release)

        assert (bystander.steps(), bystander.status().percent) == (BEGUN, 5)
        platform.airflow.start("triggerer")
        finish(bystander)
