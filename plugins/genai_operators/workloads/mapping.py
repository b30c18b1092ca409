"""From a row's columns to messages by the model file's templates: ``prompt: "{text}"``, ``answer: "{category}"``."""

from __future__ import annotations

import difflib
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genai_operators.exceptions import DataError
from genai_operators.spec.data import OutputKind
from genai_operators.workloads.records import ROLES, Message, Record
from genai_operators.workloads.sources import Row

MESSAGES_COLUMN = "messages"


@dataclass(frozen=True)
class Template:
    """Literal text and column names in turn. ``{{`` and ``}}`` are literal braces, as in Python's format strings."""

    field: str
    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def parse(cls, text: str, *, field: str) -> Template:
        """:param field: name in the model file, for messages. :raises DataError: for anything but ``{column}``."""
        try:
            parsed = [
                (literal, name, spec, conversion) for literal, name, spec, conversion in string.Formatter().parse(text)
            ]
        except ValueError as error:
            raise DataError(f"{field}: {text!r} is not a template ({error}). Write a literal brace twice.") from error
        for _, name, spec, conversion in parsed:
            if name is not None and (not name or spec or conversion):
                raise DataError(f"{field}: {text!r} may hold {{column}} only; write a literal brace twice.")
        return cls(field, tuple((literal, name) for literal, name, _, _ in parsed))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it names."""
        return tuple(name for _, name in self.pieces if name is not None)

    def fill(self, row: Row, *, output: OutputKind = OutputKind.TEXT) -> str:
        """The text for a row. In a JSON answer of several pieces, values are escaped as inside a JSON string.

        :raises DataError: when the row lacks a column.
        """
        alone = len(self.pieces) == 1 and not self.pieces[0][0]
        text = []
        for literal, name in self.pieces:
            text.append(literal)
            if name is not None:
                value = _as_text(self._value(row, name))
                text.append(json.dumps(value)[1:-1] if output is OutputKind.JSON and not alone else value)
        return "".join(text)

    def _value(self, row: Row, name: str) -> Any:
        if name in row.values:
            return row.values[name]
        nearest = difflib.get_close_matches(name, row.values, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise DataError(
            f"{row.place}: no column {name!r}, which {self.field} of the model file names; the row has "
            f"{', '.join(sorted(row.values)) or 'none'}.{hint}"
        )


@dataclass(frozen=True, kw_only=True)
class RowMapping:
    """How rows of one model become records."""

    prompt: Template
    answer: Template
    system: str | None
    output: OutputKind

    @classmethod
    def of(cls, *, prompt: str, answer: str, system: str | None, output: OutputKind) -> RowMapping:
        """:raises DataError: when a template is malformed."""
        return cls(
            prompt=Template.parse(prompt, field="data.prompt"),
            answer=Template.parse(answer, field="data.answer"),
            system=system,
            output=output,
        )

    def record(self, row: Row, *, index: int, source: str) -> Record:
        """The record of a row. A row with a column ``messages`` is a conversation already, if no template wants its
        columns.

        :param index: number of the row among all of its source; makes the id of a row that has none.
        :raises DataError: naming file and line.
        """
        identity = str(row.values.get("id") or f"{source}-{index:07d}")
        wanted = {*self.prompt.columns, *self.answer.columns}
        if MESSAGES_COLUMN in row.values and not wanted & set(row.values):
            messages = _conversation(row)
        else:
            messages = (
                Message("user", self.prompt.fill(row)),
                Message("assistant", self.answer.fill(row, output=self.output)),
            )
        if self.system is not None and messages[0].role != "system":
            messages = (Message("system", self.system), *messages)
        return Record(id=identity, messages=messages, source=source)


def map_rows(rows: Sequence[Row], mapping: RowMapping, *, source: str) -> list[Record]:
    """Records of all rows, in order."""
    return [mapping.record(row, index=index, source=source) for index, row in enumerate(rows)]


def _conversation(row: Row) -> tuple[Message, ...]:
    turns = row.values[MESSAGES_COLUMN]
    if not isinstance(turns, list) or len(turns) < 2:
        raise DataError(f"{row.place}: messages must be a list of at least a user's and the assistant's message")
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or turn.get("role") not in ROLES or not isinstance(turn.get("content"), str):
            raise DataError(
                f"{row.place}: message {number} must be an object with role ({', '.join(ROLES)}) and content (text)"
            )
    if turns[-1]["role"] != "assistant":
        raise DataError(f"{row.place}: the last message must be the assistant's; it is the answer to be learnt")
    return tuple(Message(turn["role"], turn["content"]) for turn in turns)


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
