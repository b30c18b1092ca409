"""The profile of a table: saved once for the reference, so that a later check reads only the current window."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from genai_operators.decisions.profile_column import (
    CategoricalProfile,
    ColumnProfile,
    ContinuousProfile,
    Kind,
    column_from_json,
    merge_columns,
    profile_column,
    profile_counts,
)
from genai_operators.exceptions import DataError

__all__ = [
    "PROFILE_VERSION",
    "CategoricalProfile",
    "ColumnProfile",
    "ContinuousProfile",
    "Kind",
    "Profile",
    "merge",
    "merge_columns",
    "profile_column",
    "profile_counts",
]

PROFILE_VERSION = 1


@dataclass(frozen=True, eq=False)
class Profile:
    """Column profiles of one sample of rows.

    :param columns: by name.
    :param rows: rows of the sample; each column counts as many, missing ones included.
    :param version: of the record; another version is refused, never guessed at.
    :raises DataError: a column whose name or row count disagrees.
    """

    columns: Mapping[str, ColumnProfile]
    rows: int
    version: int = PROFILE_VERSION

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if column.name != name or column.rows != self.rows:
                raise DataError(
                    f"profile column {name!r} is of {column.name!r} with {column.rows} rows, not {self.rows}"
                )

    @classmethod
    def of(cls, columns: Sequence[ColumnProfile]) -> Profile:
        """A profile of columns that were taken from the same rows. :raises DataError: no column, or one name twice."""
        if not columns:
            raise DataError("a profile needs at least one column")
        named = {column.name: column for column in columns}
        if len(named) < len(columns):
            raise DataError(f"a profile has one column a name, got {sorted(c.name for c in columns)}")
        return cls(columns=named, rows=columns[0].rows)

    @property
    def schema(self) -> str:
        """Short digest of column names and kinds: two profiles compare and merge only when it is equal."""
        text = "\n".join(f"{name}\t{self.columns[name].kind}" for name in sorted(self.columns))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def digest(self) -> str:
        """Short digest of everything counted: names a reference."""
        whole = hashlib.sha256(self.schema.encode())
        for name in sorted(self.columns):
            column = self.columns[name]
            whole.update(f"{column.rows}:{column.missing}".encode())
            if isinstance(column, ContinuousProfile):
                whole.update(column.sketch.keys.astype("<u8").tobytes() + column.sketch.counts.astype("<i8").tobytes())
            else:
                whole.update(repr(sorted(column.counts.items())).encode())
        return whole.hexdigest()[:16]

    def merge(self, other: Profile) -> Profile:
        """The profile of both samples together; in any order, the same. :raises DataError: other columns or version."""
        require_comparable(self, other, verb="merge")
        columns = {name: merge_columns(column, other.columns[name]) for name, column in self.columns.items()}
        return Profile(columns=columns, rows=self.rows + other.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; some tens of kB a column. No raw text, but category names are kept as they are."""
        return {
            "version": self.version,
            "schema": self.schema,
            "rows": self.rows,
            "columns": [self.columns[name].to_json() for name in sorted(self.columns)],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Profile:
        """:raises DataError: a record of another version, or a damaged one."""
        version = record.get("version")
        if version != PROFILE_VERSION:
            raise DataError(
                f"the profile has version {version!r}, this code reads {PROFILE_VERSION}: profile the reference again"
            )
        columns = [column_from_json(column) for column in record.get("columns", [])]
        profile = cls(columns={column.name: column for column in columns}, rows=int(record["rows"]))
        if record.get("schema") != profile.schema:
            raise DataError(
                f"the profile's columns do not match its schema digest {record.get('schema')!r}: it was edited or "
                "damaged; profile the data again"
            )
        return profile


def merge(profiles: Sequence[Profile]) -> Profile:
    """All samples together, e.g. the days of a window. :raises DataError: nothing to merge, or other columns."""
    if not profiles:
        raise DataError("there is no profile to merge")
    return reduce(Profile.merge, profiles)


def require_comparable(first: Profile, second: Profile, *, verb: str = "compare") -> None:
    """:raises DataError: naming the columns that only one side has, or that have two kinds."""
    for profile in (first, second):
        if profile.version != PROFILE_VERSION:
            raise DataError(
                f"cannot {verb} a profile of version {profile.version!r}; this code reads {PROFILE_VERSION}: "
                "profile the data again"
            )
    if first.schema == second.schema:
        return
    lonely = sorted(set(first.columns) ^ set(second.columns))
    changed = sorted(
        n for n in set(first.columns) & set(second.columns) if first.columns[n].kind != second.columns[n].kind
    )
    raise DataError(
        f"cannot {verb} profiles of different schemas: only one side has {lonely or 'nothing else'}, "
        f"the kind differs for {changed or 'none'}; profile both with the same features"
    )
