"""A measured figure, and what a benchmark of figures prints and writes."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure.

    :param baseline: what the usual way reaches in the same run; ``None`` where there is none.
    :param target: what was promised; ``None`` for a figure that is only reported.
    :param sense: which side of the target is good.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    target: float | None = None
    sense: Literal["at_most", "at_least"] = "at_most"

    @property
    def ratio(self) -> float | None:
        """Value over baseline."""
        return self.value / self.baseline if self.baseline else None

    @property
    def met(self) -> bool | None:
        """Whether the target is reached."""
        if self.target is None:
            return None
        return self.value <= self.target if self.sense == "at_most" else self.value >= self.target

    def to_json(self) -> dict[str, Any]:
        """As ``make bench`` collects it; infinite figures become ``null``."""
        record = {**asdict(self), "ratio": self.ratio, "met": self.met}
        return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in record.items()}

    def line(self) -> str:
        """For the terminal."""
        text = f"{self.name:68} {self.value:12,.4g} {self.unit:10}"
        ratio = "" if self.ratio is None else f" ratio {self.ratio:8.3g}"
        text += " " * 36 if self.baseline is None else f" baseline {self.baseline:10,.4g}{ratio:15}"
        if self.target is not None:
            sign = "<=" if self.sense == "at_most" else ">="
            text += f" target {sign} {self.target:,.6g} {'met' if self.met else 'MISSED'}"
        return text


def main(measure: Callable[..., list[Figure]], description: str) -> None:
    """Command line of a benchmark: ``[--full] [--json FILE]``. The file grows with each figure: a stop loses none."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--full", action="store_true", help="the whole study, minutes; without it a reduced one")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    records: list[dict[str, Any]] = []

    def report(figure: Figure) -> None:
        print(figure.line(), flush=True)
        records.append(figure.to_json())
        if options.json:
            options.json.write_text(json.dumps({"figures": records}, indent=1) + "\n")

    measure(full=options.full, report=report)


Report = Callable[[Figure], None]


class Collected:
    """Collects figures and reports each as soon as it is known."""

    def __init__(self, report: Report | None = None) -> None:
        self.figures: list[Figure] = []
        self._report = report

    def add(self, name: str, value: float, unit: str, **options: Any) -> None:
        """See :class:`Figure`."""
        figure = Figure(name=name, value=float(value), unit=unit, **options)
        self.figures.append(figure)
        if self._report:
            self._report(figure)
