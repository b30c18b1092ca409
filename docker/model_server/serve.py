"""Start the model server of this container, or ask it how it is (``--check``).

``transformers serve`` answers only to the name that it was started with, so it is started beside a link of that name.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

CHECK_TIMEOUT_S = 4.0


def command(environment: Mapping[str, str]) -> list[str]:
    """What to run. :raises SystemExit: when the model has no name or no files."""
    name = environment.get("MODEL_NAME", "")
    model = Path(environment["MODEL_DIRECTORY"])
    if not name or "/" in name:
        raise SystemExit("set MODEL_NAME to the name that clients ask for, without a slash")
    if not (model / "config.json").is_file():
        raise SystemExit(f"{model} holds no model (no config.json); mount one there, or set MODEL_DIRECTORY")
    # -P keeps the working directory, which holds a folder named like the model, out of Python's module search.
    serve = [sys.executable, "-P", "-m", "transformers.cli.transformers", "serve", name]
    serve += ["--host", environment["HOST"], "--port", environment["PORT"]]
    digest = environment.get("MODEL_DIGEST")
    if not digest:
        return serve
    check = [sys.executable, "-m", "genai_operators.serving.verified_start", "--model", str(model), "--digest", digest]
    return [*check, "--", *serve]


def healthy(environment: Mapping[str, str]) -> bool:
    """Whether the server answers."""
    host = "127.0.0.1" if environment["HOST"] == "0.0.0.0" else environment["HOST"]  # noqa: S104  compared, not bound
    try:
        with urllib.request.urlopen(f"http://{host}:{environment['PORT']}/health", timeout=CHECK_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def main() -> int:
    """Become the server; with ``--check`` say whether it is healthy."""
    if sys.argv[1:] == ["--check"]:
        return 0 if healthy(os.environ) else 1
    served = command(os.environ)
    folder = Path(os.environ.get("GENAI_SCRATCH_ROOT", "/tmp"), "served")  # noqa: S108  the container's own
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / os.environ["MODEL_NAME"]
    link.unlink(missing_ok=True)
    link.symlink_to(os.environ["MODEL_DIRECTORY"], target_is_directory=True)
    os.chdir(folder)
    # A fork of the tokenizer's threads would hang.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.execv(served[0], served)  # noqa: S606  no shell is wanted
    return 0


if __name__ == "__main__":
    sys.exit(main())
