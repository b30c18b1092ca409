"""``make bench``: every benchmark, one table, and ``.run/bench.json``.

Each figure stands beside a baseline of the same run, their ratio, and its target. It never fails a test suite: the
machine may be shared. ``--quick`` runs the calibration studies at reduced size.
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
#: Scripts that take ``--json FILE``, and ``--full`` where they have a long form.
SCRIPTS = ("parse", "decisions_sequential", "decisions_paired", "decisions_drift", "decisions_gpu_plan")


def run(name: str, *, full: bool) -> list[dict[str, Any]]:
    """The figures of one benchmark, from a process of its own."""
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
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    record = json.loads(path.read_text())
    path.unlink()
    return list(record["figures"] if isinstance(record, dict) else record)


def main() -> int:
    """Run all, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"default: all of {', '.join(SCRIPTS)}")
    parser.add_argument("--quick", action="store_true", help="reduced calibration studies")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(SCRIPTS)):
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(SCRIPTS)}")
    figures: list[dict[str, Any]] = []
    for name in options.names or SCRIPTS:
        began = time.monotonic()
        print(f"== {name}", flush=True)
        figures += [{"benchmark": name, **figure} for figure in run(name, full=not options.quick)]
        print(f"   {time.monotonic() - began:.0f} s", flush=True)
    RESULTS.write_text(json.dumps({"figures": figures}, indent=1) + "\n")
    Console().print(_table(figures))
    print(f"{sum(bool(f['met']) for f in figures if f['met'] is not None)} of "
          f"{sum(f['met'] is not None for f in figures)} targets met; all figures: {RESULTS}")  # fmt: skip
    return 0


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
