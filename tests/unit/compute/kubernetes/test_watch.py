"""One watch for all attempts of a namespace: what it saves, and that nothing is believed of it that is not so."""

from __future__ import annotations

import threading

from genai_operators.compute.contract import Phase
from genai_operators.compute.kubernetes import watch
from genai_operators.compute.kubernetes.watch import shared_watch, trim
from tests.unit.compute.kubernetes.clusters import pod, running
from tests.unit.compute.kubernetes.test_backend import begin
from tests.unit.compute.kubernetes.workloads import claimed, probe_until


def connected(cluster, backend):
    """The shared watch, once it is up to date."""
    found = cluster.wait(lambda: shared_watch(backend.api, backend.namespace), "a watch that pays")
    cluster.wait(lambda: found.look("any") is not None, "the watch to connect")
    return found


class TestRequests:
    def test_looking_costs_no_requests_once_it_watches(self, cluster, backend, tmp_path):
        running = [claimed(tmp_path, name=name, steps=2000, step_s=0.05) for name in ("one", "two", "three")]
        for attempt in running:
            begin(cluster, backend, attempt)
        connected(cluster, backend)
        before = cluster.faults.requests()
        for _ in range(50):
            assert all(backend.probe(attempt).phase is Phase.RUNNING for attempt in running)
        assert cluster.faults.requests() - before <= 2
        for attempt in running:
            backend.stop(attempt)

    def test_one_look_starts_no_threads(self, cluster, backend, attempt):
        before = {each.name for each in threading.enumerate()}
        backend.launch(attempt)
        backend.probe(attempt)
        assert {each.name for each in threading.enumerate()} <= before
        backend.stop(attempt)

    def test_events_are_not_asked_for_at_every_look(self, cluster, backend, attempt):
        cluster.faults.hold_scheduling()
        backend.launch(attempt)
        probe_until(backend, attempt, "queued")
        before = cluster.faults.requests("list", "events")
        for _ in range(20):
            backend.probe(attempt)
        assert cluster.faults.requests("list", "events") - before <= 1
        cluster.faults.hold_scheduling(False)
        backend.stop(attempt)


class TestWhatItMisses:
    def test_a_dropped_connection_is_resumed_without_a_list(self, cluster, backend, attempt):
        found = connected(cluster, backend)
        lists, watches = cluster.faults.requests("list", "pods"), cluster.faults.requests("watch", "pods")
        cluster.faults.drop_watches()
        backend.launch(attempt)
        cluster.wait(lambda: (sight := found.look(attempt.name)) and sight.pods, "the watch to see the pod")
        assert cluster.faults.requests("list", "pods") == lists
        assert cluster.faults.requests("watch", "pods") == watches + 1

    def test_an_expired_version_is_listed_anew(self, cluster, backend, tmp_path):
        attempt = claimed(tmp_path, steps=2000, step_s=0.05)
        found = connected(cluster, backend)
        lists = cluster.faults.requests("list", "pods")
        cluster.faults.expire_watches(2)
        begin(cluster, backend, attempt)
        cluster.wait(lambda: (sight := found.look(attempt.name)) and sight.pods, "the watch to see the pod")
        assert cluster.faults.requests("list", "pods") > lists
        assert backend.probe(attempt).phase is Phase.RUNNING
        backend.stop(attempt)

    def test_an_outage_is_survived(self, cluster, backend, tmp_path):
        attempt = claimed(tmp_path, steps=2000, step_s=0.05)
        begin(cluster, backend, attempt)
        found = connected(cluster, backend)
        cluster.faults.outage(1.0)
        cluster.wait(lambda: found.look(attempt.name) is None, "the watch to notice")
        cluster.wait(lambda: found.look(attempt.name) is not None, "the watch to be back")
        assert backend.probe(attempt).phase is Phase.RUNNING
        backend.stop(attempt)

    def test_a_silent_watch_never_says_that_something_is_gone(self, cluster, backend, tmp_path):
        """The Job was deleted and its pods live on; the watch has missed all of it."""
        attempt = claimed(tmp_path, steps=2000, step_s=0.05)
        begin(cluster, backend, attempt)
        connected(cluster, backend)
        cluster.faults.stall_watches()
        cluster.delete_job(attempt.name, propagation="Orphan")
        assert backend.probe(attempt).phase is Phase.RUNNING
        cluster.faults.stall_watches(False)
        cluster.faults.drop_watches()
        assert probe_until(backend, attempt, "orphaned")[-1].phase is Phase.RUNNING
        backend.stop(attempt)
        probe_until(backend, attempt, "failed")

    def test_pods_that_left_are_remembered_with_their_cost(self, cluster, backend, tmp_path):
        attempt = claimed(tmp_path, steps=2000, step_s=0.05)
        first = begin(cluster, backend, attempt)
        connected(cluster, backend)
        cluster.faults.preempt(first)
        cluster.wait_for_pod(attempt.name, other_than=first)
        used = cluster.wait(lambda: len(found := backend.usage(attempt)) == 2 and found, "both pods")
        assert sorted(each.ended for each in used) == [False, True]
        backend.stop(attempt)


class TestIdleness:
    def test_it_ends_when_nobody_looks(self, cluster, backend, monkeypatch):
        connected(cluster, backend)
        monkeypatch.setattr(watch, "IDLE_S", 0.0)
        cluster.faults.drop_watches()
        cluster.wait(
            lambda: not [each for each in threading.enumerate() if each.name.startswith("watch ")], "the threads to end"
        )


class TestItsOwnFaults:
    def test_one_that_died_is_not_believed_any_more_and_is_replaced(self, cluster, backend, monkeypatch):
        found = connected(cluster, backend)
        monkeypatch.setattr(watch, "attempt_name", lambda _: 1 / 0)
        monkeypatch.setattr(threading, "excepthook", lambda _: None)
        cluster.faults.expire_watches(2)
        backend.api.create(backend.paths.pods, ours("breaks-it"))
        cluster.wait(lambda: not found.alive, "a thread to die")
        monkeypatch.undo()
        assert found.look("any") is None
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        assert connected(cluster, backend) is not found


def ours(name):
    """A pod with our label that never runs."""
    metadata = {"name": name, "labels": {"app.kubernetes.io/managed-by": "genai-operators"}}
    return {"metadata": metadata, "spec": {"containers": [{"name": "c", "image": "nowhere"}]}}


class TestMemory:
    def test_only_what_is_read_is_kept(self):
        found = pod("Running", state=running())
        found["metadata"]["managedFields"] = [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:phase": {}}}}] * 20
        found["spec"]["containers"] = [{"name": "workload", "env": [{"name": "A", "value": "x" * 1000}]}]
        kept = trim(found)
        assert len(str(kept)) < len(str(found)) / 3
        assert kept["status"]["phase"] == "Running"
        assert kept["spec"]["nodeName"] == "node-a"
