"""Take every decision of a release again from what is stored, and say where it differs.

    python -m genai_operators.release.replay file:///path/to/store/releases/support_bot/3f2a...

Reads only. Facts -> statistical states (compared exactly) -> decisions (type and cause compared). Exit code 0: all the
same; 1: something differs, which means that a record was edited or that this code decides otherwise than the code did.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from genai_operators.exceptions import GenaiError
from genai_operators.release.decision import Decision, decide, decide_answer
from genai_operators.release.facts import unpack
from genai_operators.release.journal import Event, EventType, Journal, JournalCorrupt
from genai_operators.release.narrate import describe_event, describe_plan
from genai_operators.release.plan import ReleasePlan
from genai_operators.release.progress import Cause, Phase, Progress
from genai_operators.store import Store, canonical_json

#: Causes that are not decided from traffic: the world outside said so.
FROM_OUTSIDE = frozenset({Cause.SERVING, Cause.VERIFICATION, Cause.CONFLICT, Cause.ABORT})
_DECIDED = frozenset(
    {EventType.STEP_PASSED, EventType.HELD, EventType.ASKED, EventType.PROMOTING, EventType.ROLLING_BACK}
)


@dataclass(frozen=True)
class Replay:
    """The outcome of a replay: one line an event that was checked, and the differences among them."""

    plan: ReleasePlan
    progress: Progress
    checked: tuple[str, ...]
    differences: tuple[str, ...]


def replay(store: Store, model: str, release: str) -> Replay:
    """Fold the events anew, computing every state and decision instead of trusting it.

    :raises ObjectNotFound: there is no such release.
    """
    plan = ReleasePlan.load(store, model, release)
    progress = Progress.begin(plan)
    checked, differences = [], []
    for event in Journal(store, plan.directory).after(0):
        problem = _check(progress, event)
        try:
            progress.apply(event, trust_states=False)
        except JournalCorrupt as error:
            differences.append(str(error))
            break
        if event.type in _DECIDED or event.type is EventType.OBSERVED:
            checked.append(describe_event(plan, event))
        if problem:
            differences.append(f"event {event.number} ({event.type}): {problem}")
    return Replay(plan=plan, progress=progress, checked=tuple(checked), differences=tuple(differences))


def _check(progress: Progress, event: Event) -> str | None:
    if event.type is EventType.OBSERVED:
        return _check_states(progress, event)
    if event.type in _DECIDED:
        return _check_decision(progress, event)
    return None


def _check_states(progress: Progress, event: Event) -> str | None:
    computed = progress.evidence.preview(*unpack(event.data["facts"]))
    for name, state in computed.items():
        version = event.data["states"].get(name, {}).get("version")
        if version != state["version"]:
            return f"the stored state of {name} has version {version}, this code computes {state['version']}"
        if canonical_json(state) != canonical_json(event.data["states"].get(name)):
            return f"the stored state of {name} is not what the stored facts give"
    return None


def _check_decision(progress: Progress, event: Event) -> str | None:
    if event.type is EventType.ROLLING_BACK and event.data["cause"] in FROM_OUTSIDE:
        return None
    if event.type is EventType.PROMOTING and progress.plan.champion is None:
        return None
    decided = _decide(progress, event)
    if decided is None:
        return "nothing was to be decided from the stored facts"
    if (decided.type, decided.data.get("cause")) != (event.type, event.data.get("cause")):
        return f"the stored facts say {decided.type} {decided.data.get('cause') or ''}".rstrip()
    return None


def _decide(progress: Progress, event: Event) -> Decision | None:
    if progress.phase is Phase.ASKING:
        if progress.answer is None:
            return None
        return decide_answer(progress.answer, by="", standing=progress.evidence.standing())
    return decide(progress, now=event.at)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parts = arguments[0].rstrip("/").rsplit("/", 3) if len(arguments) == 1 else []
    if len(parts) != 4 or parts[1] != "releases":
        print("usage: python -m genai_operators.release.replay STORE/releases/MODEL/RELEASE", file=sys.stderr)
        return 2
    root, _, model, release = parts
    try:
        result = replay(Store.open(root), model, release)
    except GenaiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    for line in (*describe_plan(result.plan), *result.checked):
        print(line)
    for line in result.differences:
        print(f"DIFFERS: {line}")
    print(f"{len(result.checked)} events checked, {len(result.differences)} differ; {result.progress.phase}")
    return 1 if result.differences else 0


if __name__ == "__main__":
    raise SystemExit(main())
