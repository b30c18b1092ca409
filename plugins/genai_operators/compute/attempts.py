"""The records of a workload's attempts: who may begin one, whether it ended and how, and how it is asked to stop.

Every fact here is monotone (an attempt that ended stays ended; a record that exists never changes), so any number of
tasks, triggers and reconcilers may act on the same workload at once and can only agree.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genai_operators.compute import owners
from genai_operators.compute.contract import RECORD_VERSION, Artifact, Attempt, Result, Workload
from genai_operators.compute.ending import EXIT_RESUMABLE, Ending
from genai_operators.compute.escalation import Ask
from genai_operators.compute.owners import Owner
from genai_operators.compute.resources import Resources
from genai_operators.exceptions import GenaiError, ManifestMismatch, ObjectNotFound
from genai_operators.store import MANIFEST_NAME, Store, locate


@dataclass(frozen=True)
class Joined:
    """What a task run finds when it asks for a workload.

    :param after: attempts up to this number are history: they ended for good before this task run came.
    :param result: there already.
    :param returning: an earlier try of the same task run had asked before.
    """

    directory: str
    after: int
    result: Result | None
    returning: bool


def join(store: Store, workload: Workload, owner: Owner) -> Joined:
    """Want a workload. Starts nothing; whoever drives it then meets whatever is there, or begins.

    One that finds a result has nothing to wait for and becomes no owner.

    :raises ManifestMismatch, ObjectNotFound: there is a result, but somebody removed or changed what it points at.
    """
    directory = workload.directory
    returning = owners.is_owner(store, directory, owner)
    result = find_result(store, directory)
    if result is not None and not returning:
        verify_outputs(result, where=store.uri_of(directory))
        return Joined(directory=directory, after=0, result=result, returning=False)
    store.create_json(f"{directory}/spec.json", workload.to_json())
    owners.enter(store, directory, owner)
    return Joined(directory=directory, after=_history(store, directory), result=result, returning=returning)


def _history(store: Store, directory: str) -> int:
    """Number of the last attempt that a newcomer must not wait for, as it failed or was told to stop."""
    attempt = newest_attempt(store, directory)
    if attempt is None:
        return 0
    ended = store.exists(attempt.path("exit.json")) or store.exists(attempt.path("cancel.json"))
    return attempt.number if ended else attempt.number - 1


def find_result(store: Store, directory: str) -> Result | None:
    """The result, ``None`` while there is none."""
    record = store.find_json(f"{directory}/result.json")
    return None if record is None else Result.from_json(record)


def verify_outputs(result: Result, *, where: str) -> None:
    """:raises ManifestMismatch, ObjectNotFound: when an output is not what the result says."""
    advice = f"Delete {where} to compute it again, or set reuse=False."
    for name, artifact in result.outputs.items():
        if (found := stored_digest(artifact)) is None:
            raise ObjectNotFound(f"output {name!r} of an earlier result is gone: {artifact.uri}. {advice}")
        if found != artifact.digest:
            raise ManifestMismatch(f"output {name!r} of an earlier result was changed: {artifact.uri}. {advice}")


def stored_digest(artifact: Artifact) -> str | None:
    """Digest of a stored directory as its manifest has it; of a single file, what is claimed. ``None`` if gone."""
    store, path = locate(artifact.uri)
    manifest = store.read_manifest(path)
    if manifest is not None:
        return manifest.digest
    return artifact.digest if store.exists(path) and path != MANIFEST_NAME else None


def newest_attempt(store: Store, directory: str, *, known: Attempt | None = None) -> Attempt | None:
    """The claimed attempt with the highest number. :param known: one that is known to be claimed; saves requests."""
    newest = known
    while True:
        number = newest.number + 1 if newest else 1
        found = store.find_json(f"{directory}/attempts/{number}/claim.json")
        if found is None:
            return newest
        newest = Attempt(store=store, directory=directory, number=number, claim=found)


def find_attempt(store: Store, directory: str, number: int) -> Attempt:
    """A claimed attempt; with an empty claim where somebody removed that."""
    attempt = Attempt(store=store, directory=directory, number=number)
    return Attempt(
        store=store, directory=directory, number=number, claim=store.find_json(attempt.path("claim.json")) or {}
    )


def claim(
    store: Store,
    directory: str,
    *,
    number: int,
    backend: Mapping[str, Any],
    owner: Owner | None,
    step: int,
    stalls: int,
    ask: Ask | None = None,
    budget: Mapping[str, Any] | None = None,
) -> Attempt | None:
    """Claim attempt ``number``, once ``number - 1`` is proved ended. ``None``: somebody else was first.

    :param backend: description of where it runs, as :meth:`~genai_operators.compute.contract.Backend.describe` has it.
    :param step: the newest checkpoint's step when it was claimed, -1 without one.
    :param stalls: how many claims in a row, this one included, found no newer checkpoint than the one before.
    :param ask: what it asks for.
    :param budget: ``{"max_cost", "currency"}``: so that reconciling holds it to that where nobody waits.
    """
    ask = ask or Ask(Resources())
    record: Mapping[str, Any] = {
        "version": RECORD_VERSION,
        "attempt": number,
        "store": store.uri,
        "backend": dict(backend),
        "resources": ask.resources.to_json(),
        "rung": ask.rung,
        "grown": ask.grown,
        "budget": None if budget is None else dict(budget),
        "by": None if owner is None else owner.to_json(),
        "at": time.time(),
        "step": step,
        "stalls": stalls,
    }
    attempt = Attempt(store=store, directory=directory, number=number, claim=record)
    return attempt if store.create_json(attempt.path("claim.json"), record) else None


def newest_checkpoint_step(store: Store, directory: str) -> int:
    """Highest step of any finished checkpoint of any attempt, -1 without one."""
    steps = [-1]
    for number in store.list_names(f"{directory}/attempts"):
        folder = f"{directory}/attempts/{number}/checkpoints"
        for step in sorted((int(name) for name in store.list_names(folder) if name.isdigit()), reverse=True):
            if store.exists(f"{folder}/{step}/{MANIFEST_NAME}"):
                steps.append(step)
                break
    return max(steps)


def start_path(attempt: Attempt, number: int) -> str:
    """Path of the record of the attempt's ``number``-th replacement process (from 1)."""
    return attempt.path(f"starts/{number}.json")


def newest_start(attempt: Attempt, *, known: int = 0) -> tuple[int, Mapping[str, Any]]:
    """Number and record of the newest replacement; 0 and the claim where there is none. Both have step and stalls.

    :param known: a number that is known to be there; saves requests.
    """
    number, record = known, attempt.claim
    if known:
        record = attempt.store.get_json(start_path(attempt, known))
    while (found := attempt.store.find_json(start_path(attempt, number + 1))) is not None:
        number, record = number + 1, found
    return number, record


@dataclass(frozen=True)
class Records:
    """What an attempt itself has written down: its newest heartbeat, and how it ended, each ``None`` if it has not."""

    heartbeat: Mapping[str, Any] | None
    ending: Ending | None


def read_records(attempt: Attempt) -> Records:
    """One look at what the attempt has written."""
    store = attempt.store
    record = store.find_json(attempt.path("exit.json"))
    heartbeat = store.find_json(attempt.path("heartbeat.json"))
    if record is not None and "beat" in record:
        heartbeat = record  # the last words; the heartbeat that says the same may not be there yet
    elif record is None and heartbeat is not None and heartbeat["ended"]:
        record = heartbeat
    if record is None and heartbeat is None:
        started = store.find_json(attempt.path("started.json"))
        if started is not None and started["process"] is None:
            record = {"code": EXIT_RESUMABLE, "message": started["abandoned"]}
    ending = None if record is None else Ending.from_json(record, cancelled=is_cancelled(attempt))
    return Records(heartbeat, ending)


def error_of_another_node(attempt: Attempt) -> Ending | None:
    """Why a node other than the first failed by itself, where one did: the supervisor of the first cannot know.

    Only since the platform began the attempt for the last time.
    """
    folder = attempt.path(f"errors/{newest_start(attempt)[0]}")
    for name in attempt.store.list_names(folder):
        told = attempt.store.get_json(f"{folder}/{name}")
        message = f"node {name.removesuffix('.json')}: {told['message']}"
        return Ending(code=None, error=told["class"], message=message, memory=told.get("memory"))
    return None


def recorded_ending(attempt: Attempt) -> Ending | None:
    """How the attempt ended as far as it was written down; ``None`` while it may run.

    Where the platform replaces what it takes away, an ending that can be resumed is only one process's end; see
    :attr:`~genai_operators.compute.contract.Backend.restarts`.
    """
    return read_records(attempt).ending


def is_cancelled(attempt: Attempt) -> bool:
    """Whether somebody asked it to stop."""
    return attempt.store.exists(attempt.path("cancel.json"))


def request_cancel(attempt: Attempt, *, reason: str, error: type[GenaiError] | None = None) -> bool:
    """Ask the attempt to checkpoint and stop; one that has not begun never will. Harmless when repeated.

    :param error: what everybody who waits is told once it has stopped, instead of resuming it.
    :returns: whether it had not begun. The backend may then still have it in a queue, see
        :mod:`~genai_operators.compute.cancelling`.
    """
    record = {"version": RECORD_VERSION, "reason": reason, "at": time.time()}
    if error is not None:
        record["error"] = error.__name__
    attempt.store.create_json(attempt.path("cancel.json"), record)
    return abandon(attempt, reason=reason)


def abandon(attempt: Attempt, *, reason: str) -> bool:
    """Take the right to begin, so that no launch that is still on its way can. ``False`` if the attempt has begun."""
    record = {"version": RECORD_VERSION, "process": None, "abandoned": reason, "at": time.time()}
    return attempt.store.create_json(attempt.path("started.json"), record)


def give_up(attempt: Attempt, error: GenaiError, *, memory: str | None = None) -> None:
    """Write the final end of an attempt that wrote none itself and will not be resumed.

    :param memory: which memory ran out, ``host`` or ``gpu``, if one did.
    """
    record = {
        "version": RECORD_VERSION,
        "code": None,
        "error": type(error).__name__,
        "message": str(error),
        "out_of_memory": False,
        "memory": memory,
        "at": time.time(),
    }
    attempt.store.create_json(attempt.path("exit.json"), record)
