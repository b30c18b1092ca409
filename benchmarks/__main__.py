"""``make bench``: every benchmark, one table, and ``.run/bench.json``.

Each figure stands beside a baseline of the same run, their ratio, and its target. It never fails a test suite: the
machine may be shared. ``--quick`` runs the calibration studies at reduced size. Interrupted, it keeps what it has.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / ".run" / "bench.json"
#: What a shell says of a program that was stopped from the keyboard.
INTERRUPTED = 130
#: Scripts that take ``--json FILE``, and ``--full`` where they have a long form.
SCRIPTS = (
    "parse",
    "compute_kubernetes",
    "decisions_gpu_plan",
    "decisions_paired",
    "decisions_sequential",
    "decisions_drift",
)


def run(name: str, *, full: bool) -> tuple[list[dict[str, Any]], int]:
    """The figures of one benchmark, from a process of its own; printed and kept as they are found."""
    path = ROOT / ".run" / f"bench-{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / f"{name}.py"),
        "--json",
        str(path),
        *(["--full"] if full else []),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'plugins'}{os.pathsep}{ROOT}"}
    try:
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    except KeyboardInterrupt:
        code = INTERRUPTED
    figures = json.loads(path.read_text())["figures"] if path.exists() else []
    path.unlink(missing_ok=True)
    return figures, code


def main() -> int:
    """Run all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"default: all of {', '.join(SCRIPTS)}")
    parser.add_argument("--quick", action="store_true", help="reduced calibration studies")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(SCRIPTS)):
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(SCRIPTS)}")
    figures: list[dict[str, Any]] = []
    names, stopped = options.names or SCRIPTS, []
    for number, name in enumerate(names, start=1):
        began = time.monotonic()
        print(f"== {name} ({number} of {len(names)})", flush=True)
        found, code = run(name, full=not options.quick)
        figures += [{"benchmark": name, **figure} for figure in found]
        RESULTS.write_text(json.dumps({"figures": figures}, indent=1) + "\n")
        print(f"   {time.monotonic() - began:.0f} s", flush=True)
        if code:
            stopped.append(f"{name} ended with {code} after {len(found)} figures")
        if code == INTERRUPTED:
            break
    Console().print(_table(figures))
    print(f"{sum(bool(f['met']) for f in figures if f['met'] is not None)} of "
          f"{sum(f['met'] is not None for f in figures)} targets met; all figures: {RESULTS}")  # fmt: skip
    for line in stopped:
        print(f"incomplete: {line}")
    return 1 if stopped else 0


def _table(figures: list[dict[str, Any]]) -> Table:
    table = Table()
    for header in ("figure", "value", "unit", "baseline", "ratio", "target", "met"):
        table.add_column(header, justify="left" if header in ("figure", "unit") else "right")
    for figure in figures:
        met = figure["met"]
        mark = "" if met is None else "[green]yes[/]" if met else "[red]no[/]"
        numbers = [_number(figure[key]) for key in ("baseline", "ratio", "target")]
        table.add_row(figure["name"], _number(figure["value"]), figure["unit"], *numbers, mark)
    return table


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, (int, float)) else str(value)


if __name__ == "__main__":
    sys.exit(main())
