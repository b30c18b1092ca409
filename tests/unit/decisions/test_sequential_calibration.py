"""False alarms and false certificates at most as often as promised; and the study notices what is broken on purpose.

Reduced: the full study is ``benchmarks/decisions_sequential.py``. A count is accepted if a one-sided exact binomial
test against the nominal rate is not rejected at 1 %. Seeds are fixed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks import sequential_rivals as rivals
from benchmarks.sequential_outages import Fleet, false_alarms, false_certificates
from benchmarks.sequential_simulation import (
    Controller,
    chasing,
    either,
    fixed,
    landing,
    product,
    simulate_harm,
    simulate_health,
    split_alarms,
    stepped,
)
from genai_operators.decisions.sequential_events import BadEvents
from genai_operators.decisions.sequential_split import ODDS_RATIOS, Split, update_split

NOMINAL = 0.05
RELEASES = 1_000
EVENTS = 800


def too_many(count: int, releases: int) -> bool:
    return bool(stats.binomtest(count, releases, NOMINAL, alternative="greater").pvalue < 0.01)


class TestFalseRollback:
    @pytest.mark.parametrize(
        ("controller", "guardrails"),
        [
            (fixed(0.05), 1),
            (fixed(0.05), 6),
            (fixed(0.5), 1),
            (stepped((0.01, 0.05, 0.25, 0.5), EVENTS // 4), 1),
            (chasing, 1),
            (landing, 1),
        ],
        ids=["5 %", "5 %, six guardrails", "50 %", "stepped", "adversarial", "adversarial without overshoot"],
    )
    def test_identical_arms(self, controller: Controller, guardrails: int):
        runs = simulate_harm(releases=RELEASES, events=EVENTS, controller=controller, guardrails=guardrails, seed=11)
        assert not too_many(runs.alarms, RELEASES)
        assert runs.alarms > 5  # a test that never speaks would pass, too

    def test_a_weight_read_after_the_request_is_caught(self):
        """The controller lowers the weight after a bad event on the canary; the analysis reads the lowered one."""

        def cautious(replicas: object, last: np.ndarray, event: int) -> np.ndarray:
            return np.where(last, 0.01, 0.3)

        right = simulate_harm(releases=RELEASES, events=EVENTS, controller=cautious, seed=12)
        broken = simulate_harm(
            releases=RELEASES, events=EVENTS, controller=cautious, weight_read_after=cautious, seed=12
        )
        assert not too_many(right.alarms, RELEASES)
        assert too_many(broken.alarms, RELEASES)

    def test_guardrails_without_alpha_shares_are_caught(self):
        broken = simulate_harm(
            releases=RELEASES, events=EVENTS, controller=fixed(0.05), guardrails=6, without_shares=True, seed=13
        )
        assert too_many(broken.alarms, RELEASES)

    def test_peeking_with_a_z_test_is_caught(self):
        stopped, _ = rivals.summary(rivals.peeking_z(rivals.traffic(releases=500, ratio=1.0, seed=14)))
        assert too_many(round(stopped * 500), 500)


class TestFalseCertificate:
    @pytest.mark.parametrize(
        ("base_rate", "ceiling", "share"),
        [(0.01, 0.02, 0.25), (0.01, None, 0.25), (0.05, 0.1, 0.5), (0.01, 0.02, 0.05)],
    )
    def test_exactly_at_margin_and_ceiling(self, base_rate: float, ceiling: float | None, share: float):
        requests = simulate_health(
            releases=2_000,
            events=1_000,
            controller=fixed(share),
            base_rate=base_rate,
            ratio=2.0,
            ceiling=ceiling,
            seed=21,
        )
        count = int(np.isfinite(requests).sum())
        assert not too_many(count, 2_000)
        assert count > 10

    @pytest.mark.parametrize(
        "controller", [stepped((0.05, 0.25, 0.5), EVENTS // 3), chasing], ids=["stepped", "adversarial"]
    )
    def test_under_weights_that_change(self, controller: Controller):
        requests = simulate_health(
            releases=RELEASES,
            events=EVENTS,
            controller=controller,
            base_rate=0.01,
            ratio=2.0,
            ceiling=0.02,
            seed=23,
        )
        count = int(np.isfinite(requests).sum())
        assert not too_many(count, RELEASES)
        assert count > 10

    @pytest.mark.parametrize("combine", [either, product])
    def test_other_combinations_of_the_processes_are_caught(self, combine: object):
        requests = simulate_health(
            releases=2_000,
            events=1_000,
            controller=fixed(0.25),
            base_rate=0.01,
            ratio=2.0,
            ceiling=0.02,
            seed=22,
            combine=combine,  # type: ignore[arg-type]
        )
        assert too_many(int(np.isfinite(requests).sum()), 2_000)


class TestBursts:
    @pytest.mark.parametrize(
        "fleet",
        [Fleet(), Fleet(share=0.25, replicas=4), Fleet(replicas=4), None],
        ids=["1 replica of 20", "1 replica of 4 at 25 %", "1 replica of 4 at 5 %", "sticky users"],
    )
    def test_identical_arms_with_outages(self, fleet: Fleet | None):
        alarms, naive = false_alarms(releases=150, seed=31, fleet=fleet)
        assert not too_many(alarms, 150)
        assert too_many(naive, 150)

    def test_outages_of_what_both_arms_stand_on(self, monkeypatch: pytest.MonkeyPatch):
        """Each arm's server is seen as the cause of its own; little traffic, so that the canary meets few of them."""
        quiet = Fleet(
            replicas=2, requests_per_s=0.3, hours=48.0, outages_per_hour=0.1, shared_per_hour=1.0, background=0.004
        )
        alarms, _ = false_alarms(releases=60, seed=32, fleet=quiet)
        assert not too_many(alarms, 60)
        assert not too_many(false_certificates(replace(quiet, ratio=2.0), releases=40, seed=33, every=100), 40)

        def counts_the_champions(events: BadEvents, canary: np.ndarray) -> np.ndarray:
            return events.row[np.where(canary[events.row], events.sampled, events.counts)]

        monkeypatch.setattr(BadEvents, "of_health", counts_the_champions)
        assert too_many(false_certificates(replace(quiet, ratio=2.0), releases=40, seed=33, every=100), 40)


class TestBrokenSplit:
    @pytest.mark.parametrize(
        "controller",
        [fixed(0.05), stepped((0.05, 0.25, 0.5), 500), chasing],
        ids=["5 %", "stepped", "adversarial"],
    )
    def test_an_intact_split_is_seldom_called_broken(self, controller: Controller):
        alarms = split_alarms(releases=RELEASES, requests=1_500, controller=controller, seed=51)
        assert not too_many(alarms, RELEASES)
        assert alarms > 5

    def test_counting_each_request_of_a_sticky_user_is_caught(self):
        assert too_many(split_alarms(releases=300, requests=1_000, controller=fixed(0.05), seed=52, repeats=3), 300)

    def test_twice_the_odds_are_found_at_a_thousandth(self):
        found = split_alarms(releases=200, requests=1_500, controller=fixed(0.05), seed=53, odds=2.0, alpha=0.001)
        assert found >= 190

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10_000), share=st.sampled_from([0.02, 0.1, 0.5]), cut=st.integers(0, 300))
    def test_the_first_crossing_does_not_depend_on_batches(self, seed: int, share: float, cut: int):
        """And it is the first request after which the mixture of likelihood ratios reaches the threshold."""
        random = np.random.default_rng(seed)
        canary, propensity = random.random(300) < share, np.full(300, 0.1)
        every = np.ones(300, dtype=bool)
        _, whole = update_split(Split.start(), canary=canary, propensity=propensity, counted=every, alpha=0.1)
        half, first = update_split(
            Split.start(), canary=canary[:cut], propensity=propensity[:cut], counted=every[:cut], alpha=0.1
        )
        _, second = update_split(half, canary=canary[cut:], propensity=propensity[cut:], counted=every[cut:], alpha=0.1)
        assert whole == (first if first is not None else None if second is None else second + cut)
        logs = np.where(canary, np.log(ODDS_RATIOS)[:, None], 0.0) - np.log(0.1 * ODDS_RATIOS + 0.9)[:, None]
        reached = np.flatnonzero(np.exp(logs.cumsum(axis=1)).mean(axis=0) >= 10)
        assert whole == (int(reached[0]) if len(reached) else None)


class TestSpeed:
    """Medians at alpha .05 and 5 % of the traffic, reduced; targets of the full study with some slack for its size."""

    @pytest.mark.parametrize(
        ("ratio", "guardrails", "at_most"), [(3.0, 1, 4_700), (3.0, 6, 8_000), (5.0, 1, 1_700), (50.0, 6, 120)]
    )
    def test_a_bad_canary_is_found_in_time(self, ratio: float, guardrails: int, at_most: int):
        runs = simulate_harm(
            releases=600, events=6_000, controller=fixed(0.05), ratio=ratio, guardrails=guardrails, seed=41
        )
        assert np.median(runs.requests) <= at_most

    def test_an_equal_canary_is_certified_in_time(self):
        requests = simulate_health(
            releases=1_000, events=3_000, controller=fixed(0.25), base_rate=0.01, ratio=1.0, ceiling=0.01, seed=42
        )
        assert np.median(requests) <= 6_600
