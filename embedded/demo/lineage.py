"""What the OpenLineage events say: which data set, at which version, came from which."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Node:
    """A data set of OpenLineage. ``version`` is its digest, empty for a source file."""

    namespace: str
    name: str
    version: str

    @classmethod
    def of(cls, record: dict[str, Any]) -> Node:
        version = record.get("facets", {}).get("version", {}).get("datasetVersion", "")
        return cls(record["namespace"], record["name"], version)


Edges = dict[Node, set[Node]]


def read(folder: Path) -> Edges:
    """From input to outputs, by the events of finished tasks."""
    edges: Edges = {}
    for event in _events(folder):
        if event.get("eventType") == "COMPLETE":
            outputs = {Node.of(record) for record in event.get("outputs", [])}
            for record in event.get("inputs", []):
                edges.setdefault(Node.of(record), set()).update(outputs)
    return edges


def descendants(edges: Edges, sources: Iterable[Node]) -> set[Node]:
    """Everything that was made of the sources, themselves included."""
    found: set[Node] = set()
    waiting = list(sources)
    while waiting:
        if (node := waiting.pop()) not in found:
            found.add(node)
            waiting += edges.get(node, ())
    return found


def leads_to_endpoint(edges: Edges, *, source: str, model: str, digest: str) -> bool:
    """Whether a source file leads to a version of a model in MLflow, and that version to the model's endpoint.

    :param source: how the file's path ends.
    :param digest: of the version's manifest.
    """
    sources = [node for node in edges if node.namespace == "file" and node.name.endswith(source)]
    version = Node("x-mlflow://models", model, digest)
    return version in descendants(edges, sources) and Node("x-genai://endpoints", model, digest) in edges.get(
        version, set()
    )


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.iterdir()):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)
