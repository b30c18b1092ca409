"""What the check of a cluster found, and how it is told."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

WIDTH = 120


class State(StrEnum):
    """Of one thing that was looked at."""

    FINE = "fine"
    OPTIONAL = "optional"
    MISSING = "MISSING"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """:param subject: what was looked at. :param fix: YAML to apply, or commands; empty when nothing is to be done."""

    state: State
    subject: str
    detail: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Report:
    """All findings, in the order in which they depend on each other."""

    findings: Sequence[Finding]

    @property
    def ok(self) -> bool:
        """Whether nothing that is required is missing."""
        return all(finding.state is not State.MISSING for finding in self.findings)

    def render(self) -> str:
        """A table, then what mends what is missing; each remedy once."""
        width = max(len(finding.subject) for finding in self.findings)
        lines = [line for finding in self.findings for line in _row(finding, width)]
        for fix in dict.fromkeys(finding.fix for finding in self.findings if finding.fix):
            names = ", ".join(finding.subject for finding in self.findings if finding.fix == fix)
            lines += ["", f"# For: {names}", *fix.rstrip().splitlines()]
        missing = sum(finding.state is State.MISSING for finding in self.findings)
        lines += ["", f"{missing} required thing(s) missing." if missing else "Everything that is required is there."]
        return "\n".join(lines)

    def to_json(self) -> list[dict[str, str]]:
        """Without the remedies."""
        return [
            {"state": finding.state.value, "subject": finding.subject, "detail": finding.detail}
            for finding in self.findings
        ]


def as_yaml(*manifests: Mapping[str, Any]) -> str:
    """Documents that ``kubectl apply -f -`` takes."""
    import yaml

    return str(yaml.safe_dump_all([dict(manifest) for manifest in manifests], sort_keys=False, explicit_start=True))


def _row(finding: Finding, width: int) -> list[str]:
    head = f"{finding.state.value:<9} {finding.subject:<{width}}  "
    first, *rest = textwrap.wrap(finding.detail, max(WIDTH - len(head), 40)) or [""]
    return [(head + first).rstrip(), *(" " * len(head) + line for line in rest)]
