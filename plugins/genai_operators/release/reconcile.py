"""What no living process noticed: releases whose task has ended, an alias or a gateway that does not follow the ledger.

Called every minute. Each call does one step and returns; what takes longer (a server that starts) goes on at the next
one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from genai_operators.compute.reconcile import FINISHED_STATES, TaskState
from genai_operators.exceptions import GenaiError
from genai_operators.release.canary import Controller
from genai_operators.release.convergence import converge
from genai_operators.release.journal import Turns
from genai_operators.release.ledger import Ledger, LedgerEntry, release_of
from genai_operators.release.parts import Parts
from genai_operators.release.plan import ReleasePlan
from genai_operators.release.progress import Phase
from genai_operators.release.report import write_report
from genai_operators.release.rollback import pending_rollbacks
from genai_operators.serving.contract import STANDARD_RUNTIME, Deployment
from genai_operators.store import Store

#: A triggerer looks every two seconds and writes at least every 30 s while there is traffic.
UNATTENDED_AFTER_S = 90.0


class Surroundings(Protocol):
    """Where the releases of a store take place; the layers above know the connections."""

    def parts(self, model: str, serve: Mapping[str, object]) -> Parts:
        """What a controller of this model works with."""

    def deployment(self, entry: LedgerEntry, *, runtime: str) -> Deployment:
        """The verified files of a ledger entry's version, on this machine."""


def reconcile_releases(store: Store, task_state: TaskState, surroundings: Surroundings) -> list[str]:
    """Abort releases whose task has ended; make alias and gateway follow the ledger.

    Models do not wait for each other: what fails for one is a line, and the others go on.

    :param task_state: Airflow's state of a task, ``None`` while it has none.
    :returns: a line for each thing that was done or could not be done. Nothing to do, no line.
    """
    lines: list[str] = []
    for model in _models(store):
        try:
            lines += _reconcile_model(store, model, task_state, surroundings)
        except GenaiError as error:
            lines.append(f"{model}: {type(error).__name__}: {error}")
    return lines


def _models(store: Store) -> list[str]:
    return sorted({*store.list_names("releases"), *store.list_names("ledger")})


def _reconcile_model(store: Store, model: str, task_state: TaskState, surroundings: Surroundings) -> list[str]:
    turns = Turns(store, model)
    if (live := turns.live()) is not None:
        plan = ReleasePlan.load(store, model, live)
        return _reconcile_release(store, plan, task_state, surroundings)
    return _follow_ledger(store, model, task_state, surroundings)


def _reconcile_release(store: Store, plan: ReleasePlan, task_state: TaskState, surroundings: Surroundings) -> list[str]:
    state = task_state(plan.owner)
    controller = Controller(plan, surroundings.parts(plan.model, plan.serve), name="reconcile")
    if state not in FINISHED_STATES:
        return _drive_unattended(controller)
    progress = controller.cancel(f"its task {plan.owner} is {state}")
    if progress.phase.ended:
        write_report(progress, store)
    name = f"release {plan.release} of {plan.model} v{plan.candidate.version}"
    if progress.phase is Phase.PROMOTED:
        return [f"finished {name}: its promotion was decided before its task became {state}"]
    return [f"{'aborted' if progress.phase.ended else 'aborting'} {name}: its task {plan.owner} is {state}"]


def _drive_unattended(controller: Controller) -> list[str]:
    """While no triggerer lives, a canary still has traffic: look at it, so that harm and the budget are noticed."""
    controller.refresh()
    progress, now = controller.progress, controller.now()
    if not progress.events or now - progress.events[-1].at < UNATTENDED_AFTER_S:
        return []
    before = progress.number
    progress = controller.tick()
    if progress.number == before:
        return []
    name = f"release {controller.plan.release} of {controller.plan.model}"
    return [f"drove {name}, which nobody had looked at for {now - progress.events[before - 1].at:.0f} s"]


def _follow_ledger(store: Store, model: str, task_state: TaskState, surroundings: Surroundings) -> list[str]:
    champion = Ledger(store, model).champion()
    if champion is None or _rollback_is_under_way(store, model, task_state):
        return []
    release = release_of(champion)
    plan = ReleasePlan.find(store, model, release) if release else None
    parts = surroundings.parts(model, plan.serve if plan else {})
    lines = _follow_in_gateway(parts, champion, surroundings)
    if parts.aliases.set_champion(model, champion.version):
        lines.append(f"set the alias champion of {model} to v{champion.version}, as the ledger says")
    return lines


def _follow_in_gateway(parts: Parts, champion: LedgerEntry, surroundings: Surroundings) -> list[str]:
    status = parts.serving.status()
    runtime = champion.evidence.get("runtime", STANDARD_RUNTIME)
    wanted = f"{champion.model}-v{champion.version}-{runtime}"
    if status.champion is None or status.champion.id != wanted:
        done = converge(parts.serving, surroundings.deployment(champion, runtime=runtime))
        found = status.champion.id if status.champion else "nothing"
        return [f"{'moved' if done else 'moving'} the gateway from {found} to {wanted}, as the ledger says"]
    if status.canary is not None:
        parts.serving.rollback()
        return [f"removed {status.canary.id} from the gateway: no release is under way"]
    return []


def _rollback_is_under_way(store: Store, model: str, task_state: TaskState) -> bool:
    """A rollback starts its target beside the champion, which looks like a canary without a release."""
    pending = list(pending_rollbacks(store, model))
    ended = [rollback for rollback in pending if task_state(rollback.owner) in FINISHED_STATES]
    for rollback in ended:
        rollback.forget(store)
    return len(ended) < len(pending)
