"""A plan fits, respects its limits, explains itself, falls back in order, and learns from own runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.gpu_published import shapes
from genai_operators.decisions.gpu_catalogue import CATALOGUE, gpu_named
from genai_operators.decisions.gpu_margin import Residuals, memory_residuals
from genai_operators.decisions.gpu_memory import training_memory
from genai_operators.decisions.gpu_observation import LEAST_HOURS, Observation, PeakIs, learn_from
from genai_operators.decisions.gpu_options import Knowledge, Option, TrainingRun, interruption_hours
from genai_operators.decisions.gpu_plan import GpuPlan, Limits, duration, plan
from genai_operators.decisions.gpu_prices import PriceList, Purchase, price_list
from genai_operators.decisions.gpu_setup import Method, Precision, Sharding, TrainingSetup
from genai_operators.decisions.gpu_speed import training_flops, utilisation
from genai_operators.exceptions import ConfigurationError, DataError
from genai_operators.gpu_plan_report import gpu_plan_page
from genai_operators.price_file import read_prices

SHAPES = shapes()
LLAMA_3_8B = SHAPES["llama-3.1-8b"]
RUN = TrainingRun(sequences=10_000, global_batch=16)
LORA = TrainingSetup(method=Method.LORA, sequence_length=2048)
RECORD: dict[str, Any] = {
    "date": "2026-03-31",
    "currency": "USD",
    "gpus": {
        "l4": {"on_demand": 0.8, "spot": 0.4},
        "a100-80gb": {"on_demand": 2.5, "spot": 1.4},
        "h100": {"on_demand": 4.8},
    },
}
SHIPPED = Path(__file__).resolve().parents[3] / "include" / "prices.yaml"


def made(**options: Any) -> GpuPlan:
    given = {"setup": LORA, "run": RUN, "prices": price_list(RECORD), "shape": LLAMA_3_8B, **options}
    return plan(given.pop("shape"), given.pop("setup"), given.pop("run"), **given)


class TestPlan:
    def test_the_cheapest_that_fits_is_chosen(self):
        found = made()
        costs = [way.cost.expected for way in found.options]
        assert costs == sorted(costs)
        assert found.chosen == found.options[0]
        for way in found.options:
            assert way.memory.upper <= way.capacity == CATALOGUE[way.gpu].memory
            assert way.setup.micro_batch * way.setup.accumulation * way.count == RUN.global_batch
            assert way.memory.lower < way.memory.expected < way.memory.upper
            assert way.hours.lower < way.hours.expected < way.hours.upper

    def test_each_way_is_taken_rejected_or_in_the_chain(self):
        """3 types x 4 counts, two of the types bought in two ways; nothing is dropped silently."""
        found = made()
        taken = {(way.gpu, way.count, way.purchase) for way in found.chain}
        out = {(no.gpu, no.count, purchase) for no in found.rejected
               for purchase in ([no.purchase] if no.purchase else list(Purchase))}  # fmt: skip
        everything = {(name, count, purchase) for name, price in price_list(RECORD).gpus.items()
                      for count in (1, 2, 4, 8) for purchase in Purchase if price.of(purchase) is not None}  # fmt: skip
        assert taken | out >= everything
        assert not taken & out
        assert all(no.reason for no in found.rejected)

    def test_the_chain_changes_what_could_fail(self):
        chain = made().chain
        assert len({(way.gpu, way.purchase) for way in chain}) == len(chain)
        for earlier, later in pairwise(chain):
            assert earlier.cost.expected <= later.cost.expected
            assert later.gpu != earlier.gpu or later.purchase is Purchase.ON_DEMAND

    def test_why_a_small_gpu_is_out(self):
        no = next(no for no in made(setup=replace(LORA, sequence_length=8192)).rejected if no.gpu == "l4")
        assert "needs up to" in no.reason
        assert "24.2 GB" in no.reason

    def test_limits_are_held_by_the_upper_bound(self):
        free = made()
        limit = free.chosen.hours.upper * 0.9
        faster = made(limits=Limits(hours=limit))
        assert all(way.hours.upper <= limit for way in faster.options)
        assert any(f"the limit is {duration(limit)}" in no.reason for no in faster.rejected)

    def test_without_spot(self):
        assert all(way.purchase is Purchase.ON_DEMAND for way in made(limits=Limits(spot=False)).options)

    def test_bf16_needs_a_gpu_that_has_it(self):
        prices = price_list(RECORD, {"gpus": {"t4": {"on_demand": 0.2}}})
        small = SHAPES["phi-1.5"]
        assert any("no bf16" in no.reason for no in made(shape=small, prices=prices).rejected)
        half = made(shape=small, prices=prices, setup=replace(LORA, precision=Precision.FP16))
        assert any(way.gpu == "t4" for way in half.options)

    def test_several_gpus_make_a_model_fit(self):
        found = made(setup=TrainingSetup(method=Method.FULL), limits=Limits(spot=False))
        assert found.chosen.count > 1
        assert found.chosen.setup.sharding is not Sharding.NONE

    def test_half_the_micro_batch_after_out_of_memory(self):
        way = replace(made().chosen, setup=replace(LORA, micro_batch=4, accumulation=4))
        smaller = way.halved()
        assert smaller is not None
        assert (smaller.micro_batch, smaller.accumulation) == (2, 8)
        assert training_memory(LLAMA_3_8B, smaller).peak < training_memory(LLAMA_3_8B, way.setup).peak
        assert replace(way, setup=LORA).halved() is None

    def test_it_replays(self):
        assert made().to_json() == made().to_json()
        assert json.loads(json.dumps(made().to_json()))["chain"][0]["gpu"] == made().chosen.gpu

    def test_the_text_says_everything(self):
        text = made().render_text()
        for word in ("GPU plan:", "micro-batch", "peak", " GB", " h", "USD", "1. else", "not "):
            assert word in text

    @settings(max_examples=6, deadline=None)
    @given(
        sequences=st.integers(100, 100_000),
        length=st.sampled_from([256, 1024, 4096]),
        factor=st.floats(1.1, 4),
    )
    def test_more_work_costs_more_and_dearer_gpus_too(self, sequences: int, length: int, factor: float):
        setup = replace(LORA, sequence_length=length)

        def cost_of(sequences: int, record: dict[str, Any] = RECORD) -> float:
            run = TrainingRun(sequences=sequences)
            return made(setup=setup, run=run, prices=price_list(record), counts=(1, 2)).chosen.cost.expected

        cost, more = cost_of(sequences), cost_of(2 * sequences)
        assert more > cost
        dear = {name: {k: v * factor for k, v in prices.items()} for name, prices in RECORD["gpus"].items()}
        assert cost_of(sequences, {**RECORD, "gpus": dear}) == pytest.approx(cost * factor)


class TestImpossible:
    def test_nothing_fits_and_why(self):
        with pytest.raises(ConfigurationError, match=r"nothing fits.*1, 2, 4 or 8 x l4: needs up to"):
            made(shape=SHAPES["llama-3.1-70b"], setup=TrainingSetup(method=Method.FULL))

    def test_a_budget_too_small(self):
        with pytest.raises(ConfigurationError, match=r"the limit is 0\.01"):
            made(limits=Limits(cost=0.01))

    def test_an_unknown_gpu_with_its_nearest_name(self):
        with pytest.raises(ConfigurationError, match=r"'a100-80g'.*did you mean 'a100-80gb'"):
            made(gpus=["a100-80g"])

    def test_a_gpu_without_price(self):
        with pytest.raises(ConfigurationError, match="'h200' has no price"):
            made(gpus=["h200"])

    @pytest.mark.parametrize("options", [{"hours": 0}, {"cost": -1}, {"hours": float("nan")}])
    def test_a_limit_that_cannot_be(self, options: dict[str, float]):
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            Limits(**options)

    @pytest.mark.parametrize(
        "options", [{"sequences": 0}, {"epochs": float("nan")}, {"mean_length": -3.0}, {"overhead": -0.1}]
    )
    def test_a_run_that_cannot_be(self, options: dict[str, Any]):
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            TrainingRun(**{"sequences": 10, **options})


class TestPrices:
    def test_the_shipped_file_is_valid(self):
        prices = read_prices(SHIPPED)
        assert prices.currency == "USD"
        assert set(prices.gpus) <= set(CATALOGUE)

    def test_an_override_changes_single_fields(self, tmp_path: Path):
        own = tmp_path / "own.yaml"
        own.write_text("date: 2026-10-01\ngpus:\n  h100: {on_demand: 1.0}\n")
        prices = read_prices(SHIPPED, own)
        assert prices.gpus["h100"].on_demand == 1.0
        assert prices.gpus["h100"].spot == read_prices(SHIPPED).gpus["h100"].spot
        assert prices.at == date(2026, 10, 1)

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"gpus": {"l4": {"on_demand": -1}}}, r"gpus\.l4\.on_demand is -1"),
            ({"gpus": {"l4": {"spot": float("nan")}}}, r"gpus\.l4\.spot is nan"),
            ({"gpus": {"l4": {}}}, "neither on_demand nor spot"),
            ({"gpus": {"l5": {"spot": 1}}}, "'l5' is unknown"),
            ({"gpus": {"l4": {"on-demand": 1}}}, "on-demand unknown"),
            ({"gpus": []}, "gpus is"),
            ({"currency": "dollars"}, "currency is 'dollars'"),
            ({"date": "last week"}, "date is 'last week'"),
            ({"prices": 1}, "prices unknown"),
        ],
    )
    def test_a_wrong_file_is_refused_by_name(self, change: dict[str, Any], named: str):
        with pytest.raises(ConfigurationError, match=named):
            price_list({**RECORD, **change})

    def test_two_currencies(self):
        with pytest.raises(ConfigurationError, match="'EUR' over 'USD'"):
            price_list(RECORD, {"currency": "EUR", "gpus": {}})

    @pytest.mark.parametrize(("text", "named"), [("a: [", "not YAML"), ("- 1", "a mapping"), (None, "No such file")])
    def test_a_file_that_cannot_be_read(self, tmp_path: Path, text: str | None, named: str):
        path = tmp_path / "prices.yaml"
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigurationError, match=named):
            read_prices(path)

    def test_old_prices_are_doubted(self):
        found = made()
        assert not found.warnings(date(2026, 5, 1))
        assert "540 days old" in found.warnings(date(2026, 3, 31).replace(year=2027, month=9, day=22))[0]


class TestInterruptions:
    def test_hours_lost(self):
        """One interruption in ten hours, each losing 15 and 9 minutes: of 24.4 h, 2.44 are interrupted."""
        run = TrainingRun(sequences=1, checkpoint_every_hours=0.5, restart_hours=0.15)
        lost = interruption_hours(24.0, run, rate=0.1)
        assert lost == pytest.approx((24.0 + lost) * 0.1 * 0.4)

    def test_more_lost_than_gained(self):
        run = TrainingRun(sequences=1, checkpoint_every_hours=10, restart_hours=5)
        assert math.isinf(interruption_hours(1.0, run, rate=0.2))

    def test_frequent_interruptions_make_spot_dearer(self):
        calm, stormy = ({"gpus": {"a100-80gb": {"on_demand": 2.5, "spot": 1.4, "interruptions_per_hour": rate}}}
                        for rate in (0.01, 1.5))  # fmt: skip
        assert made(prices=price_list({**RECORD, **calm})).chosen.purchase is Purchase.SPOT
        assert made(prices=price_list({**RECORD, **stormy})).chosen.purchase is Purchase.ON_DEMAND


def seen(way: Option, **measured: Any) -> Observation:
    return Observation(shape=LLAMA_3_8B, setup=way.setup, run=RUN, gpu=way.gpu, **measured)


class TestLearning:
    def test_the_default_margin(self):
        assert memory_residuals().factor("any").upper == pytest.approx(1.2, abs=0.005)

    def test_own_peaks_move_and_narrow_the_interval(self):
        way = made().chosen
        knowledge = learn_from([seen(way, peak=way.memory.expected * 1.1, hours=way.estimated_hours * 2)] * 5)
        again = next(w for w in made(knowledge=knowledge).options if w.name == way.name)
        ratio = again.memory.expected / training_memory(LLAMA_3_8B, again.setup).peak
        assert ratio == pytest.approx(1.1, rel=0.02)
        assert again.memory.upper / again.memory.lower < way.memory.upper / way.memory.lower
        assert again.hours.expected > 1.7 * way.hours.expected

    def test_order_does_not_matter(self):
        way = made().chosen
        peaks = [way.memory.expected * factor for factor in (0.9, 1.05, 1.2)]
        forward, backward = (
            learn_from([seen(way, peak=value) for value in order]) for order in (peaks, reversed(peaks))
        )
        kind = next(iter(forward.memory.kinds))
        assert forward.memory.factor(kind).upper == pytest.approx(backward.memory.factor(kind).upper)

    def test_other_kinds_of_run_stay_untouched(self):
        way = made().chosen
        knowledge = learn_from([seen(way, peak=way.memory.expected * 1.3)])
        assert knowledge.memory.factor("full/fsdp") == memory_residuals().factor("full/fsdp")

    def test_running_out_of_memory_raises_the_bound(self):
        way = made(gpus=["l4"], setup=replace(LORA, method=Method.QLORA)).chosen
        knowledge = learn_from([seen(way, ran_out_of=way.capacity)])
        kind = next(iter(knowledge.memory.kinds))
        assert knowledge.memory.factor(kind).upper > memory_residuals().factor(kind).upper

    def test_what_was_learned_survives_json(self):
        knowledge = learn_from([seen(made().chosen, peak=2e10, hours=3.0)])
        for residuals in (knowledge.memory, knowledge.time):
            assert Residuals.from_json(json.loads(json.dumps(residuals.to_json()))) == residuals
        with pytest.raises(DataError, match="version 7"):
            Residuals.from_json({**knowledge.memory.to_json(), "version": 7})

    def test_an_observation_survives_json_and_is_folded_by_the_present_formulas(self):
        observation = seen(made().chosen, peak=2e10, hours=3.0)
        again = Observation.from_json(json.loads(json.dumps(observation.to_json())))
        assert again == observation
        assert learn_from([again]) == learn_from([observation])
        for wrong, message in (
            ({"version": 7}, "version 7"),
            ({"shape": {}}, "cannot be read"),
            ({"peak_is": "?"}, "cannot be read"),
        ):
            with pytest.raises(DataError, match=message):
                Observation.from_json({**observation.to_json(), **wrong})

    def test_a_peak_is_held_against_an_estimate_of_the_same(self):
        """What is counted grows from tensors to what nvidia-smi shows, so the same figure says less and less."""
        way = made().chosen
        factors = [
            learn_from([replace(seen(way, peak=2e10), peak_is=kind)]).memory.factor("lora/none").expected
            for kind in (PeakIs.LIVE, PeakIs.NEEDED, PeakIs.SHOWN)
        ]
        assert factors[0] > factors[1] > factors[2]

    def test_a_run_of_minutes_teaches_no_pace(self):
        way = made().chosen
        assert learn_from([seen(way, hours=LEAST_HOURS / 2)]) == Knowledge()
        assert learn_from([seen(way, hours=LEAST_HOURS * 2)]) != Knowledge()

    def test_a_run_on_an_unknown_gpu_teaches_memory_only(self):
        way = made().chosen
        knowledge = learn_from([replace(seen(way, peak=2e10, hours=3.0), gpu=None)])
        assert knowledge.memory.kinds
        assert not knowledge.time.kinds

    @pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
    def test_a_measurement_that_cannot_be(self, value: float):
        with pytest.raises(DataError, match="measured"):
            memory_residuals().observe("lora/none", estimated=1e9, measured=value)


class TestUtilisation:
    def test_fp32_is_as_slow_as_the_data_sheet_says(self):
        options = {"setup": replace(LORA, precision=Precision.FP32), "gpus": ["h100"], "counts": [4]}
        fast, slow = (made(gpus=["h100"], counts=[4]).chosen, made(**options).chosen)
        assert slow.hours.expected > 5 * fast.hours.expected

    def test_slow_memory_wastes_arithmetic(self):
        """An L40S has more peak than an A100 and two fifths of its bandwidth."""
        assert utilisation(LLAMA_3_8B, CATALOGUE["l40s"]) < 0.75 * utilisation(LLAMA_3_8B, CATALOGUE["a100-80gb"])

    def test_wide_models_use_more(self):
        gpu = CATALOGUE["h100"]
        assert utilisation(SHAPES["llama-3.1-70b"], gpu) > utilisation(LLAMA_3_8B, gpu) > 0.3


class TestFlops:
    def test_six_per_parameter_and_token(self):
        """Kaplan et al. 2020: 6 per weight and token, attention aside; input embeddings multiply nothing."""
        setup = TrainingSetup(method=Method.FULL, checkpointing=False, sequence_length=1)
        weights = LLAMA_3_8B.parameters - LLAMA_3_8B.vocabulary * LLAMA_3_8B.hidden
        assert training_flops(LLAMA_3_8B, setup) == pytest.approx(6 * weights, rel=0.001)

    def test_checkpointing_adds_a_third(self):
        setup = TrainingSetup(method=Method.FULL, checkpointing=False, sequence_length=1)
        again = training_flops(LLAMA_3_8B, replace(setup, checkpointing=True))
        assert again == pytest.approx(training_flops(LLAMA_3_8B, setup) * 4 / 3)


class TestPage:
    def test_the_page_holds_plot_chain_and_reasons(self):
        found = made()
        page = gpu_plan_page(found, title="Fine-tune <Llama>")
        assert "<svg" in page
        assert "cost of the run, USD" in page
        assert "Fine-tune &lt;Llama&gt;" in page
        assert "<script" not in page
        assert " src=" not in page
        for way in found.chain:
            assert way.name in page

    def test_every_gpu_of_the_catalogue_is_physical(self):
        for name, gpu in CATALOGUE.items():
            assert gpu_named(name) is gpu
            assert min(gpu.memory, gpu.teraflops, gpu.bandwidth, gpu.link) > 0
            assert 0 < gpu.fp32_teraflops < gpu.teraflops


def test_price_list_is_dated() -> None:
    prices: PriceList = price_list(RECORD)
    assert prices.age_days(date(2026, 4, 10)) == 10
