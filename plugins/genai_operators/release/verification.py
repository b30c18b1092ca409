"""What must hold before a model is served: safe weights, the manifest, the signature, the digest, the ledger.

A *package* is what the registry keeps of a version::

    model/          a plain Hugging Face directory with its MANIFEST.json
    model.sig       OpenSSF signature over every file of model/
    README.md       the model card
"""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from genai_operators.exceptions import ManifestMismatch, UnsafeWeights
from genai_operators.release import signing
from genai_operators.store import MANIFEST_NAME, Manifest, canonical_json, verify_directory

MODEL_FOLDER = "model"
SIGNATURE_NAME = "model.sig"
CARD_NAME = "README.md"

#: Suffixes under which weights travel as pickles, or code as data. Content is looked at as well.
UNSAFE_SUFFIXES = frozenset(
    {".bin", ".ckpt", ".dill", ".h5", ".joblib", ".keras", ".pickle", ".pkl", ".pt", ".pth", ".py", ".pyc", ".so"}
)
ZIP_MAGIC = b"PK\x03\x04"
PICKLE_PROTOCOLS = (2, 3, 4, 5)
LARGEST_SAFETENSORS_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class VerifiedModel:
    """A model directory that may be served."""

    directory: Path
    manifest: Manifest
    key: str


def verify_package(package: Path, *, trusted_keys: Path, digest: str) -> VerifiedModel:
    """Check everything about a package, cheapest first.

    :param digest: digest of the manifest that the ledger or the candidate names.
    :raises UnsafeWeights: a file could run code when loaded.
    :raises ManifestMismatch: a file is missing, extra or changed, or it is another model.
    :raises SignatureInvalid: no signature of a trusted key.
    """
    model = package / MODEL_FOLDER
    refuse_unsafe(model)
    manifest = read_manifest(model)
    if manifest.digest != digest:
        raise ManifestMismatch(
            f"{model} is another model than was asked for (manifest {manifest.digest[:12]}, expected {digest[:12]}). "
            "Nothing is served; look at who changed the version."
        )
    verify_directory(model, manifest)
    key = signing.verify(model, package / SIGNATURE_NAME, trusted_keys=trusted_keys)
    return VerifiedModel(directory=model, manifest=manifest, key=key)


def read_manifest(model: Path) -> Manifest:
    """:raises ManifestMismatch: when there is none, or none that can be read."""
    path = model / MANIFEST_NAME
    try:
        return Manifest.from_json(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise ManifestMismatch(
            f"{model} has no {MANIFEST_NAME}: it is empty or was never completely written. If the registry's files "
            "were garbage-collected (`mlflow gc` ignores aliases), restore them or register the model again."
        ) from error
    except ValueError as error:
        raise ManifestMismatch(f"{path} is not JSON: {error}") from error


def write_manifest(model: Path, manifest: Manifest) -> None:
    """Put the manifest beside the files it lists, byte for byte as the store keeps it."""
    (model / MANIFEST_NAME).write_bytes(canonical_json(manifest.to_json()))


def refuse_unsafe(model: Path, *, where: str = "") -> None:
    """Weights are safetensors or refused; scanners of pickles miss too much to be a gate.

    :param where: how the message names the directory; its path if not given.
    :raises UnsafeWeights: naming the first file that is, or may hide, a pickle or code.
    """
    where, weights = where or str(model), 0
    for path in sorted(p for p in model.rglob("*") if p.is_file() or p.is_symlink()):
        name = path.relative_to(model).as_posix()
        if reason := _unsafe(path):
            raise UnsafeWeights(
                f"{where}: {name} {reason}. Convert the weights to safetensors (`model.save_pretrained(directory)` "
                "does) and leave code out of the directory."
            )
        weights += path.suffix == ".safetensors"
    if not weights:
        raise UnsafeWeights(f"{where} holds no .safetensors file; weights in any other format are refused.")


def place_package(package: Path, target: Path) -> None:
    """Move a finished package to its final place; a copy that another process put there first is kept."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        package.rename(target)
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(package)


def _unsafe(path: Path) -> str | None:
    if path.is_symlink():
        return "is a symbolic link, whose target is not signed"
    if path.suffix == ".safetensors":
        return None if _is_safetensors(path) else "is named safetensors but is not"
    if path.suffix.lower() in UNSAFE_SUFFIXES:
        return "is in a format that can run code when loaded"
    with path.open("rb") as file:
        start = file.read(4)
    if start[:1] == b"\x80" and len(start) > 1 and start[1] in PICKLE_PROTOCOLS:
        return "is a pickle, which can run code when loaded"
    return "is a zip archive, as torch pickles are" if start == ZIP_MAGIC else None


def _is_safetensors(path: Path) -> bool:
    """A safetensors file starts with the length of a JSON header (little-endian u64) and that header."""
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            return False
        (length,) = struct.unpack("<Q", prefix)
        if length > min(path.stat().st_size, LARGEST_SAFETENSORS_HEADER_BYTES):
            return False
        try:
            return isinstance(json.loads(file.read(length)), dict)
        except ValueError:
            return False
