"""What drift detection needs to know of one column, mergeable in any order and a few tens of kilobytes small."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genai_operators.decisions.profile_codec import pack, pack_sorted, unpack, unpack_sorted
from genai_operators.decisions.profile_sketch import Sketch, merge_sketches, sketch
from genai_operators.exceptions import DataError

Kind = Literal["continuous", "categorical"]

CATEGORIES = 4_096
"""Distinct categories kept by name. A column with more of them is kept as counts of as many hash buckets instead:
nothing is cut off as 'other', and the result does not depend on the order in which rows came."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ContinuousProfile:
    """A column of numbers: a sketch of its distribution, missing rows and moments.

    :param rows: all rows, missing ones included.
    :param missing: rows that were NaN or None.
    :param mean: mean of the rows present; 0 when none is.
    :param squares: sum of squared deviations from the mean.
    """

    name: str
    rows: int
    missing: int
    sketch: Sketch
    mean: float
    squares: float

    kind: Literal["continuous"] = "continuous"

    @property
    def present(self) -> int:
        return self.rows - self.missing

    @property
    def standard_deviation(self) -> float:
        """Of the rows present (n - 1 in the denominator); NaN below two rows."""
        return math.sqrt(self.squares / (self.present - 1)) if self.present > 1 else math.nan

    def quantiles(self, shares: ArrayLike) -> NDArray[np.float64]:
        """Values below which the given shares (0..1) of the rows present lie; NaN for an empty column."""
        wanted = np.asarray(shares, dtype=np.float64)
        if self.present == 0:
            return np.full(wanted.shape, math.nan)
        cumulative = np.cumsum(self.sketch.counts)
        found: NDArray[np.int64] = np.searchsorted(cumulative, wanted * self.present, side="left")
        return self.sketch.values()[np.minimum(found, len(cumulative) - 1)]

    def counts_between(self, edges: ArrayLike) -> NDArray[np.int64]:
        """Rows in each [edge, next edge), the last closed; for a histogram. Shape (len(edges) - 1,)."""
        found, _ = np.histogram(self.sketch.values(), bins=np.asarray(edges), weights=self.sketch.counts)
        return found.astype(np.int64)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "rows": self.rows,
            "missing": self.missing,
            "mean": self.mean,
            "squares": self.squares,
            "shift": self.sketch.shift,
            "keys": pack_sorted(self.sketch.keys),
            "counts": pack(self.sketch.counts.astype(np.uint64)),
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class CategoricalProfile:
    """A column of names.

    :param counts: rows of each category; of each hash bucket (``"#17"``) when ``hashed``.
    :param hashed: were there more than ``CATEGORIES`` distinct categories?
    """

    name: str
    rows: int
    missing: int
    counts: Mapping[str, int]
    hashed: bool = False

    kind: Literal["categorical"] = "categorical"

    @property
    def present(self) -> int:
        return self.rows - self.missing

    def as_hashed(self) -> CategoricalProfile:
        """The same rows as counts of hash buckets."""
        if self.hashed:
            return self
        counts: Counter[str] = Counter()
        for category, count in self.counts.items():
            counts[_bucket(category)] += count
        return CategoricalProfile(
            name=self.name, rows=self.rows, missing=self.missing, counts=_ordered(counts), hashed=True
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "rows": self.rows,
            "missing": self.missing,
            "hashed": self.hashed,
            "counts": dict(self.counts),
        }


ColumnProfile = ContinuousProfile | CategoricalProfile


def profile_column(name: str, values: Iterable[Any] | NDArray[Any], kind: Kind) -> ColumnProfile:
    """Profile one column.

    :param values: shape (n,). Numbers or booleans when ``continuous``; anything with a ``str`` when ``categorical``.
        NaN and None count as missing.
    :raises DataError: infinities or text in a continuous column; an unknown kind. The message names the column.
    """
    if kind == "continuous":
        return _profile_numbers(name, values)
    if kind == "categorical":
        return profile_counts(name, Counter(_as_list(values)))
    raise DataError(f"column {name!r}: kind {kind!r} is neither 'continuous' nor 'categorical'")


def profile_counts(name: str, counts: Mapping[Any, int]) -> CategoricalProfile:
    """Profile a categorical column that an engine has counted already (polars ``value_counts``, SQL ``GROUP BY``).

    :param counts: rows of each category; the keys None and NaN are missing rows.
    :raises DataError: a negative or fractional count.
    """
    kept: Counter[str] = Counter()
    missing = 0
    for category, count in counts.items():
        if count < 0 or count != int(count):
            raise DataError(f"column {name!r}: category {category!r} has the count {count!r}; counts are whole numbers")
        if category is None or (isinstance(category, float) and math.isnan(category)):
            missing += int(count)
        elif count:
            kept[str(category)] += int(count)
    rows = sum(kept.values()) + missing
    whole = CategoricalProfile(name=name, rows=rows, missing=missing, counts=_ordered(kept))
    return whole if len(kept) <= CATEGORIES else whole.as_hashed()


def merge_columns(first: ColumnProfile, second: ColumnProfile) -> ColumnProfile:
    """The profile of both samples together. Counts are exact in any order; moments to rounding.

    :raises DataError: the profiles are of different columns or kinds.
    """
    if first.name != second.name or first.kind != second.kind:
        raise DataError(
            f"cannot merge column {first.name!r} ({first.kind}) with {second.name!r} ({second.kind}): "
            "profiles merge column by column, of one kind"
        )
    if isinstance(first, CategoricalProfile) and isinstance(second, CategoricalProfile):
        return _merge_categories(first, second)
    if isinstance(first, ContinuousProfile) and isinstance(second, ContinuousProfile):
        return _merge_numbers(first, second)
    raise DataError(f"column {first.name!r}: {type(first).__name__} is no profile that this code knows")


def column_from_json(record: Mapping[str, Any]) -> ColumnProfile:
    """:raises DataError: a damaged record; the message names the column."""
    name = record.get("name")
    try:
        column = _categories(record) if record["kind"] == "categorical" else _numbers(record)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"the profile of column {name!r} is damaged ({error!r}); profile the data again") from error
    counted = column.sketch.rows if isinstance(column, ContinuousProfile) else sum(column.counts.values())
    if counted != column.present or column.missing < 0:
        raise DataError(
            f"the profile of column {name!r} is damaged: {counted} rows are counted, {column.present} are declared; "
            "profile the data again"
        )
    return column


def _categories(record: Mapping[str, Any]) -> CategoricalProfile:
    return CategoricalProfile(
        name=str(record["name"]),
        rows=int(record["rows"]),
        missing=int(record["missing"]),
        counts=_ordered({str(category): int(count) for category, count in record["counts"].items()}),
        hashed=bool(record["hashed"]),
    )


def _numbers(record: Mapping[str, Any]) -> ContinuousProfile:
    counts = unpack(record["counts"]).astype(np.int64)
    return ContinuousProfile(
        name=str(record["name"]),
        rows=int(record["rows"]),
        missing=int(record["missing"]),
        sketch=Sketch(unpack_sorted(record["keys"]), counts, int(record["shift"])),
        mean=float(record["mean"]),
        squares=float(record["squares"]),
    )


def _profile_numbers(name: str, values: Iterable[Any] | NDArray[Any]) -> ContinuousProfile:
    array = values if isinstance(values, np.ndarray) else np.asarray(_as_list(values))
    try:
        numbers = np.asarray(array, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise DataError(f"column {name!r} is continuous but holds something that is no number: {error}") from error
    missing = np.isnan(numbers)
    present = numbers[~missing] if missing.any() else numbers
    if not np.isfinite(present).all():
        raise DataError(
            f"column {name!r} holds {int(np.isinf(present).sum())} infinite values; a profile needs finite numbers: "
            "mend the rows, or leave the values out (NaN counts as missing)"
        )
    mean = float(present.mean()) if len(present) else 0.0
    return ContinuousProfile(
        name=name,
        rows=len(numbers),
        missing=len(numbers) - len(present),
        sketch=sketch(present),
        mean=mean,
        squares=float(present.var()) * len(present) if len(present) else 0.0,
    )


def _merge_numbers(first: ContinuousProfile, second: ContinuousProfile) -> ContinuousProfile:
    n, m = first.present, second.present
    # Chan, Golub and LeVeque 1983: parallel update of mean and sum of squares.
    gap = second.mean - first.mean
    share = m / (n + m) if n + m else 0.0
    return ContinuousProfile(
        name=first.name,
        rows=first.rows + second.rows,
        missing=first.missing + second.missing,
        sketch=merge_sketches(first.sketch, second.sketch),
        mean=first.mean + gap * share,
        squares=first.squares + second.squares + gap * gap * n * share,
    )


def _merge_categories(first: CategoricalProfile, second: CategoricalProfile) -> CategoricalProfile:
    if first.hashed or second.hashed:
        first, second = first.as_hashed(), second.as_hashed()
    counts = Counter(first.counts)
    counts.update(second.counts)
    whole = CategoricalProfile(
        name=first.name,
        rows=first.rows + second.rows,
        missing=first.missing + second.missing,
        counts=_ordered(counts),
        hashed=first.hashed,
    )
    return whole if len(counts) <= CATEGORIES else whole.as_hashed()


def _bucket(category: str) -> str:
    digest = hashlib.blake2b(category.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return f"#{int.from_bytes(digest, 'little') % CATEGORIES}"


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    return {category: int(counts[category]) for category in sorted(counts)}


def _as_list(values: Iterable[Any] | NDArray[Any]) -> list[Any]:
    """Plain Python values of an array, a polars or pandas series, or any iterable."""
    convert = getattr(values, "tolist", None) or getattr(values, "to_list", None)
    return list(convert()) if convert is not None else list(values)
