"""What each workload of a model asks a cluster for."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute.resources import GIB, Resources
from genai_operators.decisions.gpu_prices import price_list
from genai_operators.exceptions import ConfigurationError
from genai_operators.operators.cluster_plan import cluster_plan
from genai_operators.operators.gpu_outlook import Training
from genai_operators.operators.ladders import for_evaluation, ladders_of, of_type, read_ladder, without_gpus
from genai_operators.spec.compute import Compute
from genai_operators.spec.recipe import Recipe
from genai_operators.store import Store

PRICES = price_list({"date": "2026-03-31", "currency": "USD", "gpus": {"h100": {"spot": 2.0, "on_demand": 4.0}}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def compute(**section: Any) -> Compute:
    return Compute.model_validate({"target": "kubernetes", **section})


class TestNamedGpus:
    @pytest.mark.parametrize(("spot", "rungs"), [("never", [False]), ("preferred", [True, False]), ("only", [True])])
    def test_spot_comes_first_where_it_is_preferred(self, spot: str, rungs: list[bool]) -> None:
        assert [rung.spot for rung in of_type(compute(gpu="h100", spot=spot), PRICES)] == rungs

    def test_the_price_is_of_all_of_them(self) -> None:
        (rung,) = of_type(compute(gpu={"type": "h100", "count": 4}, nodes=2), PRICES)
        assert (rung.gpu, rung.gpu_count, rung.nodes, rung.price_per_hour, rung.currency) == ("h100", 4, 2, 32.0, "USD")

    def test_a_limit_that_no_price_could_be_held_to_is_refused(self) -> None:
        assert of_type(compute(gpu="t4"), PRICES)[0].price_per_hour is None
        with pytest.raises(ConfigurationError, match="no on_demand price of t4"):
            of_type(compute(gpu="t4", max_cost=4), PRICES)


class TestEvaluation:
    def test_takes_one_gpu_of_each_kind_at_its_share_of_the_price(self) -> None:
        def h100(count: int, *, spot: bool = False) -> Resources:
            return Resources(
                gpu="h100", gpu_count=count, spot=spot, cpu=4.0 * count, memory_bytes=24 * GIB * count,
                micro_batch=8, price_per_hour=4.0 * count, currency="USD",
            )  # fmt: skip

        rungs = for_evaluation([h100(8), h100(4), h100(8, spot=True)])
        assert [(rung.gpu_count, rung.spot, rung.price_per_hour) for rung in rungs] == [(1, False, 4.0), (1, True, 4.0)]
        assert rungs[0].micro_batch is None

    def test_needs_none_where_the_training_needs_none(self) -> None:
        (rung,) = for_evaluation(without_gpus(compute(gpu="none")))
        assert (rung.gpu, rung.gpu_count) == (None, 0)


class TestModelFile:
    def test_its_cores_and_memory_go_before_the_plans(self) -> None:
        ladders = ladders_of([Resources(cpu=4, memory_bytes=GIB)], compute=compute(cpu=16, memory="64GiB"))
        assert (ladders.by_kind["fine_tune"][0].cpu, ladders.by_kind["fine_tune"][0].memory_bytes) == (16, 64 * GIB)

    @pytest.mark.parametrize(
        ("section", "kinds"),
        [({"gpu": "none"}, {None}), ({"gpu": "l4"}, {"l4"}), ({"gpu": "auto", "spot": "preferred"}, None)],
    )
    def test_decides_what_is_asked_for(
        self, store: Store, project_root: Path, section: dict[str, Any], kinds: set[str | None] | None
    ) -> None:
        training = Training(recipe=Recipe(max_steps=10), champion=None, files=())
        ladders, choice = cluster_plan(
            training, compute=compute(**section), store=store, root=project_root, today=date(2026, 4, 1)
        )
        asked = ladders.by_kind["fine_tune"]
        assert asked
        assert kinds is None or {rung.gpu for rung in asked} == kinds
        assert (choice is None) == (section["gpu"] == "none")
        assert ladders.lines()[0].startswith("fine_tune asks the cluster for ")
        assert read_ladder(ladders.save(store, "bot"), "fine_tune") == list(asked)

    def test_gpus_that_the_plan_doubts_are_taken_with_a_note(self, store: Store, project_root: Path) -> None:
        training = Training(recipe=Recipe(base_model="nobody/knows", max_steps=10), champion=None, files=())
        ladders, choice = cluster_plan(
            training, compute=compute(gpu="h100"), store=store, root=project_root, today=date(2026, 4, 1)
        )
        assert choice is None
        assert ladders.by_kind["fine_tune"][0].gpu == "h100"
        assert "doubts h100" in ladders.lines()[-1]


def test_another_object_is_no_ladder(store: Store) -> None:
    store.put_json("x.json", {"version": 7})
    with pytest.raises(ConfigurationError, match="run the plan task again"):
        read_ladder(store.uri_of("x.json"), "fine_tune")
