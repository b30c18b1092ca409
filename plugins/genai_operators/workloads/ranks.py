"""Who one process is among those that train together. ``torchrun`` says so in variables; without it there is one.

Rank 0 speaks for all: it publishes, and writes checkpoints. Each process works in a folder of its own; only the
trainer's folder is shared by the processes of a node, so that a checkpoint holds the random state of each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Below the node's scratch folder: what each local process ended with, and why, for whoever started them all.
EXITS = "exits"
ERRORS = "errors"


@dataclass(frozen=True)
class Rank:
    """:param number: over all nodes. :param local: on this node. :param world: processes of all nodes."""

    number: int = 0
    local: int = 0
    world: int = 1

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Rank:
        """From the variables of torchrun."""
        number, local, world = (int(environment.get(name, default)) for name, default in _VARIABLES)
        return cls(number=number, local=local, world=world)

    @property
    def speaks(self) -> bool:
        """Whether it publishes for all."""
        return self.number == 0

    def scratch(self, node: Path) -> Path:
        """Its own folder below that of its node; the first process of a node has the node's."""
        return node if self.local == 0 else node / f"rank-{self.local}"

    def node(self, scratch: Path) -> Path:
        """The folder of its node, from its own."""
        return scratch if self.local == 0 else scratch.parent

    def error_file(self, node: Path) -> Path:
        """Where it says why it failed. That of a node, which a supervisor reads, only one that is alone may write: of
        several whoever started them says who is to blame, if it lives that long.
        """
        return node / "error.json" if self.world == 1 else node / ERRORS / f"{self.local}.json"

    def note_exit(self, node: Path, code: int) -> None:
        """Write down how it ends: the code of a process is lost below torchrun."""
        if self.world > 1:
            folder = node / EXITS
            folder.mkdir(parents=True, exist_ok=True)
            (folder / str(self.local)).write_text(str(code), encoding="ascii")


_VARIABLES = (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))


def agree(flag: bool, *, device: Any) -> bool:
    """Whether any of the processes says so. All of them must ask at the same moment; costs one small exchange.

    :param device: where tensors of this process live, as the backend of the exchange needs it.
    """
    import torch
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return flag
    told = torch.tensor([int(flag)], device=device)
    distributed.all_reduce(told, op=distributed.ReduceOp.MAX)
    return bool(told.item())


def await_all() -> None:
    """Until all processes have come here."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def this_rank() -> Rank:
    """Of the running process."""
    return Rank.of(os.environ)
