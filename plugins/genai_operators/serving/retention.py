"""Captured text is deleted when its time is over; facts, which hold none, stay."""

from __future__ import annotations

from collections.abc import Mapping

from genai_operators.serving import batches
from genai_operators.serving.contract import ServeOptions
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
