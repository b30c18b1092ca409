"""Calibration, power and speed of the paired comparisons.

``python benchmarks/decisions_paired.py [--full] [--json FILE]``. False passes of right-or-wrong items and of rare
losses are exact sums over all outcomes; the rest is simulated with fixed seeds.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from benchmarks.decisions_figures import Collected, Figure, Report, main  # noqa: E402
from genai_operators.decisions import paired  # noqa: E402
from genai_operators.decisions.paired_differences import clustered_mean_difference, mean_difference  # noqa: E402
from genai_operators.decisions.paired_exact import p_value_of_statistic  # noqa: E402
from genai_operators.decisions.paired_rates import score_statistics  # noqa: E402
from genai_operators.decisions.verdict import Outcome  # noqa: E402

Floats = NDArray[np.float64]

LEVEL = 0.05
CASE = {"candidate": 0.80, "baseline": 0.77, "discordance": 0.146}
"""80 % against 77 % right on correlated items, tested two-sided at 5 %."""


def critical_statistic(*, n: int, difference: float, level: float) -> float:
    """Smallest score statistic (to 1e-6) that the exact test rejects at ``level``."""
    low, high = 0.0, 12.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (
            (low, middle) if p_value_of_statistic(middle, difference=difference, n=n) <= level else (middle, high)
        )
    return high


def _outcomes(n: int, gained_share: float, lost_share: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Gained, lost and probability of all outcomes that matter, as a grid."""

    def window(share: float) -> NDArray[np.int64]:
        spread = 9 * math.sqrt(n * share * (1 - share)) + 12
        return np.arange(max(0, int(n * share - spread)), min(n, int(n * share + spread)) + 1)

    gained, lost = window(gained_share)[:, None], window(lost_share)[None, :]
    rest = n - gained - lost
    logs = special.gammaln(n + 1) - special.gammaln(gained + 1) - special.gammaln(lost + 1)
    logs = logs - special.gammaln(np.maximum(rest, 0) + 1) + special.xlogy(gained, gained_share)
    logs = logs + special.xlogy(lost, lost_share) + special.xlogy(rest, max(1 - gained_share - lost_share, 0.0))
    return gained, lost, np.where(rest >= 0, np.exp(logs), 0.0)


def pass_rate(
    *, n: int, gained_share: float, lost_share: float, threshold: float, level: float = LEVEL, exact: bool = True
) -> float:
    """Probability that the difference is found to exceed ``threshold``, summed over all outcomes.

    :param exact: the product's test; false: the asymptotic score test.
    """
    asymptotic = float(special.ndtri(1 - level))
    critical = critical_statistic(n=n, difference=threshold, level=level) if exact else asymptotic
    gained, lost, weights = _outcomes(n, gained_share, lost_share)
    return float(weights[score_statistics(threshold, gained=gained, lost=lost, n=n) >= critical].sum())


def false_pass_rate(*, n: int, margin: float, lost_share: float, exact: bool = True) -> float:
    """Probability that a candidate exactly ``margin`` worse passes as not inferior."""
    return pass_rate(n=n, gained_share=lost_share - margin, lost_share=lost_share, threshold=-margin, exact=exact)


def rare_loss_pass_rate(*, n: int, margin: float, loss: float, turns: int | None = None, product: bool = True) -> float:
    """Probability that a candidate exactly ``margin`` worse passes, which loses ``loss`` on a few units and else ties.

    Summed over the number of lost units; the verdict depends on nothing else.

    :param n: independent units: items, or with ``turns`` clusters of so many items each, which go together.
    :param product: false: Student's t alone, which is sure of what it has not seen.
    """
    clusters = None if turns is None else np.repeat(np.arange(n), turns)

    def passes(lost: int) -> bool:
        candidate = np.repeat(np.where(np.arange(n) < lost, 1 - loss, 1.0), turns or 1)
        baseline = np.ones(len(candidate))
        if product:
            names = None if clusters is None else clusters.tolist()
            result = paired.non_inferiority(candidate, baseline, margin=margin, clusters=names)
            return result.outcome is Outcome.PASS
        differences = candidate - baseline
        mean = mean_difference(differences) if clusters is None else clustered_mean_difference(differences, clusters)
        return mean.p_value(threshold=-margin) <= LEVEL

    low, high = -1, math.ceil(n * margin / loss) + 1  # the most lost units that pass; a worse mean never does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return float(special.bdtr(low, n, margin / loss)) if low >= 0 else 0.0


RARE_LOSSES: dict[str, dict[str, Any]] = {
    "half the score lost on 4 % of items": {"margin": 0.02, "loss": 0.5},
    "everything lost on 2 % of conversations of one turn": {"margin": 0.02, "loss": 1.0, "turns": 1},
    "everything lost on 5 % of conversations of four turns": {"margin": 0.05, "loss": 1.0, "turns": 4},
}


def unequal_clusters(*, clusters: int, runs: int, seed: int) -> tuple[int, int]:
    """(product, t): false passes at a margin of 10 points; conversations of 1 to some 40 turns, lost as a whole."""
    random, ours, usual = np.random.default_rng(seed), 0, 0
    for _ in range(runs):
        sizes = random.geometric(1 / 8, clusters)
        names = np.repeat(np.arange(clusters), sizes)
        candidate = np.repeat(random.random(clusters) >= 0.1, sizes)
        result = paired.non_inferiority(candidate, np.ones(len(names)), margin=0.1, clusters=names.tolist())
        ours += result.outcome is Outcome.PASS
        mean = clustered_mean_difference(candidate - np.ones(len(names)), names)
        usual += mean.p_value(threshold=-0.1) <= LEVEL
    return ours, usual


def power(*, n: int, items: int, seed: int) -> tuple[float, float]:
    """(paired, unpaired) power on :data:`CASE`; paired summed exactly, unpaired simulated ``items`` times."""
    gap, discordance = CASE["candidate"] - CASE["baseline"], CASE["discordance"]
    gained, lost = (discordance + gap) / 2, (discordance - gap) / 2
    both = CASE["baseline"] - lost
    counts = np.random.default_rng(seed).multinomial(n, [both, gained, lost, 1 - both - gained - lost], size=items)
    first, second = (counts[:, 0] + counts[:, 1]) / n, (counts[:, 0] + counts[:, 2]) / n
    pooled = (first + second) / 2
    unpaired = np.abs(first - second) / np.sqrt(2 * pooled * (1 - pooled) / n) > special.ndtri(0.975)
    return pass_rate(n=n, gained_share=gained, lost_share=lost, threshold=0.0, level=0.025), float(unpaired.mean())


def score_coverage(*, n: int, difference: float, discordance: float, releases: int, seed: int) -> int:
    """How many 95 % score intervals contain the true difference."""
    random = np.random.default_rng(seed)
    shares = [(discordance + difference) / 2, (discordance - difference) / 2, 1 - discordance]
    counts, times = np.unique(random.multinomial(n, shares, size=releases), axis=0, return_counts=True)
    covered = 0
    for (gained, lost, _), many in zip(counts.tolist(), times.tolist(), strict=True):
        low, high = paired.score_interval(gained=gained, lost=lost, n=n)
        covered += many * (low <= difference <= high)
    return covered


def _score_differences(random: np.random.Generator, n: int) -> Floats:
    """Differences of scores in [0, 1]: most items equal, the others changed either way; mean 0."""
    changed = random.random(n) < 0.5
    return np.where(changed, random.beta(2, 3, n) - random.beta(2, 3, n), 0.0)


def mean_coverage(*, n: int, method: str, releases: int, seed: int) -> int:
    """How many 95 % intervals (``student`` or ``bootstrap``) of the mean difference contain zero, the truth."""
    random, covered = np.random.default_rng(seed), 0
    for _ in range(releases):
        differences = _score_differences(random, n)
        if method == "student":
            low, high = mean_difference(differences).interval(confidence=0.95)
        else:
            low, high = paired.bootstrap_interval(differences, resamples=1_000, seed=int(random.integers(2**31)))
        covered += low <= 0 <= high
    return covered


def percentile_interval_covers(random: np.random.Generator, *, n: int) -> bool:
    """The plain percentile bootstrap, for comparison."""
    differences = _score_differences(random, n)
    means = differences[random.integers(0, n, size=(1_000, n))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return bool(low <= 0 <= high)


def cluster_coverage(*, clusters: int, releases: int, seed: int) -> tuple[int, int]:
    """(cluster-robust, as if independent): how many 95 % intervals contain the truth; clusters of unequal size."""
    random, robust, naive = np.random.default_rng(seed), 0, 0
    for _ in range(releases):
        sizes = random.geometric(1 / 8, clusters)
        names = np.repeat(np.arange(clusters), sizes)
        differences = random.normal(0, 1, clusters)[names] + random.normal(0, 1, len(names))
        for mean, counted in (
            (clustered_mean_difference(differences, names), True),
            (mean_difference(differences), False),
        ):
            low, high = mean.interval(confidence=0.95)
            if low <= 0 <= high:
                robust, naive = robust + counted, naive + (not counted)
    return robust, naive


def measure(*, full: bool = False, report: Report | None = None) -> list[Figure]:
    """Every figure of the paired comparisons."""
    found = Collected(report)
    sizes = (30, 100, 300, 1000, 2000, 4000) if full else (30, 300)
    worst = asymptotic = 0.0
    for n in sizes:
        for margin in (0.02, 0.05, 0.1):
            for extra in (0.0, 0.01, 0.05, 0.1, 0.2):
                worst = max(worst, false_pass_rate(n=n, margin=margin, lost_share=margin + extra))
                asymptotic = max(
                    asymptotic, false_pass_rate(n=n, margin=margin, lost_share=margin + extra, exact=False)
                )
    found.add(
        f"paired: largest false-pass rate at the margin, n = {sizes[0]}..{sizes[-1]}; baseline: score test",
        worst,
        "rate",
        baseline=asymptotic,
        target=0.05,
    )
    for name, case in RARE_LOSSES.items():
        cells = [rare_loss_pass_rate(n=n, **case) for n in sizes]
        usual = [rare_loss_pass_rate(n=n, **case, product=False) for n in sizes]
        name = f"paired: largest false-pass rate, {name}, n = {sizes[0]}..{sizes[-1]}; baseline: t"
        found.add(name, max(cells), "rate", baseline=max(usual), target=LEVEL)
    releases = 4_000 if full else 1_000
    ours, robust_t = unequal_clusters(clusters=100, runs=releases, seed=8)
    found.add(
        "paired: false passes, 100 conversations of unequal length lost as a whole; baseline: cluster-robust t",
        ours / releases,
        "rate",
        baseline=robust_t / releases,
        target=float(stats.binom.ppf(0.99, releases, LEVEL)) / releases,
    )
    lowest_binomial = float(stats.binom.ppf(0.01, releases, 0.95)) / releases
    coverage = min(
        score_coverage(n=n, difference=0.02, discordance=discordance, releases=releases, seed=n) / releases
        for n in sizes
        for discordance in (0.06, 0.15, 0.3)
    )
    found.add(
        "paired: smallest coverage of 95 % score intervals", coverage, "rate", target=lowest_binomial, sense="at_least"
    )
    for method in ("student", "bootstrap"):
        coverage = min(mean_coverage(n=n, method=method, releases=releases, seed=n) / releases for n in (30, 100))
        name = f"paired: smallest coverage of 95 % {method} intervals, n = 30 and 100"
        found.add(name, coverage, "rate", target=lowest_binomial, sense="at_least")
    robust, naive = cluster_coverage(clusters=30, releases=releases, seed=1)
    found.add(
        "paired: coverage with 30 clusters; baseline: as if independent",
        robust / releases,
        "rate",
        baseline=naive / releases,
        target=lowest_binomial,
        sense="at_least",
    )
    for n, at_least in ((500, None), (1000, 0.70), (3000, None)):
        ours, unpaired = power(n=n, items=100_000 if full else 10_000, seed=n)
        name = f"paired: power for 80 % against 77 %, n = {n}; baseline: unpaired"
        found.add(name, ours, "rate", baseline=unpaired, target=at_least, sense="at_least")
    for n in (500, 1000, 2000, 4000):
        passes = pass_rate(n=n, gained_share=0.06, lost_share=0.06, threshold=-0.02)
        found.add(f"paired: an equal model passes a margin of 2 points, 12 % discordant, n = {n}", passes, "rate")
    begin = time.perf_counter()
    paired.non_inferiority(np.arange(4000) % 5 > 0, np.arange(4000) % 7 > 0, margin=0.02)
    found.add("paired: one comparison of 4,000 items", time.perf_counter() - begin, "s")
    return found.figures


if __name__ == "__main__":
    main(measure, __doc__ or "")
