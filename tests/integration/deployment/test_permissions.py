"""What the code asks a cluster for is what the role grants: nothing less, and nothing that nobody asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute.backends import open_backend
from genai_operators.compute.contract import Attempt, Workload
from genai_operators.compute.kubernetes.cluster_checks import Wanted
from genai_operators.compute.kubernetes.orphans import OrphanSearch
from genai_operators.compute.kubernetes.permissions import PERMISSIONS
from genai_operators.compute.kubernetes.preflight import preflight
from genai_operators.compute.kubernetes.settings import KubernetesSettings
from genai_operators.compute.resources import Resources
from tests.fakes.faults.capacity import in_queue
from tests.fakes.kubernetes.fixture import FakeCluster, cluster_from_environment
from tests.fakes.kubernetes.settings import Settings, cpu_node, gpu_node
from tests.fakes.kubernetes_run import ClusterRun

GRANTED = {f"{verb} {permission.resource}" for permission in PERMISSIONS for verb in permission.verbs}
#: Every account may ask what it may do.
UNGRANTED = {"create selfsubjectaccessreviews"}
#: The fake has no such API; ``tests/unit/compute/kubernetes/test_observe.py`` sees it asked.
UNSEEN = {"get localqueues/pendingworkloads"}
SMALL = Resources(cpu=1, memory_bytes=1 << 30)


def to_its_result(run: ClusterRun) -> None:
    subject = run.submit()
    run.drive(subject, until=lambda: run.starts(1))
    look_after(run, run.attempt(1))
    run.finish(subject)


def stopped(run: ClusterRun) -> None:
    subject = run.submit()
    run.drive(subject, until=lambda: run.starts(1))
    open_backend(run.backend).stop(run.attempt(1))


def stopped_without_its_job(run: ClusterRun) -> None:
    subject = run.submit()
    run.drive(subject, until=lambda: run.starts(1))
    run.cluster.faults.delete("jobs", run.attempt(1).name, propagation="Orphan")
    open_backend(run.backend).stop(run.attempt(1))


def fails_before_it_can_write(run: ClusterRun) -> None:
    run.backend["python"] = "false"
    run.finish(run.submit())


def waits_for_its_image(run: ClusterRun) -> None:
    run.backend["image"] = f"registry.example/nobody@sha256:{'0' * 64}"
    run.drive(run.submit(), until=lambda: any("pull" in line.lower() for line in run.lines))
    open_backend(run.backend).stop(run.attempt(1))


def job_set(run: ClusterRun) -> None:
    launched_and_stopped(run, Resources(cpu=1, memory_bytes=1 << 30, nodes=2))


def train_job(run: ClusterRun) -> None:
    run.backend["multi_node"] = "trainjob"
    launched_and_stopped(run, Resources(cpu=1, memory_bytes=1 << 30, nodes=2))


def claimed_devices(run: ClusterRun) -> None:
    run.backend["device_class"] = "gpu.nvidia.com"
    launched_and_stopped(run, Resources(gpu="H100", gpu_count=1, cpu=1, memory_bytes=1 << 30))


def waits_in_a_queue(run: ClusterRun) -> None:
    run.cluster.faults.hold_queue()
    in_queue(run)
    run.cluster.faults.reset_figures()
    launched_and_stopped(run, SMALL)


def the_check(run: ClusterRun) -> None:
    names = ("connection", "clients", "namespace")
    settings = KubernetesSettings(**{name: run.backend[name] for name in names}, queue="research")
    preflight(Wanted(settings=settings, gpu=True, nodes=2), store=None, timeout_s=60.0)


#: What is done, and some of what that must ask for (so that it is known to have got there).
SCENARIOS: dict[Callable[[ClusterRun], None], set[str]] = {
    to_its_result: {"create jobs", "get jobs", "list pods", "watch pods", "watch jobs", "get nodes"},
    stopped: {"delete jobs"},
    stopped_without_its_job: {"delete pods"},
    fails_before_it_can_write: {"get pods/log"},
    waits_for_its_image: {"list events"},
    job_set: {"create jobsets", "delete jobsets"},
    train_job: {"create trainjobs", "delete trainjobs"},
    claimed_devices: {"create resourceclaimtemplates"},
    waits_in_a_queue: {"list workloads"},
    the_check: {"list nodes", "get namespaces"},
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """``verb resource`` of every request, by scenario."""
    folder = tmp_path_factory.mktemp("permissions")
    settings = Settings(folder="", nodes=(cpu_node(), gpu_node("gpu-1")))
    with cluster_from_environment(settings, folder=folder / "cluster") as cluster:
        yield {play.__name__: requests(play, cluster, folder / play.__name__) for play in SCENARIOS}


def requests(play: Callable[[ClusterRun], None], cluster: FakeCluster, folder: Path) -> set[str]:
    """What a scenario asks for."""
    run = ClusterRun(cluster, folder, waits=True)
    run.ladder = [SMALL]
    cluster.faults.reset_figures()
    play(run)
    found = {each for each in cluster.faults.figures()["requests"] if not each.endswith(" discovery")}
    run.end_everything()
    return found


def look_after(run: ClusterRun, attempt: Attempt) -> None:
    """Everything that is done with an attempt while it runs: probe and usage, with and without a watch; orphans."""
    backend: Any = open_backend(run.backend)
    for _ in range(5):
        backend.probe(attempt)
        backend.usage(attempt)
    OrphanSearch(backend.api, backend.paths, run.store).find()


def launched_and_stopped(run: ClusterRun, resources: Resources) -> None:
    """An attempt at fine-tuning that never gets as far as computing."""
    directory = Workload(kind="fine_tune", params={}, nonce=run.gate).directory
    claim = {"backend": run.backend, "resources": resources.to_json()}
    attempt = Attempt(store=run.store, directory=directory, number=1, claim=claim)
    backend = open_backend(run.backend)
    backend.launch(attempt)
    look_after(run, attempt)
    backend.stop(attempt)


@pytest.mark.parametrize(("play", "among"), SCENARIOS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_asked_is_granted(
    asked: dict[str, set[str]], play: Callable[[ClusterRun], None], among: set[str]
) -> None:
    found = asked[play.__name__] - UNGRANTED
    assert found <= GRANTED, found - GRANTED
    assert among <= found


def test_what_is_granted_is_asked(asked: dict[str, set[str]]) -> None:
    assert set().union(*asked.values()) - UNGRANTED == GRANTED - UNSEEN
