"""Write ``docker/.env`` from ``docker/.env.example``, with fresh secrets. Keeps an existing file. Needs only Python."""

from __future__ import annotations

import base64
import os
import re
import secrets
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
#: Airflow signs its tokens with SHA-512, whose key should have 64 bytes (RFC 7518, section 3.2).
SECRET_BYTES = 64
PASSWORD_BYTES = 24


def filled(example: str) -> str:
    """The example with a random value for every name that has none."""
    return re.sub(r"^(\w+)=$", lambda found: f"{found[1]}={_secret(found[1])}", example, flags=re.MULTILINE)


def _secret(name: str) -> str:
    if name == "AIRFLOW_FERNET_KEY":
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return secrets.token_hex(SECRET_BYTES if name.endswith("_SECRET") else PASSWORD_BYTES)


def main(folder: Path = FOLDER) -> int:
    """Returns 0; a file that exists is left alone."""
    path = folder / ".env"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(f"{path} exists; it is kept. Remove it for new secrets (and the volumes, which know the old ones).")
        return 0
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(filled((folder / ".env.example").read_text(encoding="utf-8")))
    print(f"wrote {path}; the administrator's password is in it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
