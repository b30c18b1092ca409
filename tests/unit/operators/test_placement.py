"""From what a DAG author writes to what a waiting task has to know."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute.contract import Artifact, Workload
from genai_operators.compute.kubernetes.settings import KubernetesSettings
from genai_operators.compute.reach import bring_within_reach
from genai_operators.compute.resources import GIB, Resources
from genai_operators.exceptions import BudgetExceeded, ConfigurationError, ManifestMismatch
from genai_operators.operators.ladders import Ladders
from genai_operators.operators.placement import HEAVY, LIGHT, Placement, place
from genai_operators.store import Store, directory_manifest, sha256_file

IMAGE = "registry.example/workload@sha256:" + "0" * 64


@pytest.fixture(autouse=True)
def connection(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"in_cluster": True, "namespace": "team", "image": IMAGE, "secret_env": {"AWS_SECRET_ACCESS_KEY": "s3/key"}}
    monkeypatch.setenv("AIRFLOW_CONN_GENAI_KUBERNETES", json.dumps({"conn_type": "kubernetes", "extra": extra}))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def placed(compute: Any = "kubernetes", **more: Any) -> Placement:
    arguments = {"hardware": None, "max_cost": None, "kind": "fine_tune", "environment": "workload", **more}
    return place(compute=compute, **arguments)


class TestThisMachine:
    def test_is_described_as_ever(self) -> None:
        placement = placed({"target": "local", "python": sys.executable}, hardware={"gpu": "h100"}, max_cost=4)
        assert placement.arguments() == {
            "backend": {"target": "local", "python": sys.executable},
            "ladder": [],
            "budget": None,
        }
        assert not placement.is_elsewhere


class TestCluster:
    def test_the_connection_says_where_and_holds_no_secret(self) -> None:
        backend = dict(placed().backend)
        prices = backend.pop("prices")
        assert all({"on_demand", "spot"} >= set(price) for price in prices.values())
        assert backend == {
            "target": "kubernetes",
            "connection": "genai_kubernetes",
            "clients": "genai_operators.hooks.kubernetes:api_client",
            "namespace": "team",
            "image": IMAGE,
            "secret_env": {"AWS_SECRET_ACCESS_KEY": "s3/key"},
        }
        backend.pop("target")
        assert KubernetesSettings(**backend).require_image() == IMAGE

    def test_what_the_author_says_goes_before_it(self) -> None:
        backend = placed({"target": "kubernetes", "namespace": "mine", "queue": "research"}).backend
        assert (backend["namespace"], backend["queue"]) == ("mine", "research")

    def test_small_machines_where_nobody_asks_for_more(self) -> None:
        assert placed(environment="airflow").ladder == [LIGHT.to_json()]
        assert placed().ladder == [HEAVY.to_json()]

    def test_hardware_is_a_mapping_or_a_list_in_the_order_of_preference(self) -> None:
        one, two = {"gpu": "h100", "gpu_count": 2}, {"gpu": "l4", "gpu_count": 1}
        assert [rung["gpu"] for rung in placed(hardware=one).ladder] == ["h100"]
        assert [rung["gpu"] for rung in placed(hardware=[one, two]).ladder] == ["h100", "l4"]

    def test_or_what_the_plan_stored_for_this_kind_of_workload(self, store: Store) -> None:
        ladders = Ladders({"fine_tune": [Resources(gpu="h100", gpu_count=8)], "evaluate": [Resources(gpu="h100")]})
        uri = ladders.save(store, "bot")
        assert [rung["gpu_count"] for rung in placed(hardware=uri).ladder] == [8]
        assert [rung["gpu_count"] for rung in placed(hardware=uri, kind="evaluate").ladder] == [0]
        assert placed(hardware=uri, kind="drift", environment="airflow").ladder == [LIGHT.to_json()]

    @pytest.mark.parametrize("nothing", [None, "", "None"])
    def test_a_template_that_renders_to_nothing_is_nothing(self, nothing: str | None) -> None:
        placement = placed(hardware=nothing, max_cost=nothing)
        assert (list(placement.ladder), placement.budget) == ([HEAVY.to_json()], None)

    def test_the_budget_is_in_the_currency_of_the_prices(self) -> None:
        hardware = {"gpu": "h100", "gpu_count": 1, "price_per_hour": 4.0, "currency": "EUR"}
        assert placed(hardware=hardware, max_cost="40").budget == {"max_cost": 40.0, "currency": "EUR"}

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"hardware": {"gpus": 4}}, "'gpus' unknown"),
            ({"hardware": "{'gpu': 'h100'}"}, "neither a mapping nor a list"),
            ({"max_cost": "much"}, "a number is needed"),
            ({"compute": {"target": "kubernetes", "connection": "nowhere"}}, "no connection nowhere"),
        ],
    )
    def test_what_cannot_be_is_told(self, wrong: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigurationError, match=message):
            placed(**wrong)

    def test_a_limit_that_an_earlier_workload_used_up_leaves_nothing(self) -> None:
        with pytest.raises(BudgetExceeded, match="Raise it"):
            placed(max_cost="-0.25")


class TestReach:
    def workload(self, **inputs: Artifact) -> Workload:
        return Workload(kind="validate", inputs=inputs)

    def test_files_and_folders_of_this_host_are_copied_once(self, store: Store, tmp_path: Path) -> None:
        rows, model = tmp_path / "rows.csv", tmp_path / "model"
        rows.write_text("text\n")
        model.mkdir()
        (model / "config.json").write_text("{}")
        workload = self.workload(
            rows=Artifact(rows.as_uri(), sha256_file(rows)),
            model=Artifact(model.as_uri(), directory_manifest(model).digest),
            stored=Artifact(store.uri_of("datasets/x"), "d"),
            remote=Artifact("s3://bucket/rows.csv", "d"),
        )
        assert len(bring_within_reach(store, workload)) == 2
        assert bring_within_reach(store, workload) == []
        assert store.get(f"inputs/{sha256_file(rows)}/rows.csv") == b"text\n"
        manifest = store.read_manifest(f"inputs/{directory_manifest(model).digest}/model")
        assert manifest is not None
        assert manifest.digest == directory_manifest(model).digest

    def test_what_changed_meanwhile_is_not_copied_under_a_wrong_name(self, store: Store, tmp_path: Path) -> None:
        rows = tmp_path / "rows.csv"
        rows.write_text("text\n")
        with pytest.raises(ManifestMismatch, match="changed"):
            bring_within_reach(store, self.workload(rows=Artifact(rows.as_uri(), "another")))


def test_light_workloads_ask_for_little() -> None:
    assert LIGHT.gpu_count == HEAVY.gpu_count == 0
    assert LIGHT.memory_bytes <= 4 * GIB
