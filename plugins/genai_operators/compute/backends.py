"""Backends by name. A description is plain JSON, so that a trigger or a reconciler can open what a task chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genai_operators.compute.contract import Backend
from genai_operators.compute.local import LocalCompute
from genai_operators.exceptions import ConfigurationError

TARGETS = (LocalCompute.target,)


def open_backend(description: Mapping[str, Any]) -> Backend:
    """Open a backend: ``{"target": "local", "python": "/env/bin/python"}``.

    ``target`` alone is enough to probe and to stop what runs.

    :raises ConfigurationError: when there is no such target, or it has no such setting.
    """
    settings = dict(description)
    target = settings.pop("target", None)
    if target not in TARGETS:
        raise ConfigurationError(f"there is no compute target {target!r}; there is {', '.join(TARGETS)}")
    try:
        return LocalCompute(**settings)
    except TypeError as error:
        raise ConfigurationError(f"compute target {target!r}: {error}") from error
