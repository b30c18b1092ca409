"""Inputs that lie on this host only are copied into the store, where a pod can read them. By digest, once."""

from __future__ import annotations

from genai_operators.compute.contract import Artifact, Workload
from genai_operators.exceptions import ManifestMismatch
from genai_operators.store import Store, directory_manifest, local_path, sha256_file

#: As :mod:`genai_operators.workloads.context` looks for them.
INPUTS_PREFIX = "inputs"


def bring_within_reach(store: Store, workload: Workload) -> list[str]:
    """Copy what lies outside the store; ``inputs/<digest>/<name>``. The workload stays the same: only digests count.

    :returns: what was copied now, for people.
    :raises ManifestMismatch: it changed since it was hashed.
    """
    return [
        f"copied input {name} ({artifact.uri}) into the store"
        for name, artifact in workload.inputs.items()
        if _is_out_of_reach(store, artifact) and _copy(store, artifact)
    ]


def _is_out_of_reach(store: Store, artifact: Artifact) -> bool:
    return local_path(artifact.uri) is not None and not artifact.uri.startswith(f"{store.uri}/")


def _copy(store: Store, artifact: Artifact) -> bool:
    """``False`` if the copy is there already."""
    path = local_path(artifact.uri)
    folder = f"{INPUTS_PREFIX}/{artifact.digest}"
    target = f"{folder}/{path.name if path is not None else 'input'}"
    if path is None or store.exists(target) or store.read_manifest(target) is not None:
        return False
    digest = directory_manifest(path).digest if path.is_dir() else sha256_file(path)
    if digest != artifact.digest:
        raise ManifestMismatch(f"{path} changed since the workload was specified; run the task again")
    if path.is_dir():
        store.upload_directory(path, target)
    else:
        store.create(target, path.read_bytes())
    return True
