"""Calibration, speed and size of the canary's verdict, beside what others do.

``python benchmarks/decisions_sequential.py [--full] [--json FILE]``. All seeds are fixed. ``--full``: 4,000 releases of
6,000 bad events for each false-alarm figure, 20,000 releases for each median; some minutes on one core.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from benchmarks import sequential_rivals as rivals  # noqa: E402
from benchmarks.decisions_figures import Collected, Figure, Report, main  # noqa: E402
from benchmarks.sequential_outages import Fleet, crowded_alarms, false_alarms  # noqa: E402
from benchmarks.sequential_outages import false_certificates as false_certificates_in_outages  # noqa: E402
from benchmarks.sequential_simulation import (  # noqa: E402
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
from genai_operators.decisions.bounded import ScorePlan, assess_scores, start_scores, update_scores  # noqa: E402
from genai_operators.decisions.planner import Step, plan_steps  # noqa: E402
from genai_operators.decisions.sequential import Guardrail, Observations, Plan, assess, start, update  # noqa: E402
from genai_operators.decisions.sequential_harm import GRID  # noqa: E402
from genai_operators.decisions.sequential_latency import exceedances, latency_guardrails  # noqa: E402
from genai_operators.decisions.verdict import Outcome  # noqa: E402

NOMINAL = 0.05
FLAT = np.full(GRID, 1 / GRID)
"""The plain mixture: flat in the logarithm of the ratio."""


def allowed(releases: int) -> int:
    """A count that a one-sided exact binomial test against 5 % does surely not reject at 1 %: 232 of 4,000."""
    return int(stats.binom.isf(0.01, releases, NOMINAL)) - 1


def false_rollbacks(found: Collected, *, full: bool) -> None:
    """Identical arms under weights that are fixed, stepped, or chosen by an adversary from the past."""
    releases, events = (4_000, 6_000) if full else (1_000, 800)
    peeking, _ = rivals.summary(rivals.peeking_z(rivals.traffic(releases=releases, ratio=1.0, seed=1)))
    cases = (
        ("5 %", fixed(0.05), 1),
        ("5 %, six guardrails", fixed(0.05), 6),
        ("50 %", fixed(0.5), 1),
        ("1, 5, 25, 50 %", stepped((0.01, 0.05, 0.25, 0.5), events // 4), 1),
        ("adversarial", chasing, 1),
        ("adversarial, without overshoot", landing, 1),
    )
    for number, (name, controller, guardrails) in enumerate(cases):
        runs = simulate_harm(
            releases=releases, events=events, controller=controller, guardrails=guardrails, seed=100 + number
        )
        found.add(
            f"sequential: false rollbacks of {releases:,} releases, weights {name}; baseline: peeking z",
            runs.alarms,
            "releases",
            baseline=peeking * releases,
            target=allowed(releases),
        )


def false_certificates(found: Collected, *, full: bool) -> None:
    """Canaries exactly at the margin and at the ceiling."""
    releases, events = (4_000, 6_000) if full else (2_000, 1_000)
    cases = (
        ("1 % -> 2 %, ceiling 2 %, 25 %", 0.01, 0.02, fixed(0.25)),
        ("1 % -> 2 %, no ceiling, 25 %", 0.01, None, fixed(0.25)),
        ("5 % -> 10 %, ceiling 10 %, 50 %", 0.05, 0.1, fixed(0.5)),
        ("1 % -> 2 %, ceiling 2 %, 5 %", 0.01, 0.02, fixed(0.05)),
        ("1 % -> 2 %, ceiling 2 %, 1, 5, 25, 50 %", 0.01, 0.02, stepped((0.01, 0.05, 0.25, 0.5), events // 4)),
        ("1 % -> 2 %, ceiling 2 %, adversarial", 0.01, 0.02, chasing),
        ("1 % -> 2 %, no ceiling, adversarial", 0.01, None, chasing),
    )
    for number, (name, base_rate, ceiling, controller) in enumerate(cases):
        case = {"base_rate": base_rate, "ceiling": ceiling, "controller": controller}
        options = {**case, "releases": releases, "events": events, "ratio": 2.0, "seed": 200 + number}
        count = int(np.isfinite(simulate_health(**options)).sum())  # type: ignore[arg-type]
        other = int(np.isfinite(simulate_health(**options, combine=either)).sum())  # type: ignore[arg-type]
        found.add(
            f"sequential: false certificates of {releases:,} releases, {name}; baseline: either process",
            count,
            "releases",
            baseline=other,
            target=allowed(releases),
        )
    multiplied = simulate_health(
        releases=releases,
        events=events,
        base_rate=0.01,
        ceiling=0.02,
        controller=fixed(0.25),
        ratio=2.0,
        seed=200,
        combine=product,
    )
    found.add(
        "sequential: false certificates if the processes are multiplied (invalid)",
        np.isfinite(multiplied).sum(),
        "releases",
    )


def detection(found: Collected, *, full: bool) -> None:
    """Median requests of both arms until harm is proved."""
    releases = 20_000 if full else 1_000
    for ratio, one, six in ((3.0, 4_700, 8_000), (5.0, 1_700, 2_800), (50.0, 90, 120)):
        for guardrails, target in ((1, one), (6, six)):
            options = {"events": 20_000, "controller": fixed(0.05), "ratio": ratio, "guardrails": guardrails}
            runs = simulate_harm(releases=releases, seed=300, **options)  # type: ignore[arg-type]
            plain = {**options, "weights": FLAT, "lowers_bets": False}
            flat = simulate_harm(releases=max(releases // 4, 500), seed=301, **plain)  # type: ignore[arg-type]
            found.add(
                f"sequential: median requests to find 1 % -> {ratio:g} %, {guardrails} guardrail(s); baseline: plain",
                float(np.median(runs.requests)),
                "requests",
                baseline=float(np.median(flat.requests)),
                target=target,
            )


def certification(found: Collected, *, full: bool) -> None:
    """Requests until a good canary is certified."""
    releases = 20_000 if full else 2_000
    options = {
        "releases": releases,
        "events": 20_000,
        "controller": fixed(0.25),
        "base_rate": 0.01,
        "ratio": 1.0,
        "seed": 400,
    }
    requests = simulate_health(ceiling=0.01, **options)  # type: ignore[arg-type]
    alone = simulate_health(ceiling=None, **options)  # type: ignore[arg-type]
    found.add(
        "sequential: median requests to certify x2, both 1 %, 25 %, ceiling 1 %; baseline: no ceiling",
        float(np.median(requests)),
        "requests",
        baseline=float(np.median(alone)),
        target=6_600,
    )
    plan = Plan(guardrails=(Guardrail(name="errors", ceiling=0.01),))
    needed = next(n for n in range(1, 2_000) if assess(update(start(plan), _silent(n))).certified)
    found.add(
        "sequential: canary requests to certify when neither arm fails, ceiling 1 %", needed, "requests", target=400
    )


def _silent(canary_requests: int) -> Observations:
    n = 2 * canary_requests
    return Observations(
        arrival=np.arange(n, dtype=float),
        canary=np.arange(n) % 2 == 0,
        propensity=np.full(n, 0.5),
        bad={"errors": np.zeros(n, dtype=np.int8)},
    )


def others(found: Collected, *, full: bool) -> None:
    """One hour at 50 requests/s, 5 %, 1 % bad, a look each minute: false stops, and minutes to find x3."""
    releases = 2_000 if full else 400
    good, bad = (rivals.traffic(releases=releases, ratio=ratio, seed=500) for ratio in (1.0, 3.0))
    rules = {
        "z-test each minute": rivals.peeking_z,
        "z-test once": rivals.one_look_z,
        "O'Brien-Fleming, 60 looks": rivals.obrien_fleming,
        "errors > 2 %, no failure allowed": rivals.fixed_threshold,
        "errors > 2 %, 3 failures allowed": lambda seen: rivals.fixed_threshold(seen, failures=3),
        "errors > 2 %, 10 failures allowed": lambda seen: rivals.fixed_threshold(seen, failures=10),
        "errors > 1.5 x champion, 5 minutes": rivals.ratio_threshold,
        "Mann-Whitney once": rivals.mann_whitney,
    }
    for name, rule in rules.items():
        false, _ = rivals.summary(rule(good))
        power, minute = rivals.summary(rule(bad))
        found.add(f"others: {name}: false stops", false, "rate")
        found.add(f"others: {name}: finds x3 ({power:.0%} of releases), median", minute, "min")
    within = 3_600 * rivals.REQUESTS_PER_S
    for guardrails in (1, 6):
        options = {"releases": releases, "controller": fixed(0.05), "guardrails": guardrails}
        false_runs = simulate_harm(events=3_000 * guardrails, seed=501, **options)  # type: ignore[arg-type]
        runs = simulate_harm(events=20_000, ratio=3.0, seed=502, **options)  # type: ignore[arg-type]
        false = float((false_runs.requests <= within).mean())
        limit = allowed(releases) / releases
        found.add(f"ours: {guardrails} guardrail(s): false stops within the hour", false, "rate", target=limit)
        minutes = float(np.median(np.ceil(runs.requests / rivals.REQUESTS_PER_S / 60)))
        power = float((runs.requests <= within).mean())
        found.add(f"ours: {guardrails} guardrail(s): finds x3 ({power:.0%} of releases), median", minutes, "min")


def bursts(found: Collected, *, full: bool) -> None:
    """Identical arms with outages of replicas and with users whose every request fails."""
    releases = 4_000 if full else 300
    for name, fleet in (
        ("outages, 1 replica of 20 at 5 %", Fleet()),
        ("outages, 1 replica of 4 at 25 %", Fleet(share=0.25, replicas=4)),
        ("outages, 1 replica of 4 at 5 %", Fleet(replicas=4)),
        ("sticky users", None),
    ):
        alarms, naive = false_alarms(releases=releases, seed=600, fleet=fleet)
        found.add(
            f"sequential: false rollbacks of {releases:,} releases, {name}; baseline: each failure by itself",
            alarms,
            "releases",
            baseline=naive,
            target=allowed(releases),
        )

    pair = Fleet(
        replicas=2, requests_per_s=0.3, hours=48.0, outages_per_hour=0.1, shared_per_hour=1.0, background=0.004
    )
    releases = 1_000 if full else 100
    alarms, naive = false_alarms(releases=releases, seed=610, fleet=pair)
    found.add(
        f"sequential: false rollbacks of {releases:,} releases, shared outages; baseline: each failure by itself",
        alarms,
        "releases",
        baseline=naive,
        target=allowed(releases),
    )
    count = false_certificates_in_outages(replace(pair, ratio=2.0), releases=releases, seed=611, every=100)
    found.add(
        f"sequential: false certificates of {releases:,} releases, x2 with shared outages",
        count,
        "releases",
        target=allowed(releases),
    )
    crowd = 1_000 if full else 150
    found.add(
        f"sequential: false rollbacks of {crowd:,} releases, more sticky users than the memory holds",
        crowded_alarms(releases=crowd, seed=612),
        "releases",
        target=allowed(crowd),
    )


def splits(found: Collected, *, full: bool) -> None:
    """An intact split called broken, at 5 % so that the count says something; and one with each assignment thrice."""
    releases, requests = (4_000, 6_000) if full else (1_000, 1_500)
    for number, (name, controller) in enumerate(
        (("5 %", fixed(0.05)), ("5, 25, 50 %", stepped((0.05, 0.25, 0.5), requests // 3)), ("adversarial", chasing))
    ):
        options = {"releases": releases, "requests": requests, "controller": controller, "seed": 620 + number}
        found.add(
            f"split: {releases:,} intact ones called broken, weights {name}; baseline: sticky users counted thrice",
            split_alarms(**options),  # type: ignore[arg-type]
            "releases",
            baseline=split_alarms(**options, repeats=3),  # type: ignore[arg-type]
            target=allowed(releases),
        )


def scores(found: Collected, *, full: bool) -> None:
    """Win / tie / loss: false verdicts at the limits, coverage at all times, and how many pairs a verdict takes."""
    releases, pairs = (2_000, 2_000) if full else (200, 500)
    plan, random = ScorePlan(name="judge"), np.random.default_rng(700)
    draws = {0.5: (0.4, 0.2, 0.4), 0.4: (0.5, 0.2, 0.3)}
    false = {Outcome.FAIL: 0, Outcome.PASS: 0}
    missed = 0
    for mean, wrong in ((0.5, Outcome.FAIL), (0.4, Outcome.PASS)):
        for _ in range(releases):
            state = update_scores(start_scores(plan), random.choice([0.0, 0.5, 1.0], p=draws[mean], size=pairs))
            assessment = assess_scores(state)
            false[wrong] += assessment.verdict.outcome is wrong
            missed += not assessment.interval[0] <= mean <= assessment.interval[1]
    for outcome, words in (
        (Outcome.FAIL, "an equal canary called worse"),
        (Outcome.PASS, "a canary at the margin passed"),
    ):
        found.add(f"scores: {words}, of {releases:,}", false[outcome], "releases", target=allowed(releases))
    found.add("scores: confidence sequences that ever lost the mean", missed, "releases", target=allowed(2 * releases))
    sequences, lost = releases // 10, 0
    for _ in range(sequences):  # a mean between two claims of the grid, and too little spread for either
        low, high = assess_scores(update_scores(start_scores(plan), random.uniform(0.415, 0.595, 3_000))).interval
        lost += not low <= 0.505 <= high
    found.add(
        "scores: confidence sequences that lost a mean of 0.505, sd 0.05", lost, "releases", target=allowed(sequences)
    )


def latency(found: Collected, *, full: bool) -> None:
    """Time to first token, lognormal with sigma 0.5, 50 requests/s, 5 %: seconds to find a slower canary."""
    releases, requests = (200, 30_000) if full else (40, 15_000)
    random = np.random.default_rng(900)
    past = random.lognormal(np.log(250), 0.5, 20_000)
    sets = {
        "three quantiles": latency_guardrails("ttft", past),
        "p99": latency_guardrails("ttft", past, quantiles=(0.99,)),
    }
    for factor in (1.0, 1.2, 1.5, 2.0):
        waits: dict[str, list[float]] = {name: [] for name in sets}
        for _ in range(releases):
            canary = random.random(requests) < 0.05
            times = random.lognormal(np.log(250), 0.5, requests) * np.where(canary, factor, 1.0)
            for name, guardrails in sets.items():
                observations = Observations(
                    arrival=np.arange(requests) / 50,
                    canary=canary,
                    propensity=np.full(requests, 0.05),
                    bad=exceedances(times, guardrails),
                )
                alarm = update(start(Plan(guardrails=tuple(guardrails.values()))), observations).harm.alarm
                waits[name].append(np.inf if alarm is None else alarm.arrival)
        if factor == 1.0:
            alarms = int(np.isfinite(waits["three quantiles"]).sum())
            found.add(f"latency: false alarms of {releases:,}", alarms, "releases", target=allowed(releases))
        else:
            found.add(
                f"latency: median time to find +{factor - 1:.0%}, three quantiles; baseline: p99 alone",
                float(np.median(waits["three quantiles"])),
                "s",
                baseline=float(np.median(waits["p99"])),
            )


def cost(found: Collected) -> None:
    """Seconds for a million requests and six guardrails, and bytes of the state."""
    names = tuple(f"guardrail_{number}" for number in range(6))
    plan = Plan(guardrails=tuple(Guardrail(name=name, ceiling=0.02) for name in names))
    random = np.random.default_rng(800)
    n = 1_000_000
    canary = random.random(n) < 0.05
    for rate in (0.01, 0.1):
        observations = Observations(
            arrival=np.arange(n) * 0.02,
            canary=canary,
            propensity=np.full(n, 0.05),
            bad={name: (random.random(n) < rate).astype(np.int8) for name in names},
        )
        seconds = []
        for _ in range(3):
            begin = time.process_time()
            state = update(start(plan), observations)
            seconds.append(time.process_time() - begin)
        name = f"sequential: update of 1,000,000 requests x 6 guardrails, {rate:.0%} bad"
        found.add(name, min(seconds), "CPU s", target=1.0)
    sticky = Observations(
        arrival=np.arange(n) * 0.02,
        canary=canary,
        propensity=np.full(n, 0.05),
        bad={name: (random.random(n) < 0.01).astype(np.int8) for name in names},
        unit=[f"user {user}" for user in random.integers(0, 200_000, n)],
        cause=[f"cause {cause}" if cause < 50 else None for cause in random.integers(0, 500, n)],
    )
    seconds, sizes = [], []
    for _ in range(3):
        begin = time.process_time()
        state = update(start(plan), sticky)
        seconds.append(time.process_time() - begin)
    name = "sequential: update of 1,000,000 requests x 6 guardrails, 1% bad, sticky users and causes"
    found.add(name, min(seconds), "CPU s", target=1.0)
    state = start(plan)
    for row in range(0, n, n // 50):  # bitmaps are worst half-full, and each guardrail's is so at another time
        state = update(state, sticky.rows(row, row + n // 50))
        sizes.append(len(json.dumps(state.to_json(), separators=(",", ":"))))
    found.add("sequential: largest state with users and open incidents", max(sizes), "bytes", target=8_000)
    begin = time.process_time()
    steps = [Step(percent=percent, minimum_soak_s=600) for percent in (5, 25, 50)]
    plan_steps(plan, steps=steps, requests_per_s=50, base_rates=dict.fromkeys(names, 0.01))
    found.add("planner: three steps, six guardrails", time.process_time() - begin, "CPU s")


def measure(*, full: bool = False, report: Report | None = None) -> list[Figure]:
    """Every figure of the canary's verdict."""
    found = Collected(report)
    cost(found)
    detection(found, full=full)
    certification(found, full=full)
    false_rollbacks(found, full=full)
    false_certificates(found, full=full)
    bursts(found, full=full)
    splits(found, full=full)
    scores(found, full=full)
    latency(found, full=full)
    others(found, full=full)
    return found.figures


if __name__ == "__main__":
    main(measure, __doc__ or "")
