"""What is asked of a cluster about one that waits in a queue."""

from __future__ import annotations

from typing import Any

import pytest

from genai_operators.compute.kubernetes.observe import Observer
from genai_operators.compute.kubernetes.paths import Paths
from genai_operators.exceptions import ConfigurationError
from tests.unit.compute.kubernetes.clusters import attempt_of, job

QUEUE = {"kueue.x-k8s.io/queue-name": "research"}
WORKLOAD = {"metadata": {"name": "job-it-4f2a1"}, "spec": {}, "status": {}}


class Cluster:
    """Answers by path, as a cluster with Kueue does. Each is another cluster."""

    def __init__(self, attempt: Any, pending: Any) -> None:
        self.job = job(suspend=True, **QUEUE)
        self.job["metadata"] |= {"name": attempt.name, "uid": f"{id(self)}"}
        self.pending = pending
        self.asked: list[str] = []

    def find(self, path: str) -> Any:
        self.asked.append(path)
        if not path.endswith("/pendingworkloads"):
            return self.job
        if isinstance(self.pending, Exception):
            raise self.pending
        return self.pending

    def list(self, path: str, **_: str) -> Any:
        self.asked.append(path)

        class Listing:
            items = [WORKLOAD] if path.endswith("/workloads") else []

        return Listing()


def seen(tmp_path: Any, pending: Any) -> Any:
    attempt = attempt_of(tmp_path)
    cluster = Cluster(attempt, pending)
    labels, annotations = _identity(attempt)
    cluster.job["metadata"] |= {"labels": {**QUEUE, **labels}, "annotations": annotations}
    return Observer(cluster, Paths("genai")).look(attempt)  # type: ignore[arg-type]


def _identity(attempt: Any) -> tuple[dict[str, str], dict[str, str]]:
    from genai_operators.compute.kubernetes.names import DIRECTORY_ANNOTATION, labels

    return labels(attempt), {DIRECTORY_ANNOTATION: attempt.directory}


class TestPlaceInTheQueue:
    def test_it_is_told_where_kueue_tells_it(self, tmp_path):
        others = {"metadata": {"name": "job-other"}, "positionInClusterQueue": 0}
        own = {"metadata": {"name": "job-it-4f2a1"}, "positionInClusterQueue": 2}
        assert seen(tmp_path, {"items": [others, own]}).ahead == 2

    @pytest.mark.parametrize("pending", [None, {"items": []}, ConfigurationError("not allowed")])
    def test_it_is_left_out_where_not(self, tmp_path, pending):
        looked = seen(tmp_path, pending)
        assert looked.ahead is None
        assert looked.workload == WORKLOAD
