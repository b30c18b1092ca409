"""What nobody looks after any more is found and removed, and nothing else."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from genai_operators.compute import attempts, owners
from genai_operators.compute.kubernetes.orphans import OrphanSearch
from genai_operators.compute.owners import Owner
from genai_operators.exceptions import WorkloadFailed
from genai_operators.store import Store
from tests.unit.compute.kubernetes.clusters import attempt_of
from tests.unit.compute.kubernetes.test_backend import begin
from tests.unit.compute.kubernetes.workloads import claimed, probe_until

LATER_S = 3600.0


@pytest.fixture
def wanted(cluster, backend, tmp_path):
    """A running attempt that a task wants."""
    attempt = claimed(tmp_path / "store", steps=2000, step_s=0.05)
    owners.enter(attempt.store, attempt.directory, Owner(dag_id="dag", run_id="run", task_id="task"))
    begin(cluster, backend, attempt)
    yield attempt
    backend.stop(attempt)


def search(backend, store):
    return OrphanSearch(backend.api, backend.paths, store)


def found(backend, store):
    return [orphan.why for orphan in search(backend, store).find(now=time.time() + LATER_S)]


class TestWhatIsLeftAlone:
    def test_a_job_that_a_task_wants(self, backend, wanted):
        assert found(backend, wanted.store) == []

    def test_a_job_of_another_store(self, backend, wanted, tmp_path):
        assert found(backend, Store.open((tmp_path / "other").as_uri())) == []

    def test_a_young_job(self, backend, wanted):
        wanted.store.delete(wanted.path("claim.json"))
        assert search(backend, wanted.store).find() == []

    def test_a_job_that_has_finished_goes_by_itself(self, cluster, backend, attempt):
        backend.launch(attempt)
        probe_until(backend, attempt, "succeeded")
        assert found(backend, attempt.store) == []


class TestWhatIsRemoved:
    def test_a_job_whose_claim_is_gone(self, cluster, backend, wanted):
        wanted.store.delete(wanted.path("claim.json"))
        (orphan,) = search(backend, wanted.store).find(now=time.time() + LATER_S)
        assert "no claim" in orphan.describe()
        assert search(backend, wanted.store).remove(orphan)
        cluster.wait(lambda: not search(backend, wanted.store).remove(orphan), "it to go")
        assert cluster.pods(wanted.name) == []

    def test_a_job_whose_attempt_ended_long_ago(self, backend, wanted):
        attempts.give_up(wanted, WorkloadFailed("enough"))
        (why,) = found(backend, wanted.store)
        assert "minutes ago" in why

    def test_a_job_that_no_task_wants(self, backend, wanted):
        owners.leave(wanted.store, wanted.directory, Owner(dag_id="dag", run_id="run", task_id="task"))
        assert found(backend, wanted.store) == ["no task wants it any more"]

    def test_a_train_job_that_finished_long_ago(self, cluster, backend, tmp_path):
        """Kubeflow gives it no time to live."""
        attempt = attempt_of(tmp_path, nodes=2)
        on_kubeflow = replace(backend, multi_node="trainjob", training_runtime="nosuch", ttl_s=600)
        on_kubeflow.launch(attempt)
        probe_until(on_kubeflow, attempt, "failed")
        finds = OrphanSearch(on_kubeflow.api, on_kubeflow.paths, attempt.store, ttl_s=600)
        assert finds.find(now=time.time() + 500) == []
        (orphan,) = finds.find(now=time.time() + 7300)
        assert orphan.describe().endswith("it finished 2 hours ago")
        assert finds.remove(orphan)
        cluster.faults.wait(lambda: not cluster.faults.objects("trainjobs"), "it to go")

    def test_a_pod_without_its_job(self, cluster, backend, wanted):
        cluster.delete_job(wanted.name, propagation="Orphan")
        (orphan,) = search(backend, wanted.store).find(now=time.time() + LATER_S)
        assert orphan.kind == "Pod"
        assert search(backend, wanted.store).remove(orphan)
        cluster.wait(lambda: not cluster.pods(wanted.name), "it to go")
