"""Raw data files of a user: CSV, JSONL and Parquet become rows that know where they stand.

Whatever is wrong with a file ends in one :class:`DataError` that names the file, the line, and what to do. Messages
name columns and positions, never the content of a row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from genai_operators.exceptions import DataError
from genai_operators.spec.data import DataFormat

SUFFIXES = {
    ".csv": DataFormat.CSV,
    ".jsonl": DataFormat.JSONL,
    ".ndjson": DataFormat.JSONL,
    ".parquet": DataFormat.PARQUET,
    ".pq": DataFormat.PARQUET,
}
LONGEST_FIELD = 10_000_000  # characters; the csv module's own limit of 131,072 is below a long document


@dataclass(frozen=True)
class Row:
    """One row as it was written. ``line`` is the line of a text file, or the number of a Parquet row, from 1."""

    file: str
    line: int
    values: dict[str, Any]

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.file}, line {self.line}"


def data_format(name: str, declared: DataFormat) -> DataFormat:
    """The format of a file: what the model file says, or what the ending says.

    :raises DataError: when neither does.
    """
    if declared is not DataFormat.AUTO:
        return declared
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{name}: the ending {suffix or '(none)'!r} is none of {', '.join(SUFFIXES)}. "
            "Convert the file, or set data.format to csv, jsonl or parquet."
        )
    return SUFFIXES[suffix]


def read_rows(path: Path, *, name: str, declared: DataFormat) -> list[Row]:
    """Every row of a file.

    :param name: how messages name the file, usually its URI.
    :raises DataError: when it cannot be read as its format, or holds no row.
    """
    readers = {DataFormat.CSV: _read_csv, DataFormat.JSONL: _read_jsonl, DataFormat.PARQUET: _read_parquet}
    chosen = data_format(name, declared)
    try:
        rows = list(readers[chosen](path, name))
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1 if error.end <= path.stat().st_size else 1
        raise DataError(
            f"{name}, about line {line}: not UTF-8 text ({error.reason}). Save the file as UTF-8."
        ) from error
    if not rows:
        raise DataError(f"{name}: the file holds no rows. Give it at least one, or take it out of the model file.")
    return rows


def _read_csv(path: Path, name: str) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from _csv_rows(file, name)


def _csv_rows(file: TextIO, name: str) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(file, strict=True)
    begins = 1
    try:
        header = next(reader, None)
        if header is None:
            return
        _check_header(header, name)
        begins = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(header):
                raise DataError(
                    f"{name}, line {begins}: {len(fields)} fields where the header has {len(header)}. A field that "
                    'holds a comma, a quote or a line break stands in "double quotes"; a quote inside is written twice.'
                )
            if fields:
                yield Row(name, begins, dict(zip(header, fields, strict=True)))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{name}, line {begins}: wrong CSV quoting ({error}); the row from there runs to line {reader.line_num}. "
            'Close every "quoted" field, and write a quote inside one twice.'
        ) from error


def _check_header(header: list[str], name: str) -> None:
    if twice := sorted({column for column in header if header.count(column) > 1}):
        raise DataError(f"{name}, line 1: the column {twice[0]!r} stands twice in the header. Rename one.")
    if len(header) == 1 and any(separator in header[0] for separator in ";\t|"):
        raise DataError(
            f"{name}, line 1: the header is one column, {header[0]!r}. Separate columns by commas, not by ; tab or |."
        )


def _read_jsonl(path: Path, name: str) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError as error:
                # its message holds positions, never content; to the parser each line is line 1
                reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
                raise DataError(
                    f"{name}, line {number}: not JSON ({reason}). Each line is one JSON object; mend or delete it."
                ) from error
            if not isinstance(value, dict):
                raise DataError(
                    f"{name}, line {number}: a JSON {type(value).__name__} where an object "
                    '({"column": value, ...}) is expected.'
                )
            yield Row(name, number, value)


def _read_parquet(path: Path, name: str) -> Iterator[Row]:
    import polars as pl

    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise DataError(
            f"{name}: not a readable Parquet file ({reason}). Write it again, or name its format."
        ) from error
    for number, values in enumerate(frame.iter_rows(named=True), start=1):
        yield Row(name, number, values)
