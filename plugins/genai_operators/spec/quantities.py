"""Durations (``90s``, ``2h``, ``1h30m``), sizes (``64KiB``, ``2GB``) and schedules as people write them in YAML."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

AUTO = "auto"
_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_DURATION = r"(\d+(\.\d+)?[wdhms])+"
_SIZE = r"\d+(\.\d+)?(B|KB|MB|GB|KiB|MiB|GiB)"
_CRON_PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@yearly")
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_CRON_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


def parse_duration(value: Any) -> timedelta:
    """A positive duration from ``90s``, ``30m``, ``2h``, ``1d``, ``1w`` or a sum such as ``1h30m``.

    :raises ValueError: for anything else; a bare number has no unit and is refused.
    """
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not re.fullmatch(_DURATION, value):
        raise ValueError("write a number and a unit, such as 90s, 30m, 2h, 1d or 1h30m")
    seconds = sum(float(part[:-1]) * _SECONDS[part[-1]] for part in re.findall(r"\d+(?:\.\d+)?[wdhms]", value))
    if seconds <= 0:
        raise ValueError("must be longer than zero")
    return timedelta(seconds=seconds)


def parse_delay(value: Any) -> timedelta:
    """Like :func:`parse_duration`, but ``0s`` is allowed."""
    return timedelta(0) if value == "0s" else parse_duration(value)


def parse_auto_duration(value: Any) -> timedelta | None:
    """Like :func:`parse_duration`; ``auto`` gives ``None``."""
    return None if value in (None, AUTO) else parse_duration(value)


def format_duration(value: timedelta) -> str:
    """The shortest spelling that :func:`parse_duration` reads back to the same duration."""
    left, parts = value.total_seconds(), []
    for unit in "dhm":
        count, left = divmod(left, _SECONDS[unit])
        parts += [f"{int(count)}{unit}"] if count else []
    parts += [f"{left:g}s"] if left or not parts else []
    return "".join(parts)


def parse_size(value: Any) -> int:
    """Bytes from ``512B``, ``64KiB``, ``2GB``; a bare whole number is bytes.

    :raises ValueError: for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(B|KB|MB|GB|KiB|MiB|GiB)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a number and a unit, such as 64KiB, 10MB or 2GiB")
    return int(float(match[1]) * _BYTES[match[2]])


def check_cron(value: Any) -> str:
    """A cron expression of five fields or a preset such as ``@daily``, checked field by field.

    :raises ValueError: names the field that is wrong and its range.
    """
    if not isinstance(value, str):
        raise ValueError("write a cron expression in quotes, such as '0 3 * * *', or @daily")
    if value.startswith("@"):
        if value not in _CRON_PRESETS:
            raise ValueError(f"no such preset; allowed: {', '.join(_CRON_PRESETS)}")
        return value
    parts = value.split()
    if len(parts) != len(_CRON_FIELDS):
        raise ValueError(f"{len(parts)} fields; cron has five: minute, hour, day of month, month, day of week")
    for part, (name, low, high, names) in zip(parts, _CRON_FIELDS, strict=True):
        for item in part.split(","):
            if not _cron_item(item.lower(), low, high, names):
                raise ValueError(f"{name} {item!r} is not within {low}-{high}; write *, a number, a-b, or */n")
    _check_day_exists(parts[2], parts[3].lower())
    return value


def _check_day_exists(days: str, months: str) -> None:
    """Cron takes the 30th of February for a schedule, and never runs."""
    day_numbers, month_numbers = _listed(days), _listed(months, names=_CRON_FIELDS[3][3])
    if day_numbers and month_numbers and min(day_numbers) > max(_DAYS[month - 1] for month in month_numbers):
        raise ValueError(f"day of month {days!r} never comes in month {months!r}")


def _listed(field: str, *, names: tuple[str, ...] = ()) -> list[int]:
    """The numbers of a plain list such as ``1,15`` or ``jan,feb``; none for anything that is a range or a star."""
    items = [str(names.index(item) + 1) if item in names else item for item in field.split(",")]
    return [int(item) for item in items] if all(item.isdigit() for item in items) else []


def _cron_item(item: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    span, slash, step = item.partition("/")
    if slash and not (step.isdigit() and int(step) > 0):
        return False
    if span == "*":
        return True
    offset = low if names and low == 1 else 0
    ends = [str(names.index(end) + offset) if end in names else end for end in span.split("-")]
    if len(ends) > 2 or not all(end.isdigit() and low <= int(end) <= high for end in ends):
        return False
    return int(ends[0]) <= int(ends[-1])


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION}$", "examples": ["90s", "30m", "2h", "1d"]}),
]
Delay = Annotated[
    timedelta,
    BeforeValidator(parse_delay),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION}$", "examples": ["0s", "30s"]}),
]
#: ``None`` is written ``auto``: found from what was measured.
AutoDuration = Annotated[
    timedelta | None,
    BeforeValidator(parse_auto_duration),
    PlainSerializer(lambda value: AUTO if value is None else format_duration(value), return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^({AUTO}|{_DURATION})$", "examples": [AUTO, "0.9s", "2s"]}),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_SIZE}$"}]}),
]
Cron = Annotated[
    str,
    BeforeValidator(check_cron),
    WithJsonSchema({"type": "string", "examples": ["@hourly", "0 3 * * *"]}),
]
Fraction = Annotated[float, Field(gt=0, lt=1)]
PositiveInt = Annotated[int, Field(ge=1)]
