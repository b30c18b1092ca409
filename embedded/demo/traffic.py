"""The simulated users of the demo: a process of its own, steered by a control file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from embedded.configuration import environment
from embedded.layout import ROOT, Layout

MODEL = "support_bot"
DATA = ROOT / "include" / "data" / MODEL
USUAL, LATER = DATA / "usual.jsonl", DATA / "later.jsonl"
#: Requests per second. One model server saturates at about 18 on this kind of machine.
RATE = 8.0
#: The same, while the machine's two cores have a model to train or to evaluate besides.
FEW = 2.0
#: High, so that a minute of shifted traffic teaches enough; a day of real traffic needs far less.
FEEDBACK_SHARE = 0.8
#: Requests under way at once. A busy machine then gets fewer users, not a queue that grows without end.
MAX_OPEN = 6
MAX_SECONDS = 1800
STOP_TIMEOUT_S = 20.0


class Users:
    """Start with :meth:`start`; what they ask can be changed while they do."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._control = layout.directory / "traffic-control.json"
        self._status = layout.directory / "traffic-status.json"
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: dict[str, str | float] = {}

    def start(self, data: Path) -> None:
        """Begin to ask."""
        self._ask(data=str(data), rate=RATE)
        command = [
            sys.executable, str(ROOT / "include" / "demo" / "traffic.py"),
            "--gateway", self._layout.gateway_url, "--model", MODEL, "--data", str(data), "--rate", str(RATE),
            "--feedback-share", str(FEEDBACK_SHARE), "--control", str(self._control), "--status", str(self._status),
            "--max-open", str(MAX_OPEN), "--max-seconds", str(MAX_SECONDS),
        ]  # fmt: skip
        with (self._layout.logs / "traffic.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment(self._layout), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def ask_from(self, data: Path) -> None:
        """From now on, ask what is in this file."""
        self._ask(data=str(data))

    def come(self, rate: float) -> None:
        """From now on, ask so many requests a second."""
        self._ask(rate=rate)

    def _ask(self, **changes: str | float) -> None:
        if (asked := {**self._asked, **changes}) == self._asked:
            return
        draft = self._control.with_suffix(".new")
        draft.write_text(json.dumps(asked))
        draft.replace(self._control)
        self._asked = asked

    def counts(self) -> dict[str, Any]:
        """What the users have seen so far."""
        return dict(json.loads(self._status.read_text())) if self._status.exists() else {}

    def stop(self) -> None:
        """Let them finish their open requests and go."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
