"""``docker/compose.yaml`` as Compose sees it: variables filled in, merges done."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

#: ``$NAME``, ``${NAME}``, ``${NAME:-default}``, ``${NAME:?message}``; ``$$`` is a dollar.
VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|(?P<plain>\w+)|\{(?P<name>\w+)(?:(?P<how>:-|:\?)(?P<what>[^}]*))?\})")


class Unset(Exception):
    """A variable that the file requires has no value."""


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """Fill in every string of a value."""
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: _value(found, variables), value)
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    return value


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    if found["dollar"]:
        return "$"
    name = found["plain"] or found["name"]
    value = variables.get(name, "")
    if value or found["how"] is None:
        return value
    if found["how"] == ":?":
        raise Unset(f"{name}: {found['what']}")
    return str(found["what"])


def read_env(text: str) -> dict[str, str]:
    """``NAME=value`` lines."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def read_compose(path: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """The file, interpolated; extension fields (``x-``) are dropped, as their content is where it was merged."""
    content = interpolate(yaml.safe_load(path.read_text(encoding="utf-8")), variables)
    return {key: value for key, value in content.items() if not key.startswith("x-")}
