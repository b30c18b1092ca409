"""The state is small, and the same bits come out however the observations were batched."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genai_operators.decisions import sequential
from genai_operators.decisions.sequential import Guardrail, Observations, Plan, State, assess, start, update
from genai_operators.decisions.sequential_products import Products
from tests.fakes.canary_traffic import canary_traffic

SIX = tuple(f"guardrail_{number}" for number in range(6))
PLAN = Plan(guardrails=tuple(Guardrail(name=name, ceiling=0.02) for name in SIX), incident_window_s=5.0)


def serialised(state: State) -> str:
    return json.dumps(state.to_json(), separators=(",", ":"), sort_keys=True)


def in_batches(observations: Observations, cuts: list[int], *, plan: Plan = PLAN, through_json: bool = True) -> State:
    state = start(plan)
    for begin, end in zip([0, *cuts], [*cuts, len(observations)], strict=True):
        state = update(state, observations.rows(begin, end))
        if through_json:
            state = State.from_json(json.loads(json.dumps(state.to_json())))
    return state


class TestBatching:
    @settings(max_examples=25, deadline=None)
    @given(data=st.data(), seed=st.integers(0, 10_000), worse=st.sampled_from([0.02, 0.05, 0.2]))
    def test_any_batching_gives_the_same_bits(self, data: st.DataObject, seed: int, worse: float):
        """Across an alarm, sticky users, incidents, changing weights and a state that went through JSON each time."""
        observations = canary_traffic(
            3_000, seed=seed, champion_rate=0.02, canary_rate=worse, guardrails=SIX, users=900, causes=3, share=0.1
        )
        observations.propensity[1_000:] = 0.25
        cuts = sorted(data.draw(st.lists(st.integers(0, len(observations)), max_size=12)))
        assert serialised(in_batches(observations, cuts)) == serialised(update(start(PLAN), observations))

    def test_request_by_request_gives_the_same_bits(self):
        observations = canary_traffic(
            400, seed=3, champion_rate=0.1, canary_rate=0.4, guardrails=SIX, share=0.3, causes=2
        )
        whole = update(start(PLAN), observations)
        assert whole.harm.alarm is not None
        assert serialised(in_batches(observations, list(range(1, 400)))) == serialised(whole)

    def test_slabs_are_batches_too(self, monkeypatch: pytest.MonkeyPatch):
        observations = canary_traffic(5_000, seed=4, guardrails=SIX, users=2_000)
        whole = update(start(PLAN), observations)
        monkeypatch.setattr(sequential, "SLAB", 77)
        assert serialised(update(start(PLAN), observations)) == serialised(whole)

    def test_an_empty_batch_changes_nothing(self):
        state = update(start(PLAN), canary_traffic(500, seed=5, guardrails=SIX))
        assert serialised(update(state, canary_traffic(0, seed=5, guardrails=SIX))) == serialised(state)

    def test_lowered_bets_near_the_threshold_are_part_of_the_state(self):
        """Long walks just below the threshold, where bets are lowered at many events."""
        plan = Plan(guardrails=(Guardrail(name="errors"),), alpha=0.2)
        random = np.random.default_rng(0)
        lowered = 0
        for seed in range(20):
            observations = canary_traffic(600, seed=seed, champion_rate=1.0, share=0.05 + 0.3 * random.random())
            whole = update(start(plan), observations)
            cuts = sorted(random.integers(0, 600, 20).tolist())
            assert serialised(in_batches(observations, cuts, plan=plan)) == serialised(whole)
            lowered += whole.harm.scales != start(plan).harm.scales
        assert lowered > 3


class TestSize:
    @pytest.mark.parametrize(
        ("names", "plain"),
        [(SIX, True), (tuple(f"a_rather_long_guardrail_name_{number}" for number in range(8)), False)],
        ids=["six guardrails", "the largest plan"],
    )
    def test_fits_into_8_kb_however_full_its_memories_are(self, names: tuple[str, ...], plain: bool):
        """Bitmaps that are half full compress worst; causes, users, tokens and late times all fill it."""
        rail = {"ceiling": 0.02} if plain else {"ceiling": 1 / 30, "margin": 4 / 3, "harm_ratio": 1.1}
        plan = Plan(guardrails=tuple(Guardrail(name=name, alpha_weight=1 / 3, **rail) for name in names))
        state, sizes = start(plan), []
        for number in range(8):
            users = 300 * 2**number
            observations = canary_traffic(
                8_000,
                seed=number,
                guardrails=names,
                users=users,
                causes=2,
                share=0.3,
                champion_rate=0.2,
                per_s=1e3,
                begin=1.7e9 + 100 * number,
            )
            several = [
                None if cause is None else f"{cause} {row % 40}" for row, cause in enumerate(observations.cause or [])
            ]
            state = update(state, replace(observations, cause=several))
            sizes.append(len(serialised(state)))
        assert min(units.epoch for units in state.bad_units) >= 1
        assert max(sizes) <= 8_000

    def test_another_version_is_refused(self):
        record = {**start(PLAN).to_json(), "version": 99}
        with pytest.raises(sequential.DataError, match="version 99"):
            State.from_json(record)

    def test_assessing_changes_nothing(self):
        state = update(start(PLAN), canary_traffic(500, seed=8, guardrails=SIX))
        before = serialised(state)
        assess(state)
        assert serialised(state) == before


class TestProducts:
    @settings(max_examples=50, deadline=None)
    @given(
        factors=st.lists(st.floats(1e-2, 1e2), min_size=1, max_size=400),
        cut=st.integers(0, 400),
    )
    def test_products_neither_overflow_nor_depend_on_cuts(self, factors: list[float], cut: int):
        values = np.array([factors, factors[::-1]])
        whole = Products.ones(2).times(values)
        parts = Products.ones(2).times(values[:, :cut]).times(values[:, cut:])
        assert whole.to_json() == parts.to_json()
        assert np.allclose(whole.log(), np.log(values).sum(axis=1), atol=1e-9)
