"""The drift reference of a data set (``profile.json``): how its prompts are distributed, and which words they use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from genai_operators.decisions.profile import Profile
from genai_operators.exceptions import DataError
from genai_operators.store import canonical_json
from genai_operators.workloads.frame_profile import profile_frame
from genai_operators.workloads.records import Record
from genai_operators.workloads.text_features import (
    OUT_OF_VOCABULARY,
    describe,
    feature_kinds,
    learn_vocabulary,
    reference_out_of_vocabulary,
)

PREFIX = "prompt."
REFERENCE_VERSION = 1


@dataclass(frozen=True, eq=False)
class Reference:
    """What a window of traffic is compared with."""

    profile: Profile
    vocabulary: tuple[str, ...]

    @classmethod
    def learn(cls, records: Sequence[Record]) -> Reference:
        """From the rows that the model learnt. :raises DataError: when there are none."""
        if not records:
            raise DataError("there are no rows to learn a drift reference from")
        vocabulary = learn_vocabulary(_questions(records))
        return cls(profile_prompts(records, vocabulary=vocabulary, learnt=True), tuple(vocabulary))

    def save(self, path: Path) -> None:
        """Write ``profile.json``."""
        record = {
            "version": REFERENCE_VERSION,
            "profile": self.profile.to_json(),
            "vocabulary": list(self.vocabulary),
        }
        path.write_bytes(canonical_json(record))

    @classmethod
    def load(cls, path: Path) -> Reference:
        """:raises DataError: when there is none, or one of another version."""
        if not path.exists():
            raise DataError(f"{path.name} is missing in the data set; run the validation again")
        record = json.loads(path.read_bytes())
        if record.get("version") != REFERENCE_VERSION:
            raise DataError(
                f"{path.name} has version {record.get('version')!r}, this code reads {REFERENCE_VERSION}; "
                "run the validation again"
            )
        return cls(Profile.from_json(record["profile"]), tuple(record["vocabulary"]))


def profile_prompts(
    records: Sequence[Record], *, vocabulary: Sequence[str], features: Sequence[str] = (), learnt: bool = False
) -> Profile:
    """Profile of what users said last in each record; all features, or those named (``prompt.words``).

    :param learnt: are these the records that the vocabulary was learnt from? Then each is judged by the others' words.
    :raises DataError: for a feature that there is not.
    """
    questions = _questions(records)
    frame = describe(questions, prefix=PREFIX, vocabulary=vocabulary)
    if learnt:
        unknown_words = reference_out_of_vocabulary(questions, vocabulary)
        frame = frame.with_columns(unknown_words.alias(PREFIX + OUT_OF_VOCABULARY))
    kinds = feature_kinds(prefix=PREFIX, vocabulary=True)
    if unknown := sorted(set(features) - set(kinds)):
        raise DataError(f"drift.features: there is no feature {unknown[0]!r}; there are {', '.join(kinds)}")
    return profile_frame(frame, {name: kind for name, kind in kinds.items() if not features or name in features})


def _questions(records: Sequence[Record]) -> pl.Series:
    return pl.Series("text", [record.question for record in records], dtype=pl.String)
