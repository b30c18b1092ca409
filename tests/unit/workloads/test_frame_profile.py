"""Profiles of frames and Parquet files agree with those of plain arrays, however the file is cut."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from genai_operators.decisions.profile import Profile, profile_column
from genai_operators.exceptions import DataError
from genai_operators.workloads import frame_profile
from genai_operators.workloads.frame_profile import profile_frame, profile_parquet, profile_series

KINDS = {"length": "continuous", "flag": "continuous", "language": "categorical"}


def frame(rows: int = 3_000) -> pl.DataFrame:
    random = np.random.default_rng(0)
    lengths = random.standard_normal(rows)
    lengths[::10] = math.nan
    return pl.DataFrame(
        {
            "length": lengths,
            "flag": random.random(rows) < 0.2,
            "language": pl.Series(random.choice(["en", "de"], rows)).replace("de", None),
        }
    )


def test_frame_is_profiled_as_its_arrays_are():
    data = frame()
    expected = Profile.of([profile_column(name, data[name].to_list(), kind) for name, kind in KINDS.items()])
    assert profile_frame(data, KINDS).digest == expected.digest


def test_parquet_in_slices_equals_the_frame(tmp_path, monkeypatch):
    data = frame()
    data.write_parquet(tmp_path / "rows.parquet")
    monkeypatch.setattr(frame_profile, "SLICE_ROWS", 700)
    assert profile_parquet(tmp_path / "rows.parquet", KINDS).digest == profile_frame(data, KINDS).digest


def test_nulls_are_missing_rows():
    column = profile_series(pl.Series("x", [1.0, None, math.nan]), "continuous")
    assert (column.rows, column.missing) == (3, 2)


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(DataError, match="width"):
        profile_frame(frame(10), {"width": "continuous"})
    frame(10).write_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="width"):
        profile_parquet(tmp_path / "rows.parquet", {"width": "continuous"})


def test_text_is_not_continuous():
    with pytest.raises(DataError, match="language"):
        profile_frame(frame(10), {"language": "continuous"})


def test_an_empty_file_is_named(tmp_path):
    frame(10).clear().write_parquet(tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"none\.parquet"):
        profile_parquet(tmp_path / "none.parquet", KINDS)
