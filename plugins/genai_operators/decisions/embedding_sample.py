"""A bounded, uniform sample of embedded rows that merges: the rows whose ids have the smallest hashes.

A row's place in the sample depends on its id alone, so the samples of two days merge into the sample of both days
together, in any order, whatever their sizes. Source: Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genai_operators.exceptions import DataError

SAMPLE_ROWS = 2_000
"""Rows kept: with 128 dimensions of 2 bytes, half a megabyte."""


@dataclass(frozen=True, eq=False)
class EmbeddingSample:
    """Embeddings of some rows, by ascending hash of their ids.

    :param ids: of the rows, shape (n,); never texts.
    :param points: shape (n, dimensions), 16-bit floats.
    """

    ids: tuple[str, ...]
    points: NDArray[np.float16]

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or len(self.ids) != len(self.points):
            raise DataError(
                f"an embedding sample has {len(self.ids)} ids and embeddings of shape {self.points.shape}; "
                "it needs a row for each id"
            )
        if not np.isfinite(self.points).all():
            raise DataError("an embedding sample holds values that are not finite")

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, ids: Sequence[str], points: NDArray[np.floating], *, rows: int = SAMPLE_ROWS) -> EmbeddingSample:
        """At most ``rows`` of these rows. An id that comes twice counts once.

        :raises DataError: as many ids as rows are needed, and finite values.
        """
        if len(ids) != len(points):
            raise DataError(f"{len(ids)} ids for {len(points)} embeddings; give one for each")
        chosen = sample_rows(ids, rows=rows)
        return cls(tuple(str(ids[row]) for row in chosen), np.asarray(points[chosen], dtype=np.float16))

    def anonymous(self) -> EmbeddingSample:
        """The same points under numbers: ids that somebody else chose may say something. It no longer merges."""
        return EmbeddingSample(tuple(str(row) for row in range(len(self))), self.points)


def sample_rows(ids: Sequence[str], *, rows: int = SAMPLE_ROWS) -> list[int]:
    """Which rows a sample keeps, so that only those need to be embedded: positions, by ascending hash of the id."""
    first: dict[str, int] = {}
    for position, identity in enumerate(ids):
        first.setdefault(str(identity), position)
    ordered = sorted(first, key=lambda identity: hashlib.sha256(identity.encode()).digest())
    return [first[identity] for identity in ordered[:rows]]


def merge_samples(samples: Sequence[EmbeddingSample], *, rows: int = SAMPLE_ROWS) -> EmbeddingSample:
    """The sample of all rows together. :raises DataError: nothing to merge, or other dimensions."""
    widths = sorted({sample.points.shape[1] for sample in samples})
    if len(widths) != 1:
        raise DataError(f"embedding samples of {widths or 'no'} dimensions do not merge: embed them by the same code")
    ids = [identity for sample in samples for identity in sample.ids]
    return EmbeddingSample.of(ids, np.concatenate([sample.points for sample in samples]), rows=rows)
