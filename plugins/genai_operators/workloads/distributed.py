"""A workload on several GPUs or nodes: ``python -m genai_operators.workloads.distributed`` runs torchrun.

torchrun reads its place from ``PET_*`` variables and tells one exit code for everything that goes wrong. This process
stands above it: it hands a SIGTERM down, and ends with the code, and leaves the ``error.json``, of the process that
failed first, so that nobody above has to know that there were several. On further nodes, where no supervisor reads that
file, it goes to the store.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from genai_operators.exceptions import StorageFull, StoreUnavailable
from genai_operators.store import Store
from genai_operators.workloads.main import EXIT_RESUMABLE
from genai_operators.workloads.ranks import ERRORS, EXITS

MODULE = "genai_operators.workloads.main"
KILLED = 128 + signal.SIGKILL
#: How gloo, NCCL and torch's own store say that a process at the other end is gone.
LOST_ANOTHER = (
    "Connection closed by peer",
    "Connection reset by peer",
    "remote process exited",
    "Broken pipe",
    "Connection was likely closed",
    "Timed out waiting",
    "Application timeout caused pair closure",
    "ncclRemoteError",
    "ncclSystemError",
)


def main(environment: Mapping[str, str]) -> int:
    """Run all local processes; returns what they come to."""
    node = Path(environment["GENAI_SCRATCH"])
    child = subprocess.Popen(torchrun_command(environment), env=dict(environment))

    def hand_down(number: int, _frame: FrameType | None) -> None:
        if child.poll() is None:
            child.send_signal(number)

    signal.signal(signal.SIGTERM, hand_down)
    signal.signal(signal.SIGINT, hand_down)
    code = conclude(node, torchrun_code=child.wait(), processes=int(environment.get("PET_NPROC_PER_NODE", "1")))
    if int(environment.get("PET_NODE_RANK", "0")):
        keep_error(node, environment)
    return code


def torchrun_command(environment: Mapping[str, str]) -> list[str]:
    """No restarts of its own: whoever runs the attempt decides that. Only the first process speaks in the log."""
    alone = [] if int(environment.get("PET_NNODES", "1")) > 1 else ["--standalone"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *alone]
    return [*torchrun, "--max-restarts", "0", "--local-ranks-filter", "0", "--module", MODULE]


def conclude(node: Path, *, torchrun_code: int, processes: int) -> int:
    """One exit code for all local processes. :param node: the scratch folder of the node.

    A process that failed by itself is the reason. That one lost another is no reason: the other left no word because it
    was killed, or is of another node, and what befell it there the platform knows, or its own node has told. Of the
    rest all stopped as they were asked to.
    """
    if torchrun_code == 0:
        return 0
    codes = read_exits(node)
    failed = [local for local, code in codes.items() if code not in (0, EXIT_RESUMABLE)]
    blamed = [local for local in failed if not lost_another(read_error(node, local))]
    if blamed:
        if error := read_error(node, blamed[0]):
            (node / "error.json").write_text(json.dumps(error), encoding="utf-8")
        return codes[blamed[0]]
    if failed or len(codes) < processes:
        return KILLED
    return EXIT_RESUMABLE if EXIT_RESUMABLE in codes.values() else torchrun_code


def keep_error(node: Path, environment: Mapping[str, str]) -> None:
    """Store why this node failed, if it did by itself, for whoever judges the attempt; the first word stays."""
    path = node / "error.json"
    if not path.exists():
        return
    root, _, directory = environment["GENAI_WORKLOAD_URI"].rstrip("/").rpartition("/workloads/")
    store, prefix = Store.open(root), f"workloads/{directory}/attempts/{environment['GENAI_ATTEMPT']}"
    try:
        start = len(store.list_names(f"{prefix}/starts"))  # what befell an earlier process of the attempt is history
        kept = f"{prefix}/errors/{start}/{environment['PET_NODE_RANK']}.json"
        store.create_json(kept, json.loads(path.read_text(encoding="utf-8")))
    except (StoreUnavailable, StorageFull) as error:  # the pod's exit code and last lines remain
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)


def read_exits(node: Path) -> dict[int, int]:
    """Local rank -> exit code, of those that could say, in the order in which they ended."""
    folder = node / EXITS
    files = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime) if folder.is_dir() else []
    return {int(path.name): int(path.read_text(encoding="ascii")) for path in files}


def read_error(node: Path, local: int) -> dict[str, str]:
    """What a local process wrote before it failed; empty where it could not."""
    path = node / ERRORS / f"{local}.json"
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def lost_another(error: Mapping[str, str]) -> bool:
    """Whether it failed because another process had gone."""
    return any(words in error.get("message", "") for words in LOST_ANOTHER)


if __name__ == "__main__":
    sys.exit(main(os.environ))
