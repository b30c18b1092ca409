"""What is found: a new language, another topic, longer documents; and what the outlier of a million does not change.

Documents are drawn from word lists of our own, embeddings around topics of our own; the shifts are those that the
customary monitors were seen to miss.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.drift_calibration import LEVEL, embedded
from genai_operators.decisions.drift import DriftSettings, compare
from genai_operators.decisions.embedding_drift import EmbeddingDriftSettings, embedding_drift
from genai_operators.decisions.profile import Profile, profile_column
from genai_operators.workloads.frame_profile import profile_frame
from genai_operators.workloads.text_features import (
    describe,
    feature_kinds,
    learn_vocabulary,
    reference_out_of_vocabulary,
)

_ENGLISH = """the and of to is my you that for have with it this can not what how why do when order card account
payment transfer money bank refund status delivery parcel late lost stolen charge fee balance top up cash machine pin
code app phone number address change cancel close open new old please help need want know tell today yesterday week"""
_GERMAN = """der die und ich nicht das ist mein meine ein eine wie mit auf sie zu karte konto geld bank zahlung paket
bestellung lieferung verloren gestohlen gebühr stand code nummer adresse ändern kündigen neu alt bitte hilfe heute"""
ENGLISH, GERMAN = _ENGLISH.split(), _GERMAN.split()
DIMENSIONS = 64

Generator = np.random.Generator


def documents(random: Generator, count: int, *, longer: float = 0.0, german: float = 0.0) -> pl.Series:
    """Documents of about 30 words; a share of them half as long again, a share in German."""
    lengths = np.maximum(
        3, random.lognormal(math.log(30), 0.4, count) * np.where(random.random(count) < longer, 1.5, 1)
    )
    foreign = random.random(count) < german
    rows = []
    for length, other in zip(lengths.astype(int), foreign, strict=True):
        words = GERMAN if other else ENGLISH
        ranks = (random.random(length) ** 2 * len(words)).astype(int)  # the first words are the frequent ones
        rows.append(" ".join(words[rank] for rank in ranks))
    return pl.Series("text", rows)


def text_power(
    rows: int, *, runs: int, seed: int, longer: float = 0.0, german: float = 0.0, least: float = 0.01
) -> float:
    """Share of windows in which drift of the text features is named; rows a side, minimum effect ``least``."""
    random = np.random.default_rng([seed, rows])
    kinds = feature_kinds(vocabulary=True)
    settings = DriftSettings(minimum_effect=least, false_discovery_rate=LEVEL)
    found = 0
    for _ in range(runs):
        before, after = documents(random, rows), documents(random, rows, longer=longer, german=german)
        vocabulary = learn_vocabulary(before)
        own = reference_out_of_vocabulary(before, vocabulary).alias("out_of_vocabulary")
        reference = profile_frame(describe(before, vocabulary=vocabulary).with_columns(own), kinds)
        found += bool(
            compare(reference, profile_frame(describe(after, vocabulary=vocabulary), kinds), settings).drifted
        )
    return found / runs


def embedding_power(rows: int, *, runs: int, seed: int, new_topic: float = 0.0, tilt: float = 0.0) -> dict[str, float]:
    """Share of windows in which each embedding test is significant at 5 %, and in which drift is named.

    :param new_topic: share of rows of a topic that the reference does not have (a new language).
    :param tilt: share of rows that moved from one half of the topics to the other (other topics, nothing new).
    """
    random = np.random.default_rng([seed, rows])
    topics = random.standard_normal((21, DIMENSIONS)) / 2
    topics[20] *= 2  # another language lies apart
    usual, current = np.append(np.ones(20), 0.0) / 20, np.append(np.ones(20), 0.0) / 20
    current[:10] *= 1 - 2 * tilt
    current[10:20] *= 1 + 2 * tilt
    current[:20] *= 1 - new_topic
    current[20] = new_topic
    settings = EmbeddingDriftSettings(minimum_effect=0.0, false_discovery_rate=LEVEL)
    tally = {"discrepancy": 0, "clusters": 0, "named": 0}
    for run in range(runs):
        first, second = embedded(random, rows, topics, weights=usual), embedded(random, rows, topics, weights=current)
        found = embedding_drift(first, second, settings=EmbeddingDriftSettings(**{**vars(settings), "seed": run}))
        assert found.kernel is not None
        assert found.clusters is not None
        tally["discrepancy"] += found.kernel.p_value <= LEVEL
        tally["clusters"] += found.clusters.test.p_value <= LEVEL
        tally["named"] += bool(found.verdict.outcome == "fail")
    return {name: count / runs for name, count in tally.items()}


def outlier_changes(*, rows: int, runs: int, seed: int) -> int:
    """Verdicts that one value of 1e6 in the current window changes, with and without drift by one deviation."""
    random = np.random.default_rng(seed)
    changed = 0
    for run in range(runs):
        first, second = random.standard_normal(rows), random.standard_normal(rows) + run % 2
        clean, spoilt = (_numbers(side) for side in (second, np.append(second[1:], 1e6)))
        settings = DriftSettings(minimum_rows=50)
        verdicts = [compare(_numbers(first), side, settings).verdict.outcome for side in (clean, spoilt)]
        changed += verdicts[0] is not verdicts[1]
    return changed


def outlier_changes_equal_width(*, rows: int, runs: int, seed: int) -> int:
    """The same with the customary index: equal-width Sturges bins over the pooled range, drift above 0.1."""
    random = np.random.default_rng(seed)
    changed = 0
    for run in range(runs):
        first, second = random.standard_normal(rows), random.standard_normal(rows) + run % 2
        clean, spoilt = (_equal_width_psi(first, side) > 0.1 for side in (second, np.append(second[1:], 1e6)))
        changed += clean != spoilt
    return changed


def _numbers(values: NDArray[np.float64]) -> Profile:
    return Profile.of([profile_column("x", values, "continuous")])


def _equal_width_psi(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    pooled = np.concatenate([first, second])
    edges = np.linspace(pooled.min(), pooled.max(), int(np.log2(len(pooled))) + 2)
    p, q = (np.maximum(np.histogram(side, edges)[0] / len(side), 1e-4) for side in (first, second))
    return float(((p - q) * np.log(p / q)).sum())
