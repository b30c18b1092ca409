"""What objects of ours are called in a cluster, and how they are found again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genai_operators.compute.contract import Attempt
from genai_operators.store import Store, sha256_bytes

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "genai-operators"
KIND_LABEL = "genai-operators/kind"
FINGERPRINT_LABEL = "genai-operators/fingerprint"
ATTEMPT_LABEL = "genai-operators/attempt"
STORE_LABEL = "genai-operators/store"
#: Of a pod: the name of its attempt, whatever object stands between the two.
NAME_LABEL = "genai-operators/name"
DIRECTORY_ANNOTATION = "genai-operators/directory"

#: Selects everything of ours.
MANAGED_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
CONTAINER = "workload"
#: Longest value of a label.
LONGEST_LABEL = 63


def store_label(store: Store) -> str:
    """Tells the stores apart whose attempts share a namespace: the store's URI as the controller sees it, hashed."""
    return sha256_bytes(store.uri.encode())[:16]


def labels(attempt: Attempt) -> dict[str, str]:
    """Of the attempt's object and of each of its pods."""
    kind, fingerprint = attempt.directory.split("/")[-2:]
    return {
        MANAGED_BY_LABEL: MANAGED_BY,
        KIND_LABEL: kind,
        FINGERPRINT_LABEL: fingerprint[:LONGEST_LABEL],
        ATTEMPT_LABEL: str(attempt.number),
        STORE_LABEL: store_label(attempt.store),
        NAME_LABEL: attempt.name,
    }


def selector(attempt: Attempt) -> str:
    """Label selector of the attempt's own pods."""
    return ",".join(f"{name}={value}" for name, value in sorted(labels(attempt).items()))


def is_ours(found: Mapping[str, Any], attempt: Attempt) -> bool:
    """Whether an object that has the attempt's name is the attempt's, and not somebody else's."""
    metadata = found.get("metadata") or {}
    told = metadata.get("labels") or {}
    return (metadata.get("annotations") or {}).get(DIRECTORY_ANNOTATION) == attempt.directory and all(
        told.get(name) == value for name, value in labels(attempt).items()
    )
