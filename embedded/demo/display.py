"""What a person sees while the demo runs: a table of stages that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.table import Table

REFRESH_PER_SECOND = 4
#: Without a terminal, details are lines; more often than this they would be noise.
LINE_INTERVAL_S = 5.0


@dataclass
class Stage:
    """One row: what happens, for how long, and the newest detail."""

    name: str
    title: str
    started: float | None = None
    seconds: float | None = None
    detail: str = ""
    failed: bool = False


class Display:
    """The stages of the demo. Use :meth:`stage` around each."""

    def __init__(self, titles: dict[str, str]) -> None:
        self.stages = [Stage(name=name, title=title) for name, title in titles.items()]
        self._console = Console()
        self._live: Live | None = None
        self._started = time.monotonic()
        self._current: Stage | None = None
        self._last_detail_at = -LINE_INTERVAL_S

    def __enter__(self) -> Display:
        if sys.stdout.isatty():
            self._live = Live(self, console=self._console, refresh_per_second=REFRESH_PER_SECOND)
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)
            self._live = None

    def __rich__(self) -> Table:
        table = Table(title=f"support_bot, the whole loop - {self.elapsed:.0f} s", expand=True)
        for header, justify in (("", "left"), ("stage", "left"), ("seconds", "right"), ("now", "left")):
            table.add_column(header, justify=justify, ratio=3 if header == "now" else None)  # type: ignore[arg-type]
        for stage in self.stages:
            table.add_row(_mark(stage), stage.title, _seconds(stage), stage.detail)
        return table

    @property
    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._started

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; a failure marks it and passes on."""
        stage = next(stage for stage in self.stages if stage.name == name)
        stage.started = time.monotonic()
        self._current = stage
        self._line(f"{stage.title} ...")
        try:
            yield
        except BaseException:
            stage.failed = True
            raise
        finally:
            stage.seconds = time.monotonic() - stage.started
            self._line(f"{stage.title}: {'FAILED after' if stage.failed else 'done in'} {stage.seconds:.0f} s")

    def say(self, detail: str) -> None:
        """The newest detail of the current stage; repeating it prints nothing."""
        if self._current is None or self._current.detail == detail:
            return
        self._current.detail = detail
        if self.elapsed - self._last_detail_at >= LINE_INTERVAL_S:
            self._last_detail_at = self.elapsed
            self._line(f"    {detail}")

    def _line(self, text: str) -> None:
        if self._live is None:
            print(f"[{self.elapsed:6.1f} s] {text}", flush=True)


def _mark(stage: Stage) -> str:
    if stage.failed:
        return "[red]x[/]"
    if stage.seconds is not None:
        return "[green]ok[/]"
    return "[yellow]>[/]" if stage.started is not None else ""


def _seconds(stage: Stage) -> str:
    if stage.seconds is not None:
        return f"{stage.seconds:.0f}"
    return "" if stage.started is None else f"{time.monotonic() - stage.started:.0f}"
