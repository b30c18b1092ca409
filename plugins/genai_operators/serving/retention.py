"""Captured text is deleted when its time is over; facts, which hold none, stay."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from genai_operators.serving import batches
from genai_operators.serving.contract import ServeOptions
from genai_operators.serving.state import StateDirectory
from genai_operators.store import Store


def delete_old_text(store: Store, *, retention_s: Mapping[str, float], now: float) -> int:
    """Delete the text batches that were written longer ago than their model's retention; how many.

    :param retention_s: by model; a model that is not named keeps text for the default time.
    :param now: seconds since the epoch.
    """
    deleted = 0
    for model in store.list_names(batches.ROOT):
        limit = now - retention_s.get(model, ServeOptions.retention_s)
        for info in store.list(f"{batches.ROOT}/{model}/text"):
            if info.last_modified.timestamp() < limit:
                store.delete(info.path)
                deleted += 1
    return deleted


def follow_retention(directory: Path, *, wanted: Mapping[str, float]) -> list[str]:
    """Tell the ingest of a gateway directory what the model files say now; a line for each that changed.

    A release brings its own with each change of the gateway; an edit of a model file has to count without one.

    :param wanted: seconds by model; those that the gateway does not serve are passed over.
    """
    states, lines = StateDirectory(directory), []
    for model, retention_s in sorted(wanted.items()):
        if (state := states.read(model)) is None or state.retention_s == retention_s:
            continue
        with states.locked():
            state = states.read(model) or state
            states.write(dataclasses.replace(state, retention_s=retention_s))
        lines.append(f"captured texts of {model} are kept for {retention_s:.0f} s from now on, as its model file says")
    return lines
