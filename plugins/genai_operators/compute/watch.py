"""Waiting for a workload: drive it, show what it says, tell when it settled.

Triggers keep no state over a death, so what was shown is noted in the store (``shown/<owner>.json``) once the next
lines are asked for. Lines are numbered; none is lost, and after a triggerer's death at most one chunk shows twice.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, Protocol

from genai_operators.compute.backends import open_backend
from genai_operators.compute.budget import Budget
from genai_operators.compute.cancelling import withdraw
from genai_operators.compute.chunks import read_chunk
from genai_operators.compute.driver import Driver
from genai_operators.compute.owners import Owner
from genai_operators.compute.pace import Pace
from genai_operators.compute.resources import GIB, Resources
from genai_operators.compute.standing import Limits, Standing
from genai_operators.store import Store

#: Figures for programs, not for people.
UNTOLD_FIGURES = frozenset({"batch"})

#: How a wait ends whose deadline came first.
STATUS_TIMEOUT = "timeout"
#: How long polls may go on failing (the store or the cluster is away) before the wait itself fails.
POLL_PATIENCE_S = 300.0


@dataclass(frozen=True)
class Poll:
    """One look at what is waited for.

    :param lines: for the task log, in order; the next call takes them as shown.
    :param settled: how it ended, JSON, at most 2 kB; ``None`` while it goes on.
    :param more: there is more to show at once: do not sleep before the next call.
    :param next_s: when to look again, in seconds; ``None`` leaves it to whoever waits.
    """

    lines: list[str]
    settled: dict[str, Any] | None = None
    more: bool = False
    next_s: float | None = None


class Subject(Protocol):
    """Something that is waited for. Made anew from JSON arguments wherever the waiting goes on."""

    def poll(self) -> Poll:
        """Look, do what is due, and return. May block for a few requests; is never called twice at once."""
        ...

    def cancel(self, reason: str) -> None:
        """Nobody waits any more. Safe to call at any time, from any thread, more than once."""
        ...


@dataclass(frozen=True)
class Shown:
    """The next chunks to show: of ``attempt``, log chunk ``log`` and progress chunk ``progress``."""

    attempt: int = 1
    log: int = 0
    progress: int = 0


class WorkloadSubject:
    """A workload that a task waits for."""

    def __init__(
        self,
        *,
        store: str,
        directory: str,
        backend: Mapping[str, Any],
        owner: Mapping[str, Any],
        after: int,
        limits: Mapping[str, Any],
        ladder: Sequence[Mapping[str, Any]] = (),
        budget: Mapping[str, Any] | None = None,
    ) -> None:
        """All arguments are plain JSON.

        :param directory: ``workloads/<kind>/<fingerprint>``.
        :param backend: see :func:`~genai_operators.compute.backends.open_backend`.
        :param after: see :class:`~genai_operators.compute.attempts.Joined`.
        :param ladder: :class:`~genai_operators.compute.resources.Resources`, the preferred first.
        :param budget: ``{"max_cost", "currency"}``.
        """
        self._store = Store.open(store)
        self._directory = directory
        self._owner = Owner.from_json(owner)
        opened = open_backend(backend)
        self._driver = Driver(
            store=self._store,
            directory=directory,
            backend=opened,
            owner=self._owner,
            after=after,
            limits=Limits(**limits),
            ladder=[Resources.from_json(rung) for rung in ladder],
            budget=None if budget is None else Budget(**budget),
        )
        self._pace = Pace() if opened.restarts else None
        self._after = after
        self._shown: Shown | None = None
        self._to_note: Shown | None = None
        self._standing: Standing | None = None
        self._news: list[str] = []
        self._lock = threading.Lock()
        self._cancelled = False

    def start(self) -> Poll:
        """Take the first step, and show nothing of what the workload said: whoever waits does that."""
        with self._lock:
            self._step()
            return Poll(lines=self._take_news())

    def poll(self) -> Poll:
        """Take a step of the state machine and show at most one chunk."""
        with self._lock:
            self._note_shown()
            if self._cancelled:
                return Poll(lines=[])
            standing = self._step()
            lines = self._next_lines(standing.attempt)
            if standing.settled is None:
                next_s = self._pace.next_s(standing, said=bool(lines)) if self._pace else None
                return Poll(lines=[*self._take_news(), *lines], more=bool(lines), next_s=next_s)
            if lines:  # the last words of the workload come before the news that it ended
                return Poll(lines=lines, more=True)
            return Poll(lines=self._take_news(), settled=standing.settled.to_json())

    def _step(self) -> Standing:
        if self._standing is None or self._standing.settled is None:
            self._standing = self._driver.advance()
            self._news.extend(self._standing.news)
        return self._standing

    def _take_news(self) -> list[str]:
        news, self._news = self._news, []
        return news

    def cancel(self, reason: str) -> None:
        """Leave the workload's owners; the last to leave cancels it."""
        self._cancelled = True  # a step that is under way finishes; none begins after it
        with self._lock:
            withdraw(self._store, self._directory, self._owner, reason=reason)

    # --- what was shown ----------------------------------------------------------------------------------------

    def _note_shown(self) -> None:
        """Lines that were returned by the last call are in the task log by now."""
        if self._to_note is not None:
            self._store.put_json(self._shown_path, asdict(self._to_note))
            self._to_note = None

    @property
    def _shown_path(self) -> str:
        return f"{self._directory}/shown/{self._owner.key}.json"

    def _next_lines(self, current: int) -> list[str]:
        """The next chunk, of the attempt that was shown last; of a newer one once the older has no more."""
        shown = self._shown or self._load_shown()
        while True:
            lines, after = self._read(shown)
            if lines or shown.attempt >= current:
                break
            shown = Shown(attempt=shown.attempt + 1)
        self._shown = after
        if lines:
            self._to_note = after
        return lines

    def _load_shown(self) -> Shown:
        record = self._store.find_json(self._shown_path)
        noted = Shown(**record) if record is not None else Shown()
        return noted if noted.attempt > self._after else Shown(attempt=self._after + 1)

    def _read(self, shown: Shown) -> tuple[list[str], Shown]:
        """The next chunk of the log, or else of the progress: of that its newest line is enough."""
        prefix = f"{self._directory}/attempts/{shown.attempt}"
        log = read_chunk(self._store, f"{prefix}/log", shown.log, "txt")
        if log is not None:
            return [f"{shown.attempt}:{line}" for line in log], replace(shown, log=shown.log + 1)
        progress = read_chunk(self._store, f"{prefix}/progress", shown.progress, "jsonl")
        if progress is not None:
            line = f"{shown.attempt}:progress {describe_progress(json.loads(progress[-1]))}"
            return [line], replace(shown, progress=shown.progress + 1)
        return [], shown


def describe_progress(figures: Mapping[str, Any]) -> str:
    """Figures of one moment in a line: step of steps, then rate and time left, then whatever else is told."""
    rest = {name: value for name, value in figures.items() if name not in UNTOLD_FIGURES}
    step, total = rest.pop("step", None), rest.pop("total", None)
    parts = []
    if step is not None:
        share = f" ({100 * step / total:.0f} %)" if total else ""
        parts.append(f"step {step}" + (f" of {total}" if total else "") + share)
    rate, left = rest.pop("tokens_per_s", None), rest.pop("eta_s", None)
    memory, use = rest.pop("gpu_memory_bytes", None), rest.pop("gpu_use", None)
    parts += [f"{name} {_short(value)}" for name, value in rest.items() if value is not None]
    if rate is not None:
        parts.append(f"{rate:,.0f} tokens/s")
    if use is not None:
        parts.append(f"GPU {100 * use:.0f} %" + (f" and {memory / GIB:.1f} GiB" if memory is not None else ""))
    if left is not None:
        parts.append(f"{timedelta(seconds=round(left))} left")
    return ", ".join(parts)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
