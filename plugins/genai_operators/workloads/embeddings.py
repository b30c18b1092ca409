"""Embeddings of texts without a model and without a download: hashed character n-grams.

Every run of 3 to 5 characters of a lower-case text adds 1 or -1 to one of 128 sums; which one, and the sign, are a hash
of the characters. That is a random projection of the counts of all n-grams: lengths and angles are kept in expectation.
Texts that share words, stems or phrasing lie close; meaning without shared characters is not seen.
Source: Weinberger et al. 2009, "Feature hashing for large scale multitask learning".

Pure integer arithmetic up to the last division, so every machine computes the same embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genai_operators.decisions.embedding_sample import SAMPLE_ROWS, EmbeddingSample, sample_rows
from genai_operators.exceptions import DataError
from genai_operators.workloads.records import Record

DIMENSIONS = 128
LENGTHS = (3, 4, 5)
LONGEST_TEXT = 2_000
"""Characters of a text that are read; what a prompt is about shows before."""

EMBEDDING_VERSION = 1
FILE_NAME = "embeddings.npz"

_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit vectors, shape (texts, 128); zeros for a text of fewer than 3 characters."""
    bounded = [f" {text[:LONGEST_TEXT].lower()} " for text in texts]
    lengths = np.array([len(text) for text in bounded], dtype=np.int64)
    codes = np.frombuffer("".join(bounded).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    rows = np.repeat(np.arange(len(bounded)), lengths)
    sums = np.zeros(len(bounded) * DIMENSIONS)
    for length in LENGTHS:
        if len(codes) < length:
            continue
        hashed, owners = _ngrams(codes, rows, length)
        place = owners * DIMENSIONS + (hashed % np.uint64(DIMENSIONS)).astype(np.int64)
        sign = 1.0 - 2.0 * (hashed >> np.uint64(63)).astype(np.float64)
        sums += np.bincount(place, weights=sign, minlength=len(sums))
    points = sums.reshape(len(bounded), DIMENSIONS)
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    return (points / np.where(norms > 0, norms, 1)).astype(np.float32)


def _ngrams(
    codes: NDArray[np.uint64], rows: NDArray[np.int64], length: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash of every run of ``length`` characters within one text, and the text that it is of."""
    count = len(codes) - length + 1
    hashed = np.full(count, length, dtype=np.uint64)
    for offset in range(length):
        hashed = _mixed(hashed * _FACTOR + codes[offset : offset + count])
    inside = rows[:count] == rows[length - 1 :]
    return hashed[inside], rows[:count][inside]


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread over 64 bits. Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return mixed


def sample_prompts(records: Sequence[Record], *, rows: int = SAMPLE_ROWS) -> EmbeddingSample:
    """A sample of what users said last in each record, embedded; ids are the records'."""
    chosen = [records[row] for row in sample_rows([record.id for record in records], rows=rows)]
    return EmbeddingSample.of([record.id for record in chosen], embed([record.question for record in chosen]))


def save_sample(sample: EmbeddingSample, folder: Path) -> None:
    """Write ``embeddings.npz``; the same sample gives the same bytes."""
    ids = np.array(sample.ids, dtype=np.str_)
    np.savez(folder / FILE_NAME, version=np.array(EMBEDDING_VERSION), ids=ids, points=sample.points)


def load_sample(folder: Path) -> EmbeddingSample | None:
    """What :func:`save_sample` wrote; ``None`` where there is none, or one by other code than this.

    :raises DataError: a damaged file.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            if int(stored["version"]) != EMBEDDING_VERSION:
                return None
            return EmbeddingSample(tuple(str(identity) for identity in stored["ids"]), stored["points"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path.name} is damaged ({error}); run the validation again") from error
