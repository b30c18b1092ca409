"""``data``: which rows teach the model, and how a row becomes a message and its answer."""

from __future__ import annotations

import string
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from genai_operators.spec.gate import OnFailure
from genai_operators.spec.quantities import Fraction, PositiveInt
from genai_operators.spec.section import Section


class DataFormat(StrEnum):
    """How data files are written; ``auto`` goes by the file's ending."""

    AUTO = "auto"
    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


class OutputKind(StrEnum):
    """What an answer is. ``json`` answers are compared as parsed objects and must parse."""

    TEXT = "text"
    JSON = "json"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _check_template(value: str) -> str:
    try:
        fields = [field for field in string.Formatter().parse(value) if field[1] is not None]
    except ValueError as error:
        raise ValueError(f"{error}; write a literal brace twice") from error
    if any(not name or format_spec or conversion for _, name, format_spec, conversion in fields):
        raise ValueError("only {column} may stand in braces; write a literal brace twice")
    if not fields:
        raise ValueError("names no {column}, so every row would be the same")
    return value


RowTemplate = Annotated[str, AfterValidator(_check_template)]
FileNames = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...],
    Field(min_length=1),
    BeforeValidator(_as_list),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]


class Data(Section):
    """Files are paths from the project's root, or URIs. CSV, JSONL or Parquet."""

    train: FileNames = Field(description="Training rows: a path or URI, or a list of them.")
    evaluation: str | None = Field(
        default=None, description="Rows for evaluation; without it part of `train` is held out."
    )
    holdout: Fraction = Field(default=0.1, description="Share of `train` held out where `evaluation` is absent.")
    format: DataFormat = Field(default=DataFormat.AUTO, description="File format; `auto` goes by the file's ending.")
    prompt: RowTemplate = Field(
        default="{text}", description="A row's user message; {column} stands for a column's value."
    )
    answer: RowTemplate = Field(
        default="{category}", description="The wished answer of a row; {column} stands for a column's value."
    )
    system: str | None = Field(default=None, description="A system message before every prompt.")
    output: OutputKind = Field(default=OutputKind.TEXT, description="What an answer is: free text, or a JSON object.")
    suite: str = Field(default="include/suites/messages.yaml", description="The expectations that the rows must meet.")
    feedback: bool = Field(default=True, description="Also learn from answers that users marked or corrected.")
    minimum_new_rows: int = Field(default=100, ge=0, description="Fewer new feedback rows wait for the next run.")
    maximum_new_rows: PositiveInt = Field(default=5000, description="At most so many feedback rows, the newest.")
    on_failure: OnFailure = Field(default=OnFailure.FAIL, description="What the run does when the rows do not pass.")
