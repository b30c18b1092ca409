"""Stopping a workload that nobody wants any more, and removing what its platform keeps of it.

Asking comes first (``cancel.json``: checkpoint, then exit 75). What has not begun cannot be asked: its right to begin
is taken, and its platform forgets it. After the end the platform forgets it as well, so that nothing is left to look at
but the store.
"""

from __future__ import annotations

import logging

from genai_operators.compute import attempts, owners
from genai_operators.compute.backends import open_backend, restarts
from genai_operators.compute.contract import GONE, Attempt
from genai_operators.compute.ending import Disposition
from genai_operators.compute.owners import Owner
from genai_operators.exceptions import GenaiError
from genai_operators.store import Store

log = logging.getLogger(__name__)


def cancel(attempt: Attempt, *, reason: str) -> None:
    """Ask the attempt to stop; take one that has not begun off its platform.

    A platform that does not answer keeps nothing from running: the right to begin is taken already, and reconciling
    removes the rest within a minute.
    """
    if not attempts.request_cancel(attempt, reason=reason):
        return
    try:
        open_backend(attempt.claim["backend"]).stop(attempt)
    except GenaiError as error:
        log.warning("%s will not begin, but its platform still has it: %s", attempt.name, error)


def withdraw(store: Store, directory: str, owner: Owner, *, reason: str) -> bool:
    """``owner`` wants the workload no longer. The last to leave cancels; ``True`` if that was asked for now."""
    last = owners.leave(store, directory, owner)
    attempt = attempts.newest_attempt(store, directory)
    if not last or attempt is None or has_ended(attempt):
        owners.forget(store, directory, owner)
        return False
    if attempts.find_result(store, directory) is not None or attempts.is_cancelled(attempt):
        return False  # it is about to end by itself
    cancel(attempt, reason=reason)
    return True


def has_ended(attempt: Attempt) -> bool:
    """Whether it wrote down an end after which nothing of it can begin again. Asks no platform."""
    ending = attempts.recorded_ending(attempt)
    if ending is None:
        return False
    return ending.disposition is not Disposition.RESUME or not _restarts(attempt)


def never_began(attempt: Attempt) -> bool:
    """Whether its right to begin was taken before anybody used it."""
    started = attempt.store.find_json(attempt.path("started.json"))
    return started is not None and started["process"] is None


def is_alive(attempt: Attempt) -> bool:
    """Whether its backend cannot vouch that nothing of it runs.

    :raises ConfigurationError, ClusterUnavailable: the backend cannot be asked.
    """
    return open_backend(attempt.claim["backend"]).probe(attempt).phase not in GONE


def clean_up(attempt: Attempt) -> None:
    """After a cancelled attempt ended: let its platform forget it.

    :raises ConfigurationError, ClusterUnavailable: the backend cannot be asked.
    """
    if attempts.is_cancelled(attempt) and _restarts(attempt):
        open_backend(attempt.claim["backend"]).stop(attempt)


def _restarts(attempt: Attempt) -> bool:
    return restarts(attempt.claim["backend"])
