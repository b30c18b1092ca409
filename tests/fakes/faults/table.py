"""The table of injected faults: what a row is, how it is played, and what must hold after each.

Rows run several at a time in one process, each with a cluster of its own (a fake one is up within half a second), so
that a fault of the whole API touches nobody else and every counter is the row's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.fakes.kubernetes.fixture import GPU_PRODUCT, FakeCluster, cluster_from_environment
from tests.fakes.kubernetes.settings import NodeShape, Settings, cpu_node
from tests.fakes.kubernetes_run import ClusterRun

#: Rows at once. They wait most of the time; two cores carry this many.
LANES = 4
SUCCEEDED, CANCELLED = "succeeded", "cancelled"
NODES = (cpu_node("cpu-1"), cpu_node("cpu-2"), cpu_node("cpu-3"))

#: Injects a fault and drives the run to its end; returns how it settled.
Play = Callable[[Any], dict[str, Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One fault at one phase.

    :param jobs: how many Jobs are created in total.
    :param ends: ``succeeded``, ``cancelled``, or the class of the failure.
    :param begun: how many processes of the workload begin; ``None`` where that is left to chance.
    :param nodes: of its cluster. :param params: of the checkpointing workload.
    :param make: makes the run, where it is not the checkpointing workload.
    :param heard: the first attempt whose lines somebody waits for to the end.
    :param slow: it trains; those begin first.
    """

    fault: str
    phase: str
    play: Play
    jobs: int = 1
    ends: str = SUCCEEDED
    begun: int | None = 1
    heard: int = 1
    nodes: tuple[NodeShape, ...] = NODES
    settings: dict[str, Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    make: Callable[..., ClusterRun] = ClusterRun
    slow: bool = False

    def __str__(self) -> str:
        return f"{self.fault}: {self.phase}" if self.phase else self.fault


class Rows(list[Row]):
    """Rows in the order in which they were written."""

    def row(self, fault: str, *phases: str, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Add the decorated function: ``play(run)``, or ``play(run, phase)`` where it has several phases."""

        def add(play: Callable[..., Any]) -> Callable[..., Any]:
            for phase in phases or ("",):
                bound = play if len(phases) < 2 else _at(play, phase)
                self.append(Row(fault=fault, phase=phase, play=bound, **options))
            return play

        return add


def _at(play: Callable[..., Any], phase: str) -> Play:
    def play_at(run: ClusterRun) -> dict[str, Any]:
        settled: dict[str, Any] = play(run, phase)
        return settled

    return play_at


ROWS = Rows()


def rendered(rows: Iterable[Row]) -> str:
    """For people: each fault with the Jobs that are created in total, how it ends, and its phases."""
    lines: dict[tuple[str, int, str], list[str]] = {}
    for row in sorted(rows, key=lambda row: row.fault.lower()):
        lines.setdefault((row.fault, row.jobs, row.ends), []).append(row.phase)
    table = [("fault", "Jobs", "ends", "at")]
    table += [(fault, str(jobs), ends, ", ".join(filter(None, at))) for (fault, jobs, ends), at in lines.items()]
    widths = [max(len(line[column]) for line in table) for column in range(3)]
    return "\n".join(
        "  ".join((*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3])) for line in table
    )


def play(row: Row, folder: Path) -> None:
    """Play a row in a cluster of its own and judge what is left."""
    settings = replace(Settings(folder="", nodes=row.nodes, pull_backoff_s=0.2), **row.settings)
    with cluster_from_environment(settings, folder=folder / "cluster") as cluster:
        for node in row.nodes:
            if GPU_PRODUCT in node.labels:
                cluster.require_gpu(node.labels[GPU_PRODUCT])
        run = row.make(cluster, folder, **row.params)
        try:
            settled = row.play(run)
            _well(cluster)
            judge(row, run, settled)
        except AssertionError as error:
            raise AssertionError(f"{row}: {error}\n{run.describe()}") from error
        finally:
            _well(cluster)
            run.end_everything()


def judge(row: Row, run: ClusterRun, settled: dict[str, Any]) -> None:
    """What must hold after every fault."""
    assert settled["status" if row.ends in (SUCCEEDED, CANCELLED) else "error"] == row.ends, settled
    run.settle()
    assert run.created() == row.jobs
    if row.ends != CANCELLED:
        run.assert_every_line_shown(first=row.heard)
    run.assert_nothing_left(reconciling=row.ends == CANCELLED)
    assert run.created() == row.jobs  # nor did what was done since make one
    run.assert_result(succeeded=row.ends == SUCCEEDED)
    if not run.cluster.real:
        assert run.witnessed("TWICE") == []
        assert row.begun in (None, len(run.witnessed("begin")))


def _well(cluster: FakeCluster) -> None:
    """Everything can be reached again, so that the row can be tidied up."""
    if not cluster.real:
        cluster.faults.well()


class Table:
    """Plays the rows that somebody will ask for, several at a time."""

    def __init__(self, rows: Iterable[Row], folder: Path) -> None:
        self._pool = ThreadPoolExecutor(LANES, thread_name_prefix="row")
        self._futures: dict[str, Future[None]] = {}
        for number, row in enumerate(sorted(rows, key=lambda row: not row.slow)):
            self._futures[str(row)] = self._pool.submit(play, row, folder / f"row-{number}")

    def result(self, row: Row) -> None:
        """Wait for a row; raises what it raised."""
        self._futures[str(row)].result()

    def end(self) -> None:
        """Begin no further row; wait for those that run."""
        self._pool.shutdown(cancel_futures=True)
