"""What a person would otherwise look up: the phase of an attempt, why it waits, that it was taken away. Once each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genai_operators.compute.budget import Budget
from genai_operators.compute.contract import Attempt, Phase, Probe
from genai_operators.compute.escalation import Ask

#: A detail that changes at every look (a counter in an event) must not fill the log.
MOST_DETAILS = 50


class News:
    """Remembers what was said of the attempt that was looked at last."""

    def __init__(self) -> None:
        self._attempt = 0
        self._phase: Phase | None = None
        self._details: set[str] = set()

    def of_probe(self, attempt: Attempt, probe: Probe) -> list[str]:
        """A new phase; in the phases of waiting also a new reason."""
        if self._attempt != attempt.number:
            self._attempt, self._phase, self._details = attempt.number, None, set()
        changed = probe.phase is not self._phase
        self._phase = probe.phase
        if probe.phase is Phase.STARTING and not probe.detail:
            return []  # everything begins so
        waits = probe.phase in (Phase.QUEUED, Phase.STARTING, Phase.PREEMPTED)
        told_before = probe.detail in self._details or len(self._details) >= MOST_DETAILS
        if not changed and (not waits or told_before):
            return []
        self._details.add(probe.detail)
        return [f"attempt {attempt.number}: {probe.phase}" + (f" ({probe.detail})" if probe.detail else "")]

    def of_claim(self, attempt: Attempt, ask: Ask, *, step: int, budget: Budget | None) -> list[str]:
        """What it asks for, and where it goes on."""
        asked = f", {ask.describe()}" if ask.describe() else ""
        resumes = f", resumes from the checkpoint of step {step}" if step >= 0 else ""
        lines = [f"attempt {attempt.number}: claimed{asked}{resumes}"]
        if budget is not None and ask.resources.price_per_hour is None:
            lines.append(f"nobody knows what that costs: max_cost {budget.max_cost:g} cannot stop it")
        return lines

    def of_start(self, attempt: Attempt, number: int, record: Mapping[str, Any]) -> str:
        """It began again in the place of a process that was taken away."""
        step = int(record["step"])
        origin = f"the checkpoint of step {step}" if step >= 0 else "the beginning"
        return f"attempt {attempt.number}: taken away; process {number + 1} of it goes on from {origin}"
