"""From a polars frame to a profile: polars sorts and counts, the profile keeps what drift detection needs."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from genai_operators.decisions.profile import ColumnProfile, Kind, Profile, profile_column, profile_counts
from genai_operators.exceptions import DataError


def profile_frame(frame: pl.DataFrame, kinds: Mapping[str, Kind]) -> Profile:
    """Profile the named columns of a frame.

    :param kinds: ``continuous`` or ``categorical`` for each column to be profiled; other columns are left out.
    :raises DataError: a named column is missing from the frame, or cannot be what its kind says.
    """
    lacking = [name for name in kinds if name not in frame.columns]
    if lacking:
        raise DataError(f"the frame has no column {lacking}; it has {frame.columns}")
    return Profile.of([profile_series(frame[name], kind) for name, kind in kinds.items()])


def profile_series(values: pl.Series, kind: Kind) -> ColumnProfile:
    """Profile one column; nulls and NaN count as missing. :raises DataError: text in a continuous column, infinities."""
    if kind == "categorical":
        counted = values.value_counts()
        return profile_counts(values.name, dict(zip(counted[values.name].to_list(), counted["count"], strict=True)))
    if not (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        raise DataError(f"column {values.name!r} is continuous but holds {values.dtype}, not numbers")
    return profile_column(values.name, values.cast(pl.Float64).to_numpy(), kind)
