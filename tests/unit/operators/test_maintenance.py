"""The hourly clean-up of a cluster, as Airflow runs it."""

from __future__ import annotations

import json

import pytest

from genai_operators.compute import owners
from genai_operators.compute.kubernetes import orphans
from genai_operators.compute.kubernetes.backend import KubernetesCompute
from genai_operators.compute.owners import Owner
from tests.fakes.kubernetes.fixture import cluster_from_environment
from tests.unit.compute.kubernetes.workloads import claimed


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with cluster_from_environment(folder=tmp_path_factory.mktemp("cluster")) as found:
        yield found


def remove_orphans(store, **arguments):
    from genai_operators.operators.maintenance import RemoveOrphansOperator

    return RemoveOrphansOperator(task_id="remove_orphans", store=store.uri, **arguments).execute({})


def names_of(objects):
    return [found["metadata"]["name"] for found in objects]


class TestRemoveOrphans:
    @pytest.fixture(autouse=True)
    def _connection(self, cluster, monkeypatch):
        extra = {"kube_config_path": str(cluster.kubeconfig), "namespace": cluster.namespace}
        told = {"conn_type": "kubernetes", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_GENAI_KUBERNETES", json.dumps(told))

    def test_what_no_task_wants_is_removed_and_what_one_wants_is_left(self, cluster, tmp_path, monkeypatch):
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        settings = {"namespace": cluster.namespace, "image": cluster.image, "service_account": "default"}
        env = {"GENAI_EXTRA_WORKLOADS": "checkpointing=tests.fakes.checkpointing:checkpointing"}
        backend = KubernetesCompute(**settings, env=env)
        wanted = claimed(tmp_path / "store", name="wanted", steps=2000, step_s=0.05)
        left = claimed(tmp_path / "store", name="left", steps=2000, step_s=0.05)
        owners.enter(wanted.store, wanted.directory, Owner(dag_id="dag", run_id="run", task_id="task"))
        for attempt in (wanted, left):
            backend.launch(attempt)
        assert remove_orphans(wanted.store) == []  # they are young
        monkeypatch.setattr(orphans, "YOUNG_S", -1.0)
        assert remove_orphans(wanted.store, dry_run=True) == [left.name]
        assert remove_orphans(wanted.store) == [left.name]
        cluster.wait(lambda: left.name not in names_of(cluster.objects("jobs")), "it to go")
        assert wanted.name in names_of(cluster.objects("jobs"))
        backend.stop(wanted)


class TestWithoutACluster:
    def test_it_is_skipped_and_says_why(self, tmp_path, monkeypatch):
        from airflow.sdk.exceptions import AirflowSkipException

        from genai_operators.store import Store

        told = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(tmp_path / "nowhere")}}
        monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", json.dumps(told))
        with pytest.raises(AirflowSkipException, match="no cluster is configured"):
            remove_orphans(Store.open(tmp_path / "store"), compute={"connection": "nowhere"})
