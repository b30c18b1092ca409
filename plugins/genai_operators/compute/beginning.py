"""The right to begin. ``started.json`` and ``starts/<k>.json`` are create-only: whoever writes one is the attempt.

On this host an attempt begins once, however often it is launched. A platform that replaces a process it took away
(Kubernetes: a Job's next pod) lets the same attempt begin again, in a further *incarnation*: the platform vouches that
the one before is terminal, and one that lives on nevertheless (its node was cut off) sees the newer record at its next
heartbeat and ends.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from genai_operators.compute import attempts
from genai_operators.compute.contract import RECORD_VERSION, Attempt
from genai_operators.compute.ending import EXIT_RESUMABLE
from genai_operators.compute.process import ProcessIdentity


@dataclass(frozen=True)
class Start:
    """The right, won. ``number`` is 0 for the first process of the attempt, then 1, 2, ..."""

    number: int
    incarnation: str | None = None


@dataclass(frozen=True)
class Refused:
    """There is nothing to begin. ``code`` is what the process exits with."""

    code: int
    why: str


def begin(attempt: Attempt, *, incarnation: str | None = None) -> Start | Refused:
    """Win the right to begin, or learn why not.

    :param incarnation: names this process among those that the platform starts for the attempt, e.g. the uid of a pod;
        the same one never begins twice. ``None``: the platform starts no other.
    """
    record: dict[str, Any] = {
        "version": RECORD_VERSION,
        "process": ProcessIdentity.of(os.getpid()).to_json(),
        "at": time.time(),
    }
    if incarnation is None:
        if attempt.store.create_json(attempt.path("started.json"), record):
            return Start(0)
        return Refused(0, "it has begun already")
    if (refused := _nothing_to_begin(attempt)) is not None:
        return refused
    record["incarnation"] = incarnation
    if attempt.store.create_json(attempt.path("started.json"), record):
        return Start(0, incarnation)
    return _begin_again(attempt, record)


def is_superseded(attempt: Attempt, start: Start) -> bool:
    """Whether the platform has started another process in the place of this one."""
    return start.incarnation is not None and attempt.store.exists(attempts.start_path(attempt, start.number + 1))


def _nothing_to_begin(attempt: Attempt) -> Refused | None:
    store = attempt.store
    if store.exists(attempt.path("exit.json")) or store.exists(f"{attempt.directory}/result.json"):
        return Refused(0, "it has ended")
    if attempts.is_cancelled(attempt):
        return Refused(EXIT_RESUMABLE, "it was asked to stop")
    successor = Attempt(store=store, directory=attempt.directory, number=attempt.number + 1)
    if store.exists(successor.path("claim.json")):
        return Refused(EXIT_RESUMABLE, "the next attempt has been claimed")
    return None


def _begin_again(attempt: Attempt, record: dict[str, Any]) -> Start | Refused:
    """In the place of a process that the platform took away. Of several that try, the last one is the attempt."""
    incarnation: str = record["incarnation"]
    before = attempt.store.get_json(attempt.path("started.json"))
    if before["process"] is None:
        return Refused(EXIT_RESUMABLE, f"it was given up: {before['abandoned']}")
    claim = attempt.store.find_json(attempt.path("claim.json")) or {}
    before = {"step": claim.get("step", -1), "stalls": claim.get("stalls", 0), **before}
    number = 1
    while before.get("incarnation") != incarnation:
        step = attempts.newest_checkpoint_step(attempt.store, attempt.directory)
        stalls = 0 if step > before["step"] else before["stalls"] + 1
        path = attempts.start_path(attempt, number)
        if attempt.store.create_json(path, {**record, "step": step, "stalls": stalls}):
            return Start(number, incarnation)
        before = attempt.store.get_json(path)
        number += 1
    return Refused(EXIT_RESUMABLE, f"incarnation {incarnation} has begun before")
