"""What every gate returns: one frozen record, one renderer for the log, the report, tags and the approval body."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal

Severity = Literal["critical", "warning", "info"]

VERDICT_VERSION = 1


class Outcome(StrEnum):
    """The answer of a check or a gate. ``INCONCLUSIVE`` is an answer: silence never passes."""

    PASS = "pass"  # noqa: S105  an outcome, not a password
    FAIL = "fail"
    WARN = "warn"
    INCONCLUSIVE = "inconclusive"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One measured statement of a gate.

    :param name: what was checked, in the field's words, e.g. ``exact_match.old``.
    :param observed: the figure, in the unit that ``message`` names.
    :param interval: confidence interval of ``observed``, same unit.
    :param threshold: what ``observed`` (or its bound) was held against.
    :param n: observations behind the figure.
    :param severity: only a ``critical`` check can fail its gate; a ``warning`` one makes it ``WARN``.
    :param evidence_uri: where the numbers behind it are stored.
    """

    name: str
    outcome: Outcome
    observed: float | None = None
    interval: tuple[float, float] | None = None
    threshold: float | None = None
    n: int | None = None
    severity: Severity = "critical"
    evidence_uri: str | None = None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A gate's answer with everything it rests on."""

    gate: str
    outcome: Outcome
    checks: tuple[Check, ...] = ()
    summary: str = ""

    @classmethod
    def of(cls, gate: str, checks: Sequence[Check], *, summary: str = "") -> Verdict:
        """Any critical ``FAIL`` fails the gate; else a critical ``INCONCLUSIVE`` decides; else what is amiss warns."""
        outcome = Outcome.PASS
        if any(c.outcome is Outcome.FAIL and c.severity == "critical" for c in checks):
            outcome = Outcome.FAIL
        elif any(c.outcome is Outcome.INCONCLUSIVE and c.severity == "critical" for c in checks):
            outcome = Outcome.INCONCLUSIVE
        elif any(c.outcome in (Outcome.FAIL, Outcome.WARN) and c.severity != "info" for c in checks):
            outcome = Outcome.WARN
        if not summary:
            amiss = [c.name for c in checks if c.outcome not in (Outcome.PASS, Outcome.SKIPPED)]
            summary = f"{gate}: {outcome}" + (f" ({', '.join(amiss)})" if amiss else "")
        return cls(gate=gate, outcome=outcome, checks=tuple(checks), summary=summary)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; ``from_json`` restores an equal verdict. Non-finite numbers become ``None``."""
        record = json.loads(json.dumps(asdict(self)), parse_constant=lambda _: None)
        return {"version": VERDICT_VERSION, **record}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Verdict:
        """:raises ValueError: for a record of another version."""
        if record.get("version") != VERDICT_VERSION:
            raise ValueError(f"verdict version {record.get('version')!r}, this code reads {VERDICT_VERSION}")
        checks = tuple(
            Check(
                **{
                    **c,
                    "outcome": Outcome(c["outcome"]),
                    "interval": tuple(c["interval"]) if c.get("interval") else None,
                }
            )
            for c in record["checks"]
        )
        return cls(
            gate=record["gate"], outcome=Outcome(record["outcome"]), checks=checks, summary=record.get("summary", "")
        )

    def render_text(self) -> str:
        """One line for the gate, one for each check; for the task log."""
        lines = [f"{self.gate.upper()}: {self.outcome.upper()} - {self.summary}"]
        lines += [f"  [{check.outcome}] {describe(check)}" for check in self.checks]
        return "\n".join(lines)

    def render_markdown(self) -> str:
        """The same as a heading and a list; for Airflow's forms, which put the lines of a code block into one."""
        lines = [f"**{self.gate}: {self.outcome.upper()}** {self.summary}", ""]
        return "\n".join([*lines, *(f"- {check.outcome}: {describe(check)}" for check in self.checks)])


def describe(check: Check) -> str:
    """A check in one line: figure, interval, threshold, n, message."""
    parts = [check.name]
    if check.observed is not None:
        parts.append(f"= {format_number(check.observed)}")
    if check.interval is not None:
        parts.append(f"[{format_number(check.interval[0])}, {format_number(check.interval[1])}]")
    if check.threshold is not None:
        parts.append(f"against {format_number(check.threshold)}")
    if check.n is not None:
        parts.append(f"(n = {check.n:,})")
    return " ".join(parts) + (f": {check.message}" if check.message else "")


def format_number(value: float) -> str:
    """Three significant digits below a thousand, thousands separators above."""
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
