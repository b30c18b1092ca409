"""How often does each test cry drift when there is none? The product's own code on samples of one distribution.

Beside each stands what it replaces: the same question asked in the customary wrong way, on the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import special

from genai_operators.decisions.drift_column import compare_columns
from genai_operators.decisions.drift_displacement import rank_displacement
from genai_operators.decisions.drift_effects import jensen_shannon_distance, population_stability_index
from genai_operators.decisions.embedding_drift_clusters import assign, cluster_test, fit_centroids
from genai_operators.decisions.embedding_drift_kernels import BANDWIDTH_DIVISORS, RandomFeatures
from genai_operators.decisions.embedding_drift_mmd import discrepancy_test, mmd_test
from genai_operators.decisions.profile import ColumnProfile, profile_column, profile_counts

LEVEL = 0.05
Generator = np.random.Generator
Sampler = Callable[[Generator, int], NDArray[np.float64]]
PValues = Mapping[str, float]


@dataclass
class Tally:
    """Runs and, by test, how many p-values were at most ``LEVEL``."""

    runs: int = 0
    alarms: dict[str, int] = field(default_factory=dict)

    def add(self, p_values: PValues) -> None:
        self.runs += 1
        for name, p_value in p_values.items():
            self.alarms[name] = self.alarms.get(name, 0) + int(p_value <= LEVEL)

    def share(self, test: str) -> float:
        return self.alarms[test] / self.runs


def normal(random: Generator, n: int) -> NDArray[np.float64]:
    """A continuous column without ties."""
    return random.standard_normal(n)


def counts(random: Generator, n: int) -> NDArray[np.float64]:
    """A column of small whole numbers: nearly all values tie."""
    return random.poisson(3.0, n).astype(np.float64)


def mostly_zero(random: Generator, n: int) -> NDArray[np.float64]:
    """A share that is zero in seven rows of ten."""
    return np.where(random.random(n) < 0.7, 0.0, random.lognormal(0, 1, n))


SAMPLERS: Mapping[str, Sampler] = {"normal": normal, "counts": counts, "mostly_zero": mostly_zero}

CATEGORIES: Mapping[str, NDArray[np.float64]] = {
    "even_5": np.full(5, 0.2),
    "zipf_50": (1 / np.arange(1, 51)) / (1 / np.arange(1, 51)).sum(),
}


def numbers(kind: str, n: int, *, runs: int, seed: int, reference: int | None = None) -> Tally:
    """Kolmogorov-Smirnov, PSI and displacement on ``n`` numbers against ``reference`` (default: as many)."""
    random, sampler, tally = np.random.default_rng([seed, n]), SAMPLERS[kind], Tally()
    for _ in range(runs):
        first, second = sampler(random, reference or n), sampler(random, n)
        sides = (profile_column("x", first, "continuous"), profile_column("x", second, "continuous"))
        tally.add({**_tested(*sides, random), "psi, edges of the reference": _naive_psi(first, second)})
    return tally


def categories(kind: str, n: int, *, runs: int, seed: int, reference: int | None = None) -> Tally:
    """Two-sample chi-square, PSI and displacement on ``n`` categories against ``reference`` (default: as many)."""
    random, shares, tally = np.random.default_rng([seed, n]), CATEGORIES[kind], Tally()
    for _ in range(runs):
        first, second = random.multinomial(reference or n, shares), random.multinomial(n, shares)
        sides = [profile_counts("c", {f"c{i}": int(c) for i, c in enumerate(side)}) for side in (first, second)]
        tally.add(
            {**_tested(sides[0], sides[1], random), "chi-square, reference as truth": _naive_chi_square(first, second)}
        )
    return tally


def embeddings(n: int, *, runs: int, seed: int, dimensions: int = 64, kernel: bool = True) -> Tally:
    """Maximum mean discrepancy and cluster counts on two samples of ``n`` embeddings of several topics."""
    random, tally = np.random.default_rng([seed, n]), Tally()
    topics = random.standard_normal((12, dimensions)) / 2
    for _ in range(runs):
        first, second = (embedded(random, n, topics) for _ in range(2))
        found = {"clusters": cluster_test(first, second, clusters=20, level=LEVEL, generator=random).test.p_value}
        if kernel:
            found["discrepancy"] = mmd_test(first, second, level=LEVEL, generator=random, permutations=199).p_value
        tally.add({**found, "clusters of the reference": _naive_clusters(first, second, random)})
    return tally


def random_features(n: int, *, runs: int, seed: int, dimensions: int = 16) -> Tally:
    """Maximum mean discrepancy by random Fourier features on two samples of ``n`` embeddings, 99 permutations."""
    random, tally = np.random.default_rng([seed, n]), Tally()
    topics = random.standard_normal((12, dimensions)) / 2
    for _ in range(runs):
        first, second = (embedded(random, n, topics) for _ in range(2))
        points = np.concatenate([first, second])
        tested = discrepancy_test(RandomFeatures(points, generator=random), n, n, LEVEL, random, permutations=99)
        tally.add({"discrepancy": tested.p_value})
    return tally


class _RememberedFeatures(RandomFeatures):
    """The first of the same features, kept in memory for many labellings of the same rows."""

    KEPT = 64
    """Frequencies a bandwidth. With fewer the test sees less; how often it alarms without reason is the same."""

    def __init__(self, points: NDArray[np.float32], *, generator: Generator) -> None:
        super().__init__(points, generator=generator)
        kept = self._frequencies.reshape(-1, len(BANDWIDTH_DIVISORS), self._each)[:, :, : self.KEPT]
        self._each, self._frequencies = self.KEPT, kept.reshape(len(kept), -1)
        width = self._frequencies.shape[1]
        self._features = np.empty((2 * width, len(points)), dtype=np.float32)
        for start in range(0, len(points), 4_096):
            block = slice(start, start + 4_096)
            phases = (points[block] - self._centre) @ self._frequencies
            self._features[:width, block], self._features[width:, block] = np.cos(phases).T, np.sin(phases).T

    def __call__(self, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        means = (self._features @ weights).astype(np.float64)
        powers = np.square(means[: len(means) // 2]) + np.square(means[len(means) // 2 :])
        each: NDArray[np.float64] = powers.reshape(len(BANDWIDTH_DIVISORS), self._each, -1).mean(axis=1)
        return each


def random_features_of_pools(n: int, *, runs: int, seed: int, dimensions: int = 16, pools: int = 8) -> Tally:
    """:func:`random_features` where sampling would take hours: each run splits one of a few pools of ``2 n`` rows.

    Two halves of a shuffled pool are two samples of one distribution, given all their rows. 19 permutations.
    """
    random, tally = np.random.default_rng([seed, n]), Tally()
    topics = random.standard_normal((12, dimensions)) / 2
    for _ in range(pools):
        forms = _RememberedFeatures(embedded(random, 2 * n, topics), generator=random)
        for _ in range(runs // pools):
            # Shuffling the labels instead of the rows, which are many times as wide.
            tested = discrepancy_test(_Shuffled(forms, random.permutation(2 * n)), n, n, LEVEL, random, permutations=19)
            tally.add({"discrepancy": tested.p_value})
    return tally


@dataclass(frozen=True)
class _Shuffled:
    """The forms of the rows in another order."""

    forms: _RememberedFeatures
    order: NDArray[np.int64]

    def __call__(self, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.forms(np.ascontiguousarray(weights[self.order]))


def clusters(n: int, *, runs: int, seed: int, dimensions: int = 16) -> Tally:
    """Cluster counts alone on two samples of ``n`` embeddings of several topics."""
    random, tally = np.random.default_rng([seed, n]), Tally()
    topics = random.standard_normal((12, dimensions)) / 2
    for _ in range(runs):
        first, second = (embedded(random, n, topics) for _ in range(2))
        tally.add({"clusters": cluster_test(first, second, clusters=20, level=LEVEL, generator=random).test.p_value})
    return tally


def coverage(shift: float, *, runs: int, seed: int, n: int = 1_000, boots: int = 100) -> dict[str, float]:
    """Share of 95 % intervals that hold the truth, for a normal column moved by ``shift`` deviations, in 20 bins.

    ``displacement`` is the one-sided lower bound at 5 %; ``bootstrap`` a percentile bootstrap of PSI.
    """
    random = np.random.default_rng(seed)
    edges = special.ndtri(np.arange(1, 20) / 20)
    p, q = np.full(20, 0.05), np.diff(np.concatenate([[0.0], special.ndtr(edges - shift), [1.0]]))
    exact = [(shares * 1e9).astype(np.int64) for shares in (p, q)]
    psi, distance = population_stability_index(*exact).value, jensen_shannon_distance(*exact).value
    moved = rank_displacement(*exact).effect
    held = {"psi": 0, "jensen_shannon": 0, "displacement": 0, "bootstrap": 0}
    for _ in range(runs):
        a, b = random.multinomial(n, p), random.multinomial(n, q)
        held["psi"] += _within(psi, population_stability_index(a, b).interval)
        held["jensen_shannon"] += _within(distance, jensen_shannon_distance(a, b).interval)
        held["displacement"] += rank_displacement(a, b).interval(LEVEL)[0] <= moved
        drawn = zip(random.multinomial(n, a / n, boots), random.multinomial(n, b / n, boots), strict=True)
        values = [population_stability_index(first, second).value for first, second in drawn]
        held["bootstrap"] += bool(np.quantile(values, 0.025) <= psi <= np.quantile(values, 0.975))
    return {name: count / runs for name, count in held.items()}


def _within(value: float, interval: tuple[float, float] | None) -> bool:
    return interval is not None and interval[0] <= value <= interval[1]


def embedded(
    random: Generator, n: int, topics: NDArray[np.float64], *, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """Unit vectors around topics, shape (n, dimensions)."""
    shares = np.full(len(topics), 1 / len(topics)) if weights is None else weights / weights.sum()
    rows = topics[random.choice(len(topics), n, p=shares)] + random.standard_normal((n, topics.shape[1]))
    unit: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _tested(first: ColumnProfile, second: ColumnProfile, random: Generator) -> dict[str, float]:
    found = compare_columns(first, second, level=LEVEL, generator=random)
    psi = found.measures["population_stability_index"].p_value
    assert psi is not None
    return {"test": found.p_value, "psi": psi, "displacement": found.displacement.p_value()}


def _naive_psi(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Twenty bins between quantiles of the reference alone, empty ones taken for 1e-4, judged by chi-square."""
    edges = np.unique(np.quantile(first, np.arange(1, 20) / 20))
    shares = []
    for side in (first, second):
        found = np.bincount(np.searchsorted(edges, side, side="right"), minlength=len(edges) + 1)
        shares.append(np.maximum(found / found.sum(), 1e-4))
    p, q = shares
    psi = float(((p - q) * np.log(p / q)).sum())
    return float(special.chdtrc(max(1, len(edges)), psi / (1 / len(first) + 1 / len(second))))


def _naive_chi_square(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Goodness of fit of the current counts to the reference's shares, as if those were known."""
    expected = np.maximum(first, 0.5) / np.maximum(first, 0.5).sum() * second.sum()
    return float(special.chdtrc(len(first) - 1, float((np.square(second - expected) / expected).sum())))


def _naive_clusters(first: NDArray[np.float32], second: NDArray[np.float32], random: Generator) -> float:
    """Counts of clusters that were fitted to the reference alone."""
    centroids = fit_centroids(first, max(2, min(20, len(first) // 5)), generator=random)
    p, q = (np.bincount(assign(side, centroids)[0], minlength=len(centroids)) for side in (first, second))
    kept = p + q > 0
    gap = p[kept] - q[kept]
    return float(special.chdtrc(int(kept.sum()) - 1, float((gap * gap / (p + q)[kept]).sum())))


def cells(
    sizes: tuple[int, ...], *, runs: int, seed: int = 1, reference: int | None = None
) -> Iterator[tuple[str, int, Tally]]:
    """Every kind of column at every size."""
    for n in sizes:
        for kind in SAMPLERS:
            yield kind, n, numbers(kind, n, runs=runs, seed=seed, reference=reference)
        for kind in CATEGORIES:
            yield kind, n, categories(kind, n, runs=runs, seed=seed, reference=reference)
