"""What no living process noticed: workloads whose tasks ended while nobody watched, and stops that were not obeyed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from genai_operators.compute import attempts, cancelling, owners
from genai_operators.compute.backends import BackendOf, open_backend
from genai_operators.compute.budget import SPENT, Meter, last_recorded
from genai_operators.compute.cancelling import is_alive
from genai_operators.compute.contract import Attempt
from genai_operators.compute.owners import Owner
from genai_operators.compute.patience import CANCEL_PATIENCE_S
from genai_operators.exceptions import BudgetExceeded, GenaiError, StoreUnavailable
from genai_operators.store import Store

STOP_POLL_S = 0.2
#: Whoever waits for a workload writes down its usage several times in this time.
UNATTENDED_S = 120.0
#: States in which a task instance will never want anything again, unless somebody clears it (then it joins anew).
FINISHED_STATES = frozenset({"success", "failed", "skipped", "removed", "upstream_failed"})

#: Airflow's state of a task instance; ``None`` while it has none, ``"removed"`` when there is no such task instance.
TaskState = Callable[[Owner], str | None]


def reconcile_workloads(store: Store, task_state: TaskState) -> list[str]:
    """Take finished tasks off the owners of their workloads; a workload without owners is cancelled.

    One that is at the limit of its budget while nobody looks at it is asked to stop. An attempt that was cancelled long
    ago and still runs is killed; one that was cancelled and ended is removed from its platform. A workload whose
    platform does not answer keeps no other from its turn.

    :returns: a line for each thing that was done, or could not be. Nothing to do, no line: safe to call every minute.
    :raises StoreUnavailable: nothing can be done without it.
    """
    done = [_try_owner(store, directory, owner, task_state) for directory, owner in owners.active(store)]
    return [line for line in done if line is not None]


def _try_owner(store: Store, directory: str, owner: Owner, task_state: TaskState) -> str | None:
    name = "/".join(directory.split("/")[-2:])[:40]
    try:
        return _reconcile_owner(store, directory, owner, task_state, name=name)
    except StoreUnavailable:
        raise
    except GenaiError as error:
        return f"cannot look after {name}, looking again later: {type(error).__name__}: {error}"


def _reconcile_owner(store: Store, directory: str, owner: Owner, task_state: TaskState, *, name: str) -> str | None:
    if not owners.is_owner(store, directory, owner):
        return _finish_cancel(store, directory, owner, name)
    state = task_state(owner)
    if state not in FINISHED_STATES:
        return _mind_the_budget(store, directory, name)
    if cancelling.withdraw(store, directory, owner, reason=f"its task {owner} is {state}"):
        return f"asked {name} to stop: its last owner {owner} is {state}"
    return f"took {owner} ({state}) off the owners of {name}"


def _finish_cancel(store: Store, directory: str, owner: Owner, name: str) -> str | None:
    """The owner has left; its index entry stays until nothing of the workload runs any more."""
    attempt = attempts.newest_attempt(store, directory)
    if attempt is None:
        owners.forget(store, directory, owner)
        return None
    if cancelling.has_ended(attempt) or not is_alive(attempt):
        cancelling.clean_up(attempt)
        owners.forget(store, directory, owner)
        return None
    asked = store.find_json(attempt.path("cancel.json"))
    if asked is None:
        return None
    if cancelling.never_began(attempt):
        open_backend(attempt.claim["backend"]).stop(attempt)
        return f"took {name}, attempt {attempt.number}, out of its queue: it was cancelled before it began"
    return _kill_overdue(attempt, asked, name)


def _mind_the_budget(store: Store, directory: str, name: str) -> str | None:
    """Hold it to the budget in its claim where nobody has written down its usage lately, as no triggerer lives."""
    attempt = attempts.newest_attempt(store, directory)
    if attempt is None or attempt.claim.get("budget") is None or not store.exists(attempt.path("started.json")):
        return None
    if time.time() - last_recorded(attempt) < UNATTENDED_S or cancelling.has_ended(attempt):
        return None
    if (asked := store.find_json(attempt.path("cancel.json"))) is not None:
        return _kill_overdue(attempt, asked, name) if is_alive(attempt) else None
    meter = Meter(store, directory, backend_of=BackendOf(open_backend(attempt.claim["backend"])))
    meter.record(attempt, now=True)
    spent = meter.spent(attempt)
    if spent.cost < float(attempt.claim["budget"]["max_cost"]):
        return None
    attempts.request_cancel(attempt, reason=SPENT, error=BudgetExceeded)
    return f"asked {name}, attempt {attempt.number}, to stop: {SPENT} ({spent.describe()}), and nobody else looked"


def _kill_overdue(attempt: Attempt, asked: Mapping[str, Any], name: str) -> str | None:
    if time.time() - asked["at"] < CANCEL_PATIENCE_S:
        return None
    open_backend(attempt.claim["backend"]).stop(attempt)
    return f"killed {name}, attempt {attempt.number}: it did not stop {CANCEL_PATIENCE_S:.0f} s after it was asked to"


def running_attempts(store: Store) -> list[Attempt]:
    """Attempts that have begun, or may begin, and not recorded an end, over all workloads of the store."""
    directories = sorted({directory for directory, _ in owners.active(store)})
    newest = [attempts.newest_attempt(store, directory) for directory in directories]
    return [attempt for attempt in newest if attempt is not None and not cancelling.has_ended(attempt)]


def stop_all(store: Store, *, patience_s: float) -> list[str]:
    """Stop every attempt that runs: ask, wait up to ``patience_s`` for checkpoints, then kill. For whoever shuts down.

    :returns: the names of the attempts that were stopped. Their workloads resume when a task asks for them again.
    """
    running = running_attempts(store)
    for attempt in running:
        cancelling.cancel(attempt, reason="the platform is being stopped")
    stopped = [attempt.name for attempt in running]
    deadline = time.monotonic() + patience_s
    while running and time.monotonic() < deadline:
        time.sleep(STOP_POLL_S)
        running = [attempt for attempt in running if not cancelling.has_ended(attempt) and is_alive(attempt)]
    for attempt in running:
        open_backend(attempt.claim["backend"]).stop(attempt)
    return stopped
