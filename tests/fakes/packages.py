"""Small model directories and packages with real safetensors bytes, real manifests and real signatures."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from genai_operators.release import signing
from genai_operators.release.verification import CARD_NAME, MODEL_FOLDER, SIGNATURE_NAME, write_manifest
from genai_operators.store import directory_manifest


@dataclass(frozen=True)
class Keys:
    """A private key and the folder of trusted public keys."""

    private_key: Path
    trusted_keys: Path


def make_keys(folder: Path) -> Keys:
    """A key of its own in a folder of its own."""
    keys = Keys(private_key=folder / "private" / "key.pem", trusted_keys=folder / "trusted")
    signing.ensure_key(private_key=keys.private_key, trusted_keys=keys.trusted_keys)
    return keys


def safetensors_bytes(values: bytes) -> bytes:
    """A valid safetensors file with one tensor of bytes."""
    header = json.dumps({"weight": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    return struct.pack("<Q", len(header)) + header + values


def make_model(folder: Path, *, content: str = "first") -> Path:
    """A plain Hugging Face directory with its manifest; other ``content``, other digest."""
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(safetensors_bytes(content.encode()))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer" / "tokenizer.json").write_text("{}")
    write_manifest(folder, directory_manifest(folder))
    return folder


def make_package(folder: Path, *, keys: Keys, content: str = "first") -> Path:
    """A signed package as the registry keeps it."""
    make_model(folder / MODEL_FOLDER, content=content)
    (folder / CARD_NAME).write_text(f"# {content}\n")
    sign = {"private_key": keys.private_key, "trusted_keys": keys.trusted_keys}
    signing.sign(folder / MODEL_FOLDER, folder / SIGNATURE_NAME, **sign)
    return folder
