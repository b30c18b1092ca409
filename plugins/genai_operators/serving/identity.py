"""Ids and users leave the gateway only as keyed hashes. The key lies in the gateway directory and nowhere else."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

SALT_NAME = "salt"
SALT_BYTES = 32
HASH_LENGTH = 32


def salt_of(directory: Path) -> bytes:
    """The directory's salt; made on first use, readable by its owner only. Exactly one of several racers makes it."""
    path = directory / SALT_NAME
    directory.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        fresh = directory / f".{SALT_NAME}.{os.getpid()}"
        fresh.touch(mode=0o600)
        fresh.write_bytes(secrets.token_bytes(SALT_BYTES))
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_bytes()


def hashed(value: str, *, salt: bytes) -> str:
    """Keyed hash of an id: the same value gives the same hash here, and nobody without the salt can test a guess."""
    return hmac.new(salt, value.encode(), hashlib.sha256).hexdigest()[:HASH_LENGTH]


def log_identity(salt: bytes) -> str:
    """A name for this directory's access log. Offsets of one log mean nothing in another."""
    return hashed("access log", salt=salt)[:16]
