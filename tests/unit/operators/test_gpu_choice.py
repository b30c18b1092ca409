"""The GPU plan in the product: what is to be trained, the ladder, the page, and what finished trainings teach."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute.contract import Artifact, Result
from genai_operators.compute.resources import Resources
from genai_operators.decisions.gpu_memory import Constants, training_memory
from genai_operators.decisions.gpu_observation import Observation
from genai_operators.decisions.gpu_options import Knowledge
from genai_operators.decisions.gpu_prices import PriceList, Purchase, price_list
from genai_operators.decisions.gpu_setup import Method, Precision, Sharding
from genai_operators.exceptions import ConfigurationError, DataError
from genai_operators.operators.fine_tune import FineTuneOperator
from genai_operators.operators.gpu_choice import GpuChoice, GpuWish, choose, project_prices
from genai_operators.operators.gpu_learning import OBSERVATIONS, knowledge, observe, observe_training
from genai_operators.operators.gpu_outlook import Training, binding_choice, gpu_choice, gpu_outlook
from genai_operators.operators.outlook import canary_forecast, canary_lines
from genai_operators.operators.plan_page import PlanPage
from genai_operators.operators.training_need import (
    Rows,
    TrainingNeed,
    base_shape,
    expected_rows,
    training_need,
)
from genai_operators.release.ledger import Action, Ledger, LedgerEntry
from genai_operators.release.plan import Baseline
from genai_operators.spec.canary import Canary
from genai_operators.spec.compute import Compute
from genai_operators.spec.recipe import Recipe
from genai_operators.store import Store

TODAY = date(2026, 4, 1)
CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}
LORA = Recipe(base_model="meta/llama", method="lora", dtype="bfloat16", batch_size=16, max_length=2048, max_steps=500)
PRICES = price_list(
    {
        "date": "2026-03-31",
        "currency": "USD",
        "gpus": {
            "l4": {"on_demand": 0.8, "spot": 0.4},
            "a100-80gb": {"on_demand": 2.5, "spot": 1.4},
            "h100": {"on_demand": 4.8, "spot": 2.7},
        },
    }
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a price file and the configuration of one hub model."""
    include = tmp_path / "project/include"
    (include / "configs").mkdir(parents=True)
    (include / "configs/meta--llama.json").write_text(json.dumps(CONFIG))
    gpus = "gpus: {a100-80gb: {on_demand: 2.5, spot: 1.4}, h100: {on_demand: 4.8}}"
    (include / "prices.yaml").write_text(f"date: 2026-03-31\ncurrency: USD\n{gpus}\n")
    return include.parent


def need(recipe: Recipe = LORA, *, root: Path) -> TrainingNeed:
    rows = Rows(count=8_000, mean_tokens=600.0, known_from="8,000")
    return training_need(recipe, shape=base_shape(recipe, champion=None, root=root), rows=rows)


def chosen(root: Path, *, prices: PriceList = PRICES, known: Knowledge | None = None, **wish: Any) -> GpuChoice:
    return choose(need(root=root), wish=GpuWish(**wish), prices=prices, knowledge=known or Knowledge(), today=TODAY)


def champion(store: Store, *, metrics: dict[str, float]) -> LedgerEntry:
    directory = "workloads/fine_tune/abc"
    store.put_json(f"{directory}/result.json", {"metrics": metrics})
    model = f"{directory}/attempts/1/output/model"
    store.put_json(f"{model}/config.json", CONFIG)
    evidence = {"model": store.uri_of(model)}
    return Ledger(store, "bot").append(
        Action.PROMOTE, 1, "d", actor="me", reason="first", evidence=evidence, expected_epoch=0
    )


class TestWhatIsToBeTrained:
    def test_the_setup_is_what_our_trainer_does(self, root: Path) -> None:
        setup = need(root=root).setup
        assert (setup.method, setup.precision, setup.autocast) == (Method.LORA, Precision.BF16, True)
        assert not setup.checkpointing
        assert setup.sequence_length == 2048
        assert need(LORA.model_copy(update={"dtype": "float32"}), root=root).setup.precision is Precision.FP32

    def test_the_shape_comes_from_a_file_that_is_here(self, root: Path, store: Store, tmp_path: Path) -> None:
        expected = base_shape(LORA, champion=None, root=root)
        assert expected.parameters == pytest.approx(8.03e9, rel=0.01)
        folder = tmp_path / "base"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG))
        for where in (str(folder), folder.as_uri()):
            recipe = LORA.model_copy(update={"base_model": where})
            assert base_shape(recipe, champion=None, root=root) == expected
        assert base_shape(LORA, champion=champion(store, metrics={}), root=root) == expected

    def test_a_model_from_scratch_needs_no_file(self, root: Path) -> None:
        assert base_shape(Recipe(), champion=None, root=root).parameters == 1_049_728

    def test_without_a_configuration_it_says_what_to_do_and_downloads_nothing(self, root: Path) -> None:
        recipe = LORA.model_copy(update={"base_model": "org/other"})
        with pytest.raises(ConfigurationError, match=r"include/configs/org--other\.json.*gpu: \{type"):
            base_shape(recipe, champion=None, root=root)

    def test_rows_are_counted_in_the_files(self, root: Path) -> None:
        (root / "rows.jsonl").write_text("".join(f'{{"text": "{"x" * 341}"}}\n' for _ in range(50)))
        rows = expected_rows(["rows.jsonl"], champion=None, root=root)
        assert rows.count == 50
        assert rows.mean_tokens == pytest.approx(101, abs=2)

    def test_a_refresh_learns_about_as_many_as_the_champion(self, root: Path, store: Store) -> None:
        entry = champion(store, metrics={"train_rows": 360.0, "train_tokens": 36_000.0})
        rows = expected_rows(["rows.jsonl"], champion=entry, root=root)
        assert (rows.count, rows.mean_tokens) == (360, 100.0)

    @pytest.mark.parametrize("name", ["s3://bucket/rows.jsonl", "missing.jsonl", "rows.parquet"])
    def test_what_is_not_known_is_assumed_and_said(self, root: Path, name: str) -> None:
        rows = expected_rows([name], champion=None, root=root)
        assert rows.mean_tokens is None
        assert "assumed" in rows.known_from
        wanted = training_need(Recipe(), shape=base_shape(Recipe(), champion=None, root=root), rows=rows)
        assert any("longest allowed" in note for note in wanted.notes)


class TestLadder:
    def test_each_rung_holds_the_upper_bound_and_what_it_costs(self, root: Path) -> None:
        choice = chosen(root)
        for rung, way in zip(choice.ladder, choice.plan.chain, strict=True):
            assert rung.gpu == way.gpu
            assert rung.gpu_memory_bytes >= way.memory.upper > training_memory(need(root=root).shape, way.setup).peak
            assert (rung.micro_batch, rung.spot) == (way.setup.micro_batch, way.purchase is Purchase.SPOT)
            price = PRICES.gpus[way.gpu].of(way.purchase)
            assert price is not None
            assert rung.price_per_hour == pytest.approx(way.count * price)
            assert rung.currency == "USD"
            assert rung.memory_bytes > rung.shared_memory_bytes > 0
            assert rung.scratch_bytes > 6 * 4 * need(root=root).shape.parameters, "two checkpoints with two moments"

    def test_it_goes_from_spot_to_what_stays(self, root: Path) -> None:
        assert [rung.spot for rung in chosen(root).ladder[:2]] == [True, False]
        assert not any(rung.spot for rung in chosen(root, purchases=frozenset({Purchase.ON_DEMAND})).ladder)
        assert all(rung.spot for rung in chosen(root, purchases=frozenset({Purchase.SPOT})).ladder)

    def test_a_named_type_and_count_are_kept(self, root: Path) -> None:
        rungs = chosen(root, types=("h100",), counts=(4,)).ladder
        assert {(rung.gpu, rung.gpu_count) for rung in rungs} == {("h100", 4)}

    def test_what_our_trainer_cannot_split_is_not_planned(self, root: Path) -> None:
        """Full training of 8 billion parameters would fit on eight GPUs in parts; each of ours holds all of it."""
        whole = need(Recipe.model_validate({**LORA.to_json(), "method": "full"}), root=root)
        with pytest.raises(ConfigurationError, match="nothing fits"):
            choose(whole, wish=GpuWish(), prices=PRICES, knowledge=Knowledge(), today=TODAY)
        several = chosen(root, types=("h100",), counts=(8,))
        assert several.plan.chosen.setup.sharding is Sharding.DDP

    def test_nodes_share_the_batch_and_cost_together(self, root: Path) -> None:
        one, two = chosen(root, types=("h100",), counts=(4,)), chosen(root, types=("h100",), counts=(4,), nodes=2)
        assert two.ladder[0].nodes == 2
        assert two.ladder[0].price_per_hour == pytest.approx(2 * (one.ladder[0].price_per_hour or 0))
        assert two.plan.chosen.hours.expected < one.plan.chosen.hours.expected
        assert (two.ladder[0].micro_batch or 0) * two.plan.chosen.setup.accumulation * 4 * 2 == LORA.batch_size
        with pytest.raises(ConfigurationError, match="split over 3 nodes"):
            chosen(root, nodes=3)

    def test_more_than_the_run_may_cost_is_refused_before_it_starts(self, root: Path) -> None:
        cost = chosen(root).plan.chosen.cost
        with pytest.raises(ConfigurationError, match=r"max_cost is .* expected to cost"):
            chosen(root, max_cost=cost.expected * 0.9)
        near = chosen(root, max_cost=(cost.expected + cost.upper) / 2)
        assert any("checkpoints and stops" in note for note in near.notes)
        assert len(near.ladder) < len(chosen(root).ladder)

    def test_own_prices_override_the_shipped_ones(self, root: Path) -> None:
        (root / "include/prices.override.yaml").write_text("gpus: {h100: {on_demand: 1.0}}\n")
        prices = project_prices(root)
        assert (prices.gpus["h100"].on_demand, prices.gpus["a100-80gb"].on_demand) == (1.0, 2.5)


class TestModelFile:
    TRAINING = Training(recipe=LORA, champion=None, files=())

    def choice(self, root: Path, store: Store, **section: Any) -> tuple[GpuChoice | None, str]:
        compute = Compute.model_validate({"target": "kubernetes", **section})
        return binding_choice(self.TRAINING, compute=compute, store=store, root=root, today=TODAY)

    def test_auto_asks_the_plan(self, root: Path, store: Store) -> None:
        choice, _ = self.choice(root, store)
        assert choice is not None
        assert {rung.gpu for rung in choice.ladder} == {"h100", "a100-80gb"}
        assert not any(rung.spot for rung in choice.ladder), "spot: never is the default"

    def test_spot_nodes_and_cost_arrive(self, root: Path, store: Store) -> None:
        choice, _ = self.choice(root, store, spot="preferred", nodes=2, max_cost=1000)
        assert choice is not None
        assert [rung.spot for rung in choice.ladder[:2]] == [True, False]
        assert {rung.nodes for rung in choice.ladder} == {2}
        with pytest.raises(ConfigurationError, match="max_cost"):
            self.choice(root, store, max_cost=0.01)

    def test_a_named_type_is_taken_with_its_count(self, root: Path, store: Store) -> None:
        choice, _ = self.choice(root, store, gpu={"type": "h100", "count": 4})
        assert choice is not None
        assert {(rung.gpu, rung.gpu_count) for rung in choice.ladder} == {("h100", 4)}

    def test_a_named_type_is_obeyed_in_spite_of_doubts(self, root: Path, store: Store) -> None:
        choice, note = self.choice(root, store, gpu="l4")
        assert choice is None
        assert "doubts l4" in note


class TestOutlook:
    def test_it_is_one_line_where_training_is_local(self, root: Path, store: Store) -> None:
        choice, note = gpu_outlook(Training(recipe=LORA, champion=None, files=()), store=store, root=root, today=TODAY)
        assert choice is not None
        assert note.startswith("trains on this machine; on a cluster it would be 1 x a100-80gb spot, ")

    def test_it_never_fails_a_plan(self, root: Path, store: Store) -> None:
        (root / "include/prices.yaml").unlink()
        training = Training(recipe=LORA, champion=None, files=())
        choice, note = gpu_outlook(training, store=store, root=root, today=TODAY)
        assert (choice, note.startswith("no outlook on GPUs: price file")) == (None, True)


def finished(store: Store, name: str, *, peak: float, resources: Resources, seconds: float = 60.0) -> Result:
    """A fine-tuning that ended."""
    directory = f"workloads/fine_tune/{name}"
    for number in (1, 2):
        store.put_json(f"{directory}/attempts/{number}/claim.json", {"resources": resources.to_json()})
    metrics = {"train_rows": 8000.0, "train_tokens": 4_800_000.0, "longest_row_tokens": 2048.0, "train_steps": 500.0}
    return Result(
        attempt=1,
        outputs={"model": Artifact(uri=store.uri_of(f"{directory}/attempts/1/output/model"), digest="d")},
        metrics={**metrics, "peak_gpu_memory_bytes": peak} if peak else metrics,
        seconds=seconds,
    )


class TestLearning:
    RUNG = Resources(gpu="a100-80gb", gpu_count=1, micro_batch=1)

    def observe(self, store: Store, name: str, root: Path, **options: Any) -> bool:
        result = finished(store, name, **{"resources": self.RUNG, **options})
        return observe(store, f"workloads/fine_tune/{name}", result, need=need(root=root))

    def expected_peak(self, root: Path) -> float:
        setup = replace(need(root=root).setup, accumulation=16)
        return training_memory(need(root=root).shape, setup, constants=Constants(fragmentation=0.0)).allocated

    def test_peaks_as_foretold_narrow_the_plan(self, root: Path, store: Store) -> None:
        peak = self.expected_peak(root)
        for number in range(6):
            assert self.observe(store, f"run{number}", root, peak=peak)
        before, after = chosen(root).plan.chosen, chosen(root, known=knowledge(store)).plan.chosen
        assert after.memory.upper / after.memory.expected < 0.97 * before.memory.upper / before.memory.expected
        assert after.memory.expected == pytest.approx(before.memory.expected, rel=0.02)

    def test_larger_peaks_raise_the_bound(self, root: Path, store: Store) -> None:
        for number in range(3):
            self.observe(store, f"run{number}", root, peak=1.4 * self.expected_peak(root))
        kind = "lora/none"
        assert knowledge(store).memory.factor(kind).upper > 1.2 * Knowledge().memory.factor(kind).upper

    def test_times_correct_the_hours_on_that_gpu_alone(self, root: Path, store: Store) -> None:
        way = next(w for w in chosen(root, types=("a100-80gb",)).plan.options if w.count == 1)
        for number in range(5):
            self.observe(store, f"run{number}", root, peak=5e10, seconds=1.8 * way.hours.expected * 3600)
        known = knowledge(store).time
        assert known.factor("lora/none/a100-80gb").expected > 1.3
        assert known.factor("lora/none/h100") == Knowledge().time.factor("lora/none/h100")

    def test_a_retry_teaches_nothing_twice(self, root: Path, store: Store) -> None:
        assert self.observe(store, "run", root, peak=5e10)
        learnt = knowledge(store)
        assert not self.observe(store, "run", root, peak=9e10)
        assert knowledge(store) == learnt

    def test_training_on_cpus_teaches_no_gpu_memory(self, root: Path, store: Store) -> None:
        assert not self.observe(store, "run", root, peak=0.0, resources=Resources())
        assert list(store.list(OBSERVATIONS)) == []

    def test_the_supervisors_last_word_counts_where_the_workload_said_nothing(self, root: Path, store: Store) -> None:
        store.put_json("workloads/fine_tune/run/attempts/1/heartbeat.json", {"peak_gpu_memory_bytes": 4e10})
        assert self.observe(store, "run", root, peak=0.0)
        (info,) = store.list(OBSERVATIONS)
        (record,) = store.get_json(info.path)["observations"]
        assert (record["peak"], record["peak_is"]) == (4e10, "shown")

    def test_an_attempt_that_resumed_teaches_no_time(self, root: Path, store: Store) -> None:
        result = replace(finished(store, "run", peak=5e10, resources=self.RUNG, seconds=7200.0), attempt=2)
        assert observe(store, "workloads/fine_tune/run", result, need=need(root=root))
        assert not knowledge(store).time.kinds

    def test_a_training_is_read_from_its_own_records(self, root: Path, store: Store) -> None:
        result = finished(store, "run", peak=5e10, resources=self.RUNG)
        store.put_json("workloads/fine_tune/run/spec.json", {"params": {"recipe": LORA.to_json()}})
        store.put_json("workloads/fine_tune/run/attempts/1/output/model/config.json", CONFIG)
        assert observe_training(store, result)
        assert not observe_training(store, result)
        (info,) = store.list(OBSERVATIONS)
        (record,) = store.get_json(info.path)["observations"]
        seen = Observation.from_json(record)
        assert seen.shape == need(root=root).shape
        assert (seen.run.steps, seen.run.mean_length, seen.gpu) == (500, 600.0, "a100-80gb")

    def test_a_gpu_that_was_too_small_raises_the_bound(self, root: Path, store: Store) -> None:
        small = Resources(gpu="l4", gpu_count=1, micro_batch=1)
        result = replace(finished(store, "run", peak=0.0, resources=small), attempt=2)
        for memory, learnt in (("host", False), ("gpu", True)):
            ending = {"code": 1, "error": "OutOfMemory", "memory": memory}
            store.put_json("workloads/fine_tune/run/attempts/1/exit.json", ending)
            assert observe(store, "workloads/fine_tune/run", result, need=need(Recipe(), root=root)) is learnt
        kind = "full/none"
        assert knowledge(store).memory.factor(kind).upper > Knowledge().memory.factor(kind).upper

    @pytest.mark.parametrize("record", [[], {"observations": [{"version": 9}]}, {"observations": 3}])
    def test_a_record_of_another_form_is_named(self, store: Store, record: Any) -> None:
        store.put_json(f"{OBSERVATIONS}/abc.json", record)
        with pytest.raises(DataError, match=r"gpu_plan/observations/abc\.json.*Delete it"):
            knowledge(store)

    def test_a_plan_is_made_with_what_was_learnt(self, root: Path, store: Store) -> None:
        training = Training(recipe=LORA, champion=None, files=())
        before = gpu_choice(training, wish=GpuWish(), store=store, root=root, today=TODAY)
        self.observe(store, "run", root, peak=1.3 * self.expected_peak(root))
        after = gpu_choice(training, wish=GpuWish(), store=store, root=root, today=TODAY)
        assert after.ladder[0].gpu_memory_bytes > before.ladder[0].gpu_memory_bytes


class TestFineTuneOperator:
    def finish(self, store: Store, config: dict[str, Any]) -> dict[str, Any]:
        result = finished(store, "run", peak=5e10, resources=TestLearning.RUNG)
        store.put_json("workloads/fine_tune/run/spec.json", {"params": {"recipe": LORA.to_json()}})
        store.put_json("workloads/fine_tune/run/attempts/1/output/model/config.json", config)
        operator = FineTuneOperator(task_id="t", model="bot", dataset="file:///d", store=store.uri)
        context: Any = {}
        return operator.finish(context, result)

    def test_a_finished_training_teaches_the_next_plan(self, store: Store) -> None:
        assert self.finish(store, CONFIG) == {}
        assert knowledge(store).memory.kinds

    def test_a_model_that_the_plan_does_not_understand_fails_no_training(self, store: Store) -> None:
        assert self.finish(store, {"kv_lora_rank": 512, "model_type": "deepseek"}) == {}
        assert not knowledge(store).memory.kinds


class TestPage:
    def page(self, root: Path, **changes: Any) -> PlanPage:
        return PlanPage(
            model="bot",
            subtitle="manual run",
            reason="somebody asked",
            headings=("workload", "takes"),
            workloads=[("validate", "20 s")],
            release=("5 % for at least 10m",),
            deadline_s=3600.0,
            **changes,
        )

    def test_it_shows_the_plan_of_gpus_and_why_others_are_out(self, root: Path) -> None:
        html = self.page(root, gpus=chosen(root)).html()
        assert "Expected cost of the cheapest way with each GPU type" in html
        assert "What is not taken, and why" in html
        assert html.count("<svg") == 1

    def test_it_shows_the_forecast_as_a_plot_and_not_again_as_lines(self, root: Path) -> None:
        canary = Canary()
        traffic = Baseline(requests=5000, seconds=500, bad={"errors": 0.01, "invalid_output": 0.01})
        lines = tuple(canary_lines(canary, traffic=traffic, has_champion=True))
        page = self.page(root, forecast=canary_forecast(canary, traffic))
        html = replace(page, release=lines).html()
        assert html.count("<svg") == 1
        assert "errors at 1.0" in "".join(lines)
        assert "errors at 1.0" not in html
        assert "recent traffic: 10 requests/s" in html

    def test_the_same_page_is_stored_once(self, root: Path, store: Store) -> None:
        page = self.page(root, gpu_note="no outlook on GPUs")
        path = page.save(store)
        assert path.startswith("plans/bot/")
        assert page.save(store) == path
        assert "no outlook on GPUs" in store.get(path).decode()
