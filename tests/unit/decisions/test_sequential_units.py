"""A sticky user counts once for ever, in a memory that neither grows nor goes blind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.sequential_outages import crowded_alarms
from genai_operators.decisions.sequential import Guardrail, Observations, Plan, start, update
from genai_operators.decisions.sequential_once import hash_of, hashes_of
from genai_operators.decisions.sequential_units import UnitMemory, Units


def admitted(users: np.ndarray, *, size: int = 4, cuts: list[int] | None = None) -> tuple[np.ndarray, Units]:
    """Which of these requests count, and the memory after them; cut into batches, through JSON each time."""
    units, found = Units(size=size), [np.zeros(0, dtype=bool)]
    hashes, _ = hashes_of([f"user {user}" for user in users])
    for part in np.split(hashes, cuts or []):
        memory = UnitMemory(units)
        found.append(memory.admit(part)[0])
        units = Units.from_json(memory.close().to_json(), size=size)
    return np.concatenate(found), units


class TestMemory:
    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10_000), users=st.integers(1, 400), cuts=st.lists(st.integers(0, 1_000), max_size=5))
    def test_a_user_counts_at_most_once_however_the_requests_are_batched(self, seed: int, users: int, cuts: list[int]):
        sent = np.random.default_rng(seed).integers(0, users, 1_000)
        counts, units = admitted(sent)
        assert np.unique(sent[counts]).size == counts.sum()
        again, same = admitted(sent, cuts=sorted(cuts))
        assert np.array_equal(counts, again)
        assert same.to_json() == units.to_json()

    def test_few_users_all_count(self):
        counts, _ = admitted(np.arange(200), size=2_000)
        assert counts.sum() >= 195, "two users may share a bit"

    def test_it_goes_on_counting_as_users_double(self):
        counts, units = admitted(np.arange(100_000), size=16)
        found = [int(counts[:users].sum()) for users in (1_000, 10_000, 100_000)]
        assert found[0] >= 100
        assert np.diff(found).min() >= 64, "half of 128 bits at each doubling of the users, or nearly"
        assert units.epoch >= 5

    def test_hashes_do_not_depend_on_where_they_are_computed(self):
        hashes, known = hashes_of(["anna", None, "björn"])
        assert hashes.tolist() == [hash_of("anna"), 0, hash_of("björn")]
        assert known.tolist() == [True, False, True]


def sticky(users: int, requests: int, *, share: float = 0.05, worse_from: int, seed: int = 3) -> Observations:
    """Sticky users of 1 % bad requests; those of the canary fail five times as often from a request on."""
    random = np.random.default_rng(seed)
    user = random.integers(0, users, requests)
    canary = (random.random(users) < share)[user]
    rate = np.where(canary & (np.arange(requests) >= worse_from), 0.05, 0.01)
    return Observations(
        arrival=np.arange(requests) * 0.02,
        canary=canary,
        propensity=np.full(requests, share),
        bad={"errors": (random.random(requests) < rate).astype(np.int8)},
        unit=[f"user {number}" for number in user],
    )


class TestManyUsers:
    def test_a_canary_that_turns_bad_after_300_000_requests_is_found(self):
        state = update(
            start(Plan(guardrails=(Guardrail(name="errors"),))), sticky(400_000, 400_000, worse_from=300_000)
        )
        assert state.bad_units[0].epoch >= 1, "the memory was full before"
        assert state.harm.alarm is not None
        assert state.harm.alarm.request > 300_000

    def test_a_split_that_breaks_after_many_users_is_found(self):
        traffic = sticky(20_000, 40_000, worse_from=10**9)
        late = sticky(20_000, 20_000, worse_from=10**9, share=0.2, seed=4)
        assert late.unit is not None
        moved = replace(
            late,
            arrival=late.arrival + 1e4,
            propensity=np.full(len(late), 0.05),
            unit=[f"new {unit}" for unit in late.unit],
        )
        state = update(start(Plan(guardrails=(Guardrail(name="errors"),))), traffic)
        assert state.split.broken is None
        assert state.split_units.epoch >= 3
        assert update(state, moved).split.broken is not None

    def test_a_frequent_guardrail_does_not_use_up_the_memory_of_a_rare_one(self):
        random = np.random.default_rng(5)
        requests = 20_000
        traffic = Observations(
            arrival=np.arange(requests) * 1.0,
            canary=random.random(requests) < 0.05,
            propensity=np.full(requests, 0.05),
            bad={
                name: (random.random(requests) < rate).astype(np.int8)
                for name, rate in (("errors", 0.01), ("slow", 0.5))
            },
            unit=[f"user {number}" for number in range(requests)],
        )
        state = update(start(Plan(guardrails=(Guardrail(name="errors"), Guardrail(name="slow")))), traffic)
        errors = state.counts[0]
        assert state.bad_units[1].epoch >= 2
        assert errors.canary_events + errors.champion_events >= 0.9 * (errors.canary_bad + errors.champion_bad)

    def test_identical_arms_whose_users_return_in_every_epoch(self, monkeypatch: pytest.MonkeyPatch):
        releases = 150
        alarms = crowded_alarms(releases=releases, seed=5)
        assert stats.binomtest(alarms, releases, 0.05, alternative="greater").pvalue > 0.01
        monkeypatch.setattr(UnitMemory, "_sample", lambda _memory, hashes: np.ones(len(hashes), dtype=np.bool_))
        forgets = crowded_alarms(releases=releases, seed=5)
        assert stats.binomtest(forgets, releases, 0.05, alternative="greater").pvalue < 0.01
