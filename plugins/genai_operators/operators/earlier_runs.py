"""How long each kind of workload took before, from the results in the store. Reads only."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from genai_operators.store import Store

#: Fingerprints are hashes, so the first so many by name are a random sample of all.
SAMPLE = 50


@dataclass(frozen=True)
class Duration:
    """Median of earlier runs, in seconds, and how many there were."""

    seconds: float
    runs: int

    def __str__(self) -> str:
        return f"about {self.seconds:.0f} s (median of {self.runs})"


def earlier_duration(store: Store, kind: str, *, model: str) -> Duration | None:
    """What finished workloads of this kind took for this model; ``None`` if there was none."""
    seconds = []
    for fingerprint in store.list_names(f"workloads/{kind}")[:SAMPLE]:
        directory = f"workloads/{kind}/{fingerprint}"
        result, spec = store.find_json(f"{directory}/result.json"), store.find_json(f"{directory}/spec.json")
        if result and spec and spec.get("params", {}).get("model") == model:
            seconds.append(float(result["seconds"]))
    return Duration(statistics.median(seconds), len(seconds)) if seconds else None


def describe(duration: Duration | None) -> str:
    """For a plan's table."""
    return str(duration) if duration else "no earlier run"
