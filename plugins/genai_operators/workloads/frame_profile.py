"""From a polars frame, or a Parquet file of any size, to a profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path

import polars as pl

from genai_operators.decisions.profile import (
    ColumnProfile,
    Kind,
    Profile,
    merge_columns,
    profile_column,
    profile_counts,
)
from genai_operators.exceptions import DataError

SLICE_ROWS = 262_144
SLICE_COLUMNS = 3
"""Rows and columns in memory at a time while a Parquet file is profiled; polars decodes these columns side by side."""


def profile_frame(frame: pl.DataFrame, kinds: Mapping[str, Kind]) -> Profile:
    """Profile the named columns of a frame.

    :param kinds: ``continuous`` or ``categorical`` for each column to be profiled; other columns are left out.
    :raises DataError: a named column is missing from the frame, or cannot be what its kind says.
    """
    _require_columns(kinds, frame.columns, "the frame")
    return Profile.of([profile_series(frame[name], kind) for name, kind in kinds.items()])


def profile_parquet(path: str | Path, kinds: Mapping[str, Kind]) -> Profile:
    """Profile the named columns of a Parquet file, ``SLICE_COLUMNS`` and ``SLICE_ROWS`` in memory at a time.

    :raises DataError: a named column is missing from the file, or cannot be what its kind says; or the file is empty.
    """
    scan = pl.scan_parquet(path, low_memory=True)
    _require_columns(kinds, scan.collect_schema().names(), str(path))
    rows = scan.select(pl.len()).collect().item()
    if not rows:
        raise DataError(f"{path} has no row to profile")
    names = list(kinds)
    together = [names[first : first + SLICE_COLUMNS] for first in range(0, len(names), SLICE_COLUMNS)]
    return Profile.of([column for some in together for column in _profile_slices(scan, some, kinds, rows)])


def profile_series(values: pl.Series, kind: Kind) -> ColumnProfile:
    """Profile one column; nulls and NaN count as missing.

    :raises DataError: text or infinities in a continuous column.
    """
    if kind == "categorical":
        counted = values.value_counts(name="rows")
        return profile_counts(values.name, dict(zip(counted.to_series(0), counted["rows"], strict=True)))
    if not (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        raise DataError(f"column {values.name!r} is continuous but holds {values.dtype}, not numbers")
    return profile_column(values.name, values.cast(pl.Float64).to_numpy(), kind)


def _profile_slices(scan: pl.LazyFrame, names: list[str], kinds: Mapping[str, Kind], rows: int) -> list[ColumnProfile]:
    def parts() -> Iterator[list[ColumnProfile]]:
        for start in range(0, rows, SLICE_ROWS):
            frame = scan.select(names).slice(start, SLICE_ROWS).collect()
            yield [profile_series(frame[name], kinds[name]) for name in names]

    return reduce(lambda whole, part: list(map(merge_columns, whole, part)), parts())


def _require_columns(kinds: Mapping[str, Kind], columns: list[str], where: str) -> None:
    lacking = [name for name in kinds if name not in columns]
    if lacking:
        raise DataError(f"{where} has no column {lacking}; it has {columns}")
