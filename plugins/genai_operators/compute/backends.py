"""Backends by name. A description is plain JSON, so that a trigger or a reconciler can open what a task chose."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from genai_operators.compute.contract import Attempt, Backend
from genai_operators.exceptions import ConfigurationError

#: target -> module and class; imported when asked for, as a laptop needs no cluster's client.
BACKENDS: Mapping[str, str] = {
    "local": "genai_operators.compute.local:LocalCompute",
    "kubernetes": "genai_operators.compute.kubernetes.backend:KubernetesCompute",
}


def open_backend(description: Mapping[str, Any]) -> Backend:
    """Open a backend: ``{"target": "local", "python": "/env/bin/python"}``.

    What :meth:`~genai_operators.compute.contract.Backend.describe` said (it stands in the claim) is enough to probe and
    to stop what runs.

    :raises ConfigurationError: when there is no such target, or it has no such setting.
    """
    settings = dict(description)
    target = settings.pop("target", None)
    backend = backend_class(target)
    try:
        opened: Backend = backend(**settings)
    except TypeError as error:
        raise ConfigurationError(f"compute target {target!r}: {error}") from error
    return opened


class BackendOf:
    """The backend of an attempt: the one at hand, or the one that its claim names when that was another.

    Somebody may have changed where workloads run since; what was begun there is looked after there.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._described = backend.describe()

    def __call__(self, attempt: Attempt) -> Backend:
        """:raises ConfigurationError: the claim names one that cannot be opened."""
        described = attempt.claim.get("backend", self._described)
        return self._backend if described == self._described else open_backend(described)


def restarts(description: Mapping[str, Any]) -> bool:
    """Whether the backend's platform may begin an attempt again; known without opening it.

    :raises ConfigurationError: when there is no such target.
    """
    return bool(backend_class(description.get("target")).restarts)


def backend_class(target: Any) -> Any:
    """The class of a target. :raises ConfigurationError: when there is none."""
    if target not in BACKENDS:
        raise ConfigurationError(f"there is no compute target {target!r}; there is {', '.join(BACKENDS)}")
    module, _, name = BACKENDS[target].partition(":")
    return getattr(importlib.import_module(module), name)
