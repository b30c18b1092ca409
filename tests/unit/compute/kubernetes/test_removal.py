"""Pods that a lost node keeps are taken off it by force; any other pod is given its time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from genai_operators.compute.contract import Phase
from genai_operators.compute.kubernetes import phases, pod, removal
from tests.fakes.kubernetes.settings import cpu_node
from tests.unit.compute.kubernetes.test_backend import begin
from tests.unit.compute.kubernetes.workloads import claimed, probe_until


@pytest.fixture
def impatient(monkeypatch):
    """What takes minutes in a cluster is due at once."""
    monkeypatch.setattr(pod, "FAREWELL_S", 1)
    monkeypatch.setattr(phases, "STUCK_AFTER_S", 0.0)
    monkeypatch.setattr(removal, "STUCK_AFTER_S", 0.0)
    monkeypatch.setattr(removal, "NODE_LOST_AFTER_S", 0.0)


class TestLostNode:
    def test_its_pod_is_removed_and_the_attempt_can_be_resumed(self, cluster, backend, tmp_path, impatient):
        cluster.faults.add_node(cpu_node("lonely"))
        attempt = claimed(tmp_path, steps=2000, step_s=0.05)
        on_it = replace(backend, grace_s=1.0, node_selector={"kubernetes.io/hostname": "lonely"})
        begin(cluster, on_it, attempt)
        cluster.faults.lose_node("lonely", kill=False, collect_after_s=None)
        seen = probe_until(on_it, attempt, "failed", every_s=0.3)
        assert any("by force" in probe.detail for probe in seen), seen
        assert seen[-1].error is None
        assert cluster.pods(attempt.name) == []

    def test_a_pod_that_is_slow_on_a_good_node_is_left_alone(self, cluster, backend, tmp_path, impatient):
        attempt = claimed(tmp_path, steps=2000, step_s=0.05)
        stuck = begin(cluster, backend, attempt)
        cluster.faults.stick(stuck)
        cluster.delete_pod(stuck, grace_s=1)
        (probe,) = probe_until(backend, attempt, "stuck")[-1:]
        assert probe.phase is Phase.RUNNING
        assert "by force" not in backend.probe(attempt).detail
        assert [each["metadata"]["name"] for each in cluster.pods(attempt.name)] == [stuck]
        cluster.faults.unstick(stuck)
        backend.stop(attempt)
