"""A fake cluster per test module, and the objects that its tests create."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fakes.kubernetes.fixture import IMAGE, FakeCluster, fake_cluster
from tests.fakes.kubernetes.settings import Settings, cpu_node, gpu_node

DISRUPTIONS_ARE_FREE = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
#: Says that it runs, and stops within its grace when asked to.
SLEEPER = (
    "import signal,sys,time;signal.signal(signal.SIGTERM,lambda *_:sys.exit(75));print('up',flush=True);time.sleep(60)"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    """Two nodes: an ordinary one and one with eight GPUs."""
    settings = Settings(folder="", nodes=(cpu_node(), gpu_node("gpu-1")))
    with fake_cluster(settings, folder=tmp_path_factory.mktemp("kubernetes") / "cluster") as made:
        yield made
        log = (made.folder / "server.log").read_text()
        assert "Traceback" not in log, log


@pytest.fixture
def batch(cluster: FakeCluster) -> Any:
    """The real client's Jobs."""
    from kubernetes import client

    return client.BatchV1Api(cluster.api_client())


@pytest.fixture
def core(cluster: FakeCluster) -> Any:
    """The real client's pods, events, nodes."""
    from kubernetes import client

    return client.CoreV1Api(cluster.api_client())


@pytest.fixture
def custom(cluster: FakeCluster) -> Any:
    """The real client's custom objects."""
    from kubernetes import client

    return client.CustomObjectsApi(cluster.api_client())


@pytest.fixture(autouse=True)
def _nothing_is_left(cluster: FakeCluster) -> Iterator[None]:
    """Faults end and Jobs go with the test."""
    yield
    cluster.faults.clear()


JobMaker = Callable[..., dict[str, Any]]


def job_named(name: str, code: str = SLEEPER, *, pod: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A Job whose container runs a line of Python."""
    container = {"name": "main", "image": IMAGE, "command": ["python", "-c", code]}
    container |= (pod or {}).pop("container", {})
    pod_spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [container], **(pod or {})}
    labels = spec.pop("labels", {})
    spec = {"backoffLimit": 0, "podFailurePolicy": DISRUPTIONS_ARE_FREE, "template": {"spec": pod_spec}, **spec}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {key: value for key, value in spec.items() if value is not None},
    }


@pytest.fixture
def make_job() -> JobMaker:
    """Makes a Job whose container runs a line of Python."""
    return job_named
