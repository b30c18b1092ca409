"""Verify a model's files, then become its server: ``python -m genai_operators.serving.verified_start``.

The supervisor restarts a server that died, hours or weeks after somebody verified what it serves. So every start
compares each file with the manifest, and the manifest with the digest that the deployment names; that digest was
checked against the signature and the ledger when it was deployed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from genai_operators.exceptions import ManifestMismatch
from genai_operators.store import MANIFEST_NAME, Manifest, verify_directory

EXIT_CHANGED = 65  # EX_DATAERR of sysexits.h


def command_line(command: Sequence[str], *, model_dir: Path, digest: str) -> tuple[str, ...]:
    """``command``, to be started only if the model is still the one of that digest."""
    check = (sys.executable, "-m", __name__, "--model", str(model_dir), "--digest", digest)
    return (*check, "--", *command)


def verify(model_dir: Path, digest: str) -> None:
    """:raises ManifestMismatch: naming what is missing, extra, changed or another model's."""
    try:
        manifest = Manifest.from_json(json.loads((model_dir / MANIFEST_NAME).read_bytes()))
    except (OSError, ValueError) as error:
        raise ManifestMismatch(f"{model_dir}: its {MANIFEST_NAME} cannot be read: {error}. Deploy it again.") from error
    if manifest.digest != digest:
        raise ManifestMismatch(
            f"{model_dir} holds another model than was deployed (manifest {manifest.digest[:12]}, expected "
            f"{digest[:12]}). Find out who changed it, then deploy it again."
        )
    verify_directory(model_dir, manifest)


def main(arguments: Sequence[str]) -> int:
    """Command line; does not return when the model is intact."""
    parser = argparse.ArgumentParser(description="Start a server if its model's files are intact.")
    parser.add_argument("--model", required=True, type=Path, help="directory with the weights")
    parser.add_argument("--digest", required=True, help="sha256 of the manifest that was deployed")
    parser.add_argument("command", nargs="+", help="the server, after --")
    options = parser.parse_args(arguments)
    try:
        verify(options.model, options.digest)
    except ManifestMismatch as error:
        print(f"ManifestMismatch: {error}", file=sys.stderr, flush=True)
        return EXIT_CHANGED
    os.environ["PYTHONPATH"] = ""  # ours; a server has an environment of its own
    os.execvp(options.command[0], options.command)  # noqa: S606  the runtime's command, from the model file
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
