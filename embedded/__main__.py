"""``python -m embedded up | down | status | logs | demo``: what the Makefile calls."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from embedded import control
from embedded.layout import ROOT, Layout
from genai_operators.exceptions import GenaiError

DEFAULT_DIRECTORY = ROOT / ".run" / "platform"
DEMO_DIRECTORY = ROOT / ".run" / "demo"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code is 0 only if it did what it says."""
    parser = argparse.ArgumentParser(prog="python -m embedded", description="The embedded platform, on loopback only.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("up", "start the platform and leave it running"),
        ("down", "stop the platform and everything it started"),
        ("status", "say what runs and where"),
        ("logs", "follow the logs of every component"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--directory", type=Path, default=DEFAULT_DIRECTORY, help="default: .run/platform")
    demo = commands.add_parser("demo", help="run the whole loop and report", description="Run the whole loop.")
    demo.add_argument("--directory", type=Path, default=DEMO_DIRECTORY, help="default: .run/demo")
    demo.add_argument("--keep", action="store_true", help="leave the platform running at the end, to look around")
    options = parser.parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except GenaiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _up(options: argparse.Namespace) -> int:
    layout = control.up(options.directory, say=lambda line: print(f"  {line}", flush=True))
    _print_access(layout)
    return 0


def _down(options: argparse.Namespace) -> int:
    ended = control.down(options.directory)
    print(f"stopped {ended} processes" if ended else "nothing was running")
    return 0


def _status(options: argparse.Namespace) -> int:
    rows = control.status(options.directory)
    if not rows:
        print("the platform is down; `make up` starts it")
        return 0
    for name, state, description in rows:
        print(f"{name:<40} {state:<10} {description}")
    _print_access(Layout.at(options.directory))
    return 0


def _logs(options: argparse.Namespace) -> int:
    files = control.log_files(options.directory)
    if not files:
        print(f"no logs in {options.directory / 'logs'}; `make up` starts the platform")
        return 0
    try:
        return subprocess.run(["tail", "-n", "20", "-F", *map(str, files)], check=False).returncode
    except KeyboardInterrupt:
        return 0


def _demo(options: argparse.Namespace) -> int:
    from embedded.demo.run import run_demo

    return run_demo(directory=options.directory, keep=options.keep)


def _print_access(layout: Layout) -> None:
    user, password = control.credentials(layout)
    print(f"\n  Airflow   {layout.airflow_url}   user {user}, password {password}")
    print(f"  MLflow    {layout.mlflow_url}")
    print(f"  Gateway   {layout.gateway_url}/v1/chat/completions")
    print(f"  Store     {layout.store}\n")


_COMMANDS = {"up": _up, "down": _down, "status": _status, "logs": _logs, "demo": _demo}

if __name__ == "__main__":
    sys.exit(main())
