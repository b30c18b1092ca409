"""What is wrong in a file, in words: place, field, the bad value, what is allowed, and the nearest valid spelling."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from genai_operators.spec.yaml_nodes import Document, Place

MAXIMUM_VALUE_LENGTH = 60


@dataclass(frozen=True, order=True)
class Problem:
    """One error in one file; prints as ``file:line:column: what``."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"

    @classmethod
    def at(cls, file: str, place: Place, message: str) -> Problem:
        """A problem at a place of a file."""
        return cls(file=file, line=place.line, column=place.column, message=message)


def problems_of(error: ValidationError, *, file: str, document: Document, model: type[BaseModel]) -> list[Problem]:
    """Every error of a failed validation, in the order of the file."""
    details = error.errors(include_url=False)
    places = [tuple(detail["loc"]) for detail in details]
    return sorted(
        {
            _problem(dict(detail), file, document, model)
            for detail in details
            # pydantic counts a list's valid items only, so one wrong item makes the list "too short" as well
            if detail["type"] != "too_short" or not any(_within(place, tuple(detail["loc"])) for place in places)
        }
    )


def choice(value: object, allowed: Iterable[str]) -> str:
    """``'cvs' is not allowed; did you mean 'csv'? Allowed: auto, csv, jsonl``."""
    names = list(allowed)
    return f"{show(value)} is not allowed;{nearest(value, names)} allowed: {', '.join(names) or 'none'}"


def nearest(value: object, names: Iterable[str]) -> str:
    """`` did you mean 'csv'?`` when one of the names is close, else nothing."""
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(value).lower(), by_lower, n=1, cutoff=0.5)
    return f" did you mean {by_lower[close[0]]!r}?" if close else ""


def show(value: object) -> str:
    """A value as the user wrote it, cut where it is long."""
    text = "nothing (null)" if value is None else repr(value)
    return text if len(text) <= MAXIMUM_VALUE_LENGTH else f"{text[: MAXIMUM_VALUE_LENGTH - 3]}..."


def _within(place: tuple[int | str, ...], other: tuple[int | str, ...]) -> bool:
    return len(place) > len(other) and place[: len(other)] == other


def _problem(detail: dict[str, Any], file: str, document: Document, model: type[BaseModel]) -> Problem:
    path, kind = tuple(detail["loc"]), detail["type"]
    field = ".".join(str(part) for part in path)
    if kind == "extra_forbidden":
        allowed = _fields_at(model, path[:-1])
        where = f" in {'.'.join(str(part) for part in path[:-1])}" if len(path) > 1 else ""
        message = f"unknown key {str(path[-1])!r}{where};{nearest(path[-1], allowed)} allowed: {', '.join(allowed)}"
        return Problem.at(file, document.place_of_key(path), message)
    if kind == "missing":
        return Problem.at(file, document.place_of_key(path), f"{field} is missing{_purpose(model, path)}")
    place = document.place_of_value(path)
    return Problem.at(file, place, f"{field}: {_explain(detail)}" if field else _explain(detail))


def _explain(detail: Mapping[str, Any]) -> str:
    value, kind = detail.get("input"), detail["type"]
    if kind in ("enum", "literal_error"):
        expected = detail["ctx"]["expected"]
        return choice(value, re.findall(r"'([^']*)'", expected) or [expected])
    if kind == "value_error":
        reason = str(detail["ctx"]["error"])
        return reason if isinstance(value, dict) else f"{show(value)} is not valid: {reason}"
    if kind in ("model_type", "dict_type"):
        return f"{show(value)} is not a mapping; write indented `key: value` lines"
    reason = str(detail["msg"]).removeprefix("Input ")
    return f"{show(value)} {reason[:1].lower()}{reason[1:]}"


def _fields_at(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    section = _section_at(model, path)
    return list(section.model_fields) if section else []


def _purpose(model: type[BaseModel], path: tuple[str | int, ...]) -> str:
    section = _section_at(model, path[:-1])
    field = section.model_fields.get(str(path[-1])) if section else None
    text = field.description if field else None
    return f"; {text[:1].lower()}{text[1:].rstrip('.')}" if text else ""


def _section_at(model: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel] | None:
    section: type[BaseModel] | None = model
    for part in path:
        if section is None:
            return None
        if part in section.model_fields:
            section = _section_in(section.model_fields[str(part)].annotation)
        # a list index or the key of a free mapping stays within the same section type
    return section


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section type inside ``Section | None``, ``tuple[Section, ...]`` or ``dict[str, Section]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, tuple, list, dict):
        return next((found for arg in get_args(annotation) if (found := _section_in(arg)) is not None), None)
    return None
