"""From what a DAG author writes (an XCom reference, a path, a URI) to an artifact with its digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genai_operators.compute.contract import Artifact
from genai_operators.exceptions import ConfigurationError, DataError, ObjectNotFound, StoreUnavailable
from genai_operators.store import MANIFEST_NAME, directory_manifest, local_path, locate, sha256_bytes, sha256_file

if TYPE_CHECKING:
    from genai_operators.release.ledger import LedgerEntry

ArtifactLike = Mapping[str, Any] | str
DATASET_EVIDENCE, MODEL_EVIDENCE = "dataset", "model"


def artifact_of(value: ArtifactLike, *, name: str, output: str) -> Artifact:
    """An artifact from ``{"uri", "digest"}``, from another operator's whole return value, from its JSON, or from a URI.

    :param name: parameter of the operator, for messages.
    :param output: which output of a whole return value is meant, e.g. ``dataset``.
    :raises ConfigurationError: when it is none of these.
    """
    if isinstance(value, str):
        text = value.strip()
        if not text.startswith("{"):
            return directory_artifact(text, name=name)
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ConfigurationError(
                f"{name} is neither a URI nor JSON. Pass the XCom itself (validate.output), or render it with | tojson."
            ) from error
    record: Any = value.get("outputs", {}).get(output, value) if isinstance(value, Mapping) else value
    try:
        return Artifact(uri=record["uri"], digest=record["digest"])
    except (KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{name} holds no artifact; it needs uri and digest, or be what an operator returned (output {output!r})"
        ) from error


def file_artifact(path: str, *, root: Path, field: str) -> Artifact:
    """A file by URI, or by path from the project's root; hashed now.

    :raises DataError: when it does not exist.
    """
    uri = path if "://" in path else (root / Path(path).expanduser()).resolve().as_uri()
    local = local_path(uri)
    if local is not None:
        if not local.is_file():
            what = "is a directory, not a file" if local.is_dir() else "does not exist"
            raise DataError(f"{field}: {path} {what} (looked at {local}). Put the file there, or correct {field}.")
        return Artifact(uri=uri, digest=sha256_file(local))
    store, name = locate(uri)
    try:
        return Artifact(uri=uri, digest=sha256_bytes(store.get(name)))
    except (ObjectNotFound, StoreUnavailable) as error:
        raise DataError(f"{field}: {path} cannot be read: {error}") from error


def directory_artifact(uri: str, *, name: str, root: Path | None = None) -> Artifact:
    """A directory by URI or path: by its manifest if it has one, else by the files of a local folder.

    :raises ConfigurationError: when there is nothing that could be verified.
    """
    if "://" not in uri:
        uri = ((root or Path.cwd()) / Path(uri).expanduser()).resolve().as_uri()
    local = local_path(uri)
    if local is not None and not local.is_dir():
        raise ConfigurationError(f"{name}: {uri} is not a directory")
    if local is not None and not (local / MANIFEST_NAME).exists():
        return Artifact(uri=uri, digest=directory_manifest(local).digest)
    store, path = locate(uri)
    manifest = store.read_manifest(path)
    if manifest is None:
        raise ConfigurationError(f"{name}: {uri} has no {MANIFEST_NAME}, so it was never completely written")
    return Artifact(uri=uri, digest=manifest.digest)


def champion_dataset(entry: LedgerEntry | None) -> Artifact | None:
    """The data set that the champion learnt, as its ledger entry names it; ``None`` without a champion or a name."""
    uri = entry.evidence.get(DATASET_EVIDENCE) if entry is not None else None
    return directory_artifact(uri, name="the champion's data set") if uri else None


def champion_model(entry: LedgerEntry | None) -> Artifact | None:
    """The champion's model directory in the store, with the digest that the ledger vouches for."""
    uri = entry.evidence.get(MODEL_EVIDENCE) if entry is not None else None
    return Artifact(uri=uri, digest=entry.digest) if entry is not None and uri else None
