"""What a model file said when its retraining last ran; ``make check`` compares a pull request with it.

One object a model, overwritten by each run: ``<store>/plans/<model>.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genai_operators.store import Store

RECORD_VERSION = 1


def write_last_plan(store: Store, model: str, *, spec: Mapping[str, Any], run: str) -> None:
    """Keep ``spec`` (a model file with every default written out) as that of ``run``, a DAG run id."""
    store.put_json(_path(model), {"version": RECORD_VERSION, "run": run, "spec": dict(spec)})


def read_last_plan(store: Store, model: str) -> Mapping[str, Any] | None:
    """The spec of the last run; ``None`` if it never ran, or if a later version of this code wrote the record."""
    record = store.find_json(_path(model))
    if record is None or record.get("version") != RECORD_VERSION:
        return None
    spec: Mapping[str, Any] = record["spec"]
    return spec


def _path(model: str) -> str:
    return f"plans/{model}.json"
