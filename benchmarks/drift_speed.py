"""What drift detection costs: each task in a process of its own, its seconds after the imports and its peak memory.

``python benchmarks/drift_speed.py TASK FOLDER SIZE`` runs one task and prints its cost as JSON; the functions below
make the data, start the tasks and read what they print. Peak memory counts the interpreter and all imports.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

KINDS = {**{f"n{i}": "continuous" for i in range(10)}, **{f"c{i}": "categorical" for i in range(5)}}
CARDINALITIES = (5, 8, 20, 50, 200)
DIMENSIONS = 384
PERMUTATIONS = 200
PEER_PERMUTATIONS = 20
"""Of the customary way; 200 of them take a quarter of an hour."""

BEST_OF = 3

PEER = """
import json, sys, time
import pandas as pd
from evidently import Dataset, DataDefinition, Report
from evidently.presets import DataDriftPreset
begin, cpu = time.perf_counter(), time.process_time()
sides = [pd.read_parquet(f"{sys.argv[1]}/{name}.parquet") for name in ("reference", "current")]
numeric = [c for c in sides[0].columns if c.startswith("n")]
other = [c for c in sides[0].columns if c not in numeric]
definition = DataDefinition(numerical_columns=numeric, categorical_columns=other)
reference, current = (Dataset.from_pandas(side, data_definition=definition) for side in sides)
Report([DataDriftPreset()]).run(current, reference).dict()
print(json.dumps({"wall_s": time.perf_counter() - begin, "cpu_s": time.process_time() - cpu,
                  "peak_mb": int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024}))
"""

MMD_PEER = """
import json, sys, time
import numpy as np
from alibi_detect.cd import MMDDrift
sides = [np.load(f"{sys.argv[1]}/{name}.npy") for name in ("reference", "current")]
begin, cpu = time.perf_counter(), time.process_time()
MMDDrift(sides[0], backend="pytorch", n_permutations=int(sys.argv[2]), device="cpu").predict(sides[1])
print(json.dumps({"wall_s": time.perf_counter() - begin, "cpu_s": time.process_time() - cpu,
                  "peak_mb": int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024}))
"""


@dataclass(frozen=True)
class Cost:
    wall_s: float
    cpu_s: float
    peak_mb: float


@dataclass(frozen=True)
class TableCosts:
    """:param peer: who ``theirs`` is."""

    ours: Cost
    second_day: Cost
    theirs: Cost
    peer: str


def tables(rows: int) -> TableCosts:
    """Two Parquet files of ten numeric and five categorical columns: compare them; then again with a saved profile."""
    with tempfile.TemporaryDirectory() as folder:
        _write_tables(Path(folder), rows)
        ours = _best("compare_tables", folder, rows)
        second_day = _best("second_day", folder, rows)
        peer = os.environ.get("DRIFT_PEER_PYTHON")
        if peer:
            return TableCosts(ours, second_day, _run([peer, "-W", "ignore", "-c", PEER, folder]), "evidently's preset")
        return TableCosts(ours, second_day, _task("scipy_tables", folder, rows), "scipy.stats on whole columns")


def discrepancies(rows: int) -> tuple[Cost, Cost, Cost, str]:
    """The exact kernel, random features, and a peer with its name: a kernel re-indexed for each permutation."""
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        for name in ("reference", "current"):
            points = random.standard_normal((rows, DIMENSIONS), dtype=np.float32)
            np.save(f"{folder}/{name}.npy", points / np.linalg.norm(points, axis=1, keepdims=True))
        exact, features = (_best(task, folder, rows) for task in ("exact_kernel", "random_features"))
        if peer := os.environ.get("DRIFT_MMD_PEER_PYTHON"):
            theirs = _run([peer, "-W", "ignore", "-c", MMD_PEER, folder, str(PERMUTATIONS)])
            return exact, features, theirs, "alibi-detect, 1 bandwidth"
        slow = _task("reindexed_kernel", folder, rows)
        return exact, features, slow, f"kernel re-indexed {PEER_PERMUTATIONS} times"


def descriptors(count: int) -> tuple[float, float, float]:
    """Documents a CPU second: the product's descriptors, these with the share of words out of a vocabulary of 20,000,
    and the former in plain Python (a tenth of the documents).
    """
    with tempfile.TemporaryDirectory() as folder:
        ours = _best("describe", folder, count)
        with_vocabulary = _best("describe_with_vocabulary", folder, count)
        plain = _task("describe_plainly", folder, count // 10)
    return count / ours.cpu_s, count / with_vocabulary.cpu_s, count / 10 / plain.cpu_s


def _best(task: str, folder: str, size: int) -> Cost:
    """Of a few runs the quickest: others use the machine too. Memory is the largest seen."""
    costs = [_task(task, folder, size) for _ in range(BEST_OF)]
    return Cost(min(c.wall_s for c in costs), min(c.cpu_s for c in costs), max(c.peak_mb for c in costs))


def _task(task: str, folder: str, size: int) -> Cost:
    return _run([sys.executable, __file__, task, folder, str(size)])


def _run(command: list[str]) -> Cost:
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "DO_NOT_TRACK": "1"})
    return Cost(**json.loads(done.stdout.strip().splitlines()[-1]))


def _peak_mb() -> float:
    """Of this program alone: ``ru_maxrss`` would remember the parent that it was forked from."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / 1024  # macOS counts bytes


def _write_tables(folder: Path, rows: int) -> None:
    import polars as pl

    random = np.random.default_rng(0)
    for side, shift in (("reference", 0.0), ("current", 0.2)):
        columns: dict[str, object] = {}
        for index in range(10):
            values = random.standard_normal(rows) if index < 5 else random.lognormal(3, 1, rows)
            columns[f"n{index}"] = values + shift * (index == 0)
        for index, size in enumerate(CARDINALITIES):
            shares = np.arange(size, 0, -1) / np.arange(size + 1).sum()
            columns[f"c{index}"] = np.array([f"category {k}" for k in range(size)])[random.choice(size, rows, p=shares)]
        pl.DataFrame(columns).write_parquet(folder / f"{side}.parquet")


def _compare_tables(folder: str, _: int) -> Callable[[], object]:
    from genai_operators.decisions.drift import DriftSettings, compare
    from genai_operators.workloads.frame_profile import profile_parquet

    def work() -> object:
        reference, current = (profile_parquet(f"{folder}/{side}.parquet", KINDS) for side in ("reference", "current"))  # type: ignore[arg-type]
        Path(folder, "profile.json").write_text(json.dumps(reference.to_json()))
        return compare(reference, current, DriftSettings(minimum_effect=0.05))

    return work


def _second_day(folder: str, _: int) -> Callable[[], object]:
    from genai_operators.decisions.drift import DriftSettings, compare
    from genai_operators.decisions.profile import Profile
    from genai_operators.workloads.frame_profile import profile_parquet

    def work() -> object:
        reference = Profile.from_json(json.loads(Path(folder, "profile.json").read_text()))
        current = profile_parquet(f"{folder}/current.parquet", KINDS)  # type: ignore[arg-type]
        return compare(reference, current, DriftSettings(minimum_effect=0.05))

    return work


def _scipy_tables(folder: str, _: int) -> Callable[[], object]:
    import polars as pl
    from scipy import stats
    from scipy.spatial.distance import jensenshannon

    def work() -> object:
        reference, current = (pl.read_parquet(f"{folder}/{side}.parquet") for side in ("reference", "current"))
        for name, kind in KINDS.items():
            if kind == "categorical":
                both = [side[name].value_counts().sort(name)["count"].to_numpy() for side in (reference, current)]
                stats.chi2_contingency(np.array(both))
                continue
            first, second = reference[name].to_numpy(), current[name].to_numpy()
            stats.ks_2samp(first, second, method="asymp")
            stats.wasserstein_distance(first, second)
            edges = np.quantile(first, np.arange(1, 20) / 20)
            p, q = (np.bincount(np.searchsorted(edges, side), minlength=20) for side in (first, second))
            jensenshannon(p, q)
        return None

    return work


def _exact_kernel(folder: str, _: int) -> Callable[[], object]:
    return _discrepancy(folder, exact=True)


def _random_features(folder: str, _: int) -> Callable[[], object]:
    return _discrepancy(folder, exact=False)


def _discrepancy(folder: str, *, exact: bool) -> Callable[[], object]:
    from genai_operators.decisions import embedding_drift_mmd

    sides = [np.load(f"{folder}/{name}.npy") for name in ("reference", "current")]
    embedding_drift_mmd.EXACT_UP_TO = sys.maxsize if exact else 0
    return lambda: embedding_drift_mmd.mmd_test(
        *sides, level=0.05, generator=np.random.default_rng(0), permutations=PERMUTATIONS
    )


def _reindexed_kernel(folder: str, rows: int) -> Callable[[], object]:
    """The customary way: the whole kernel in memory, and a permuted copy of it for each permutation."""
    points = np.concatenate([np.load(f"{folder}/{name}.npy") for name in ("reference", "current")])

    def work() -> object:
        random = np.random.default_rng(0)
        squares = np.square(points).sum(axis=1)
        distances = squares[:, None] + squares[None, :] - 2 * points @ points.T
        kernel = np.exp(-distances / np.median(distances))
        statistics = []
        for _ in range(PEER_PERMUTATIONS):
            order = random.permutation(2 * rows)
            shuffled = kernel[order][:, order]
            within = shuffled[:rows, :rows].mean() + shuffled[rows:, rows:].mean()
            statistics.append(within - 2 * shuffled[:rows, rows:].mean())
        return statistics

    return work


def _texts(count: int) -> list[str]:
    from benchmarks.drift_power import documents

    return list(documents(np.random.default_rng(0), count))


def _describe(_: str, count: int) -> Callable[[], object]:
    import polars as pl

    from genai_operators.workloads.text_features import describe

    texts = pl.Series(_texts(count))
    return lambda: describe(texts)


def _describe_with_vocabulary(_: str, count: int) -> Callable[[], object]:
    import polars as pl

    from genai_operators.workloads.text_features import VOCABULARY_SIZE, describe, learn_vocabulary

    texts = pl.Series(_texts(count))
    learnt = learn_vocabulary(texts)
    vocabulary = [*learnt, *(f"word{number}" for number in range(VOCABULARY_SIZE - len(learnt)))]
    return lambda: describe(texts, vocabulary=vocabulary)


def _describe_plainly(_: str, count: int) -> Callable[[], object]:
    from genai_operators.workloads.text_features import REFUSALS, STOP_WORDS

    texts = _texts(count)
    personal = re.compile(r"[\w.%+-]+@[\w-]+\.[a-z]{2,}|\d{3}[ .-]\d{3,4}[ .-]\d{4}|\d{3}-\d{2}-\d{4}", re.IGNORECASE)
    stop_words = {name: set(words.split("|")) for name, words in STOP_WORDS.items()}

    def described(text: str) -> tuple[object, ...]:
        words, lower = text.split(" "), text.lower()
        length = max(1, len(text))
        found = {name: sum(word in known for word in lower.split(" ")) for name, known in stop_words.items()}
        return (
            len(text),
            len(words),
            len(text) / len(words),
            sum(c.isupper() for c in text) / length,
            sum(c.isdigit() for c in text) / length,
            sum(not c.isalnum() and not c.isspace() for c in text) / length,
            (len(text.encode()) - len(text)) / length,
            1 - len(set(words)) / len(words),
            personal.search(text) is not None,
            any(phrase in lower for phrase in REFUSALS),
            max(found, key=lambda name: found[name]),
        )

    return lambda: [described(text) for text in texts]


TASKS = {
    "compare_tables": _compare_tables,
    "second_day": _second_day,
    "scipy_tables": _scipy_tables,
    "exact_kernel": _exact_kernel,
    "random_features": _random_features,
    "reindexed_kernel": _reindexed_kernel,
    "describe": _describe,
    "describe_with_vocabulary": _describe_with_vocabulary,
    "describe_plainly": _describe_plainly,
}

if __name__ == "__main__":
    work = TASKS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
    begin, cpu = time.perf_counter(), time.process_time()
    work()
    print(json.dumps(vars(Cost(time.perf_counter() - begin, time.process_time() - cpu, _peak_mb()))))
