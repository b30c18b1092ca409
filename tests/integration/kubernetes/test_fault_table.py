"""The table of injected faults: whatever happens to a job on Kubernetes, it is created once and ends as if nothing had.

    fault                              Jobs  ends             at
    API server broken (500, 503, 504)  1     succeeded        submit, running
    API server gone for 12 s           1     succeeded        submit, starting, running
    API server gone for a minute       1     succeeded        running
    API server overloaded (429)        1     succeeded        submit, running
    budget reached                     1     BudgetExceeded   running
    budget reached                     2     succeeded        and then raised
    cancelled                          1     cancelled        queued, starting, running, preempted, no machine comes
    cancelled, then cleared            2     succeeded        while it stops
    container killed without a reason  2     succeeded        running
    create applied, answer lost        1     succeeded
    drained                            1     succeeded        running
    evicted                            1     succeeded        running
    image misspelt                     1     ImagePullFailed  starting
    Job deleted by hand                2     succeeded        queued, running
    killed after its result            1     succeeded        before it could say so
    newest checkpoint cut short        1     succeeded        then preempted
    no progress                        1     NoProgress       preempted without a step
    node lost                          1     succeeded        its processes die with it, its processes live on
    node lost                          2     succeeded        and nobody removes its pod
    object store away                  1     succeeded        running, at the end
    one of several nodes lost          2     succeeded        its processes die with it
    out of memory, GPU                 2     succeeded        until half the rows fit, on another than the first node
    out of memory, GPU                 4     succeeded        until the next GPU fits
    out of memory, host                2     succeeded        running, on another than the first node
    out of memory, host                2     OutOfMemory      twice
    pod deleted by hand                2     succeeded        running
    pod stuck terminating              1     succeeded        after a preemption
    preempted                          1     succeeded        once, twice, 5 times, before it runs
    preempted                          2     succeeded        no other machine within the limit
    queue (Kueue)                      2     succeeded        longer than the limit
    queue (Kueue)                      1     succeeded        takes its quota away
    quota of Jobs used up              1     succeeded        and then given back
    quota of Jobs used up              0     QuotaExceeded    longer than the limit
    quota of pods used up              1     succeeded        and then given back
    quota of pods used up              1     QuotaExceeded    longer than the limit
    token expired (401)                1     succeeded        submit, running
    training out of memory, host       2     succeeded        running
    training preempted                 1     succeeded        twice
    training's checkpoint cut short    1     succeeded        then evicted
    training's Job deleted by hand     2     succeeded        running
    training's node lost               1     succeeded        its processes live on
    triggerer killed                   1     succeeded        queued, starting, running
    triggerer killed as it submits     1     succeeded        before claim, before create, during create, after create
    two runs of one fingerprint        1     succeeded        at once
    watch dropped                      1     succeeded        running, three times
    watch expired (410)                1     succeeded        running
    watch stalled                      1     succeeded        running, then preempted
    worker and triggerer stopped       1     succeeded        while it runs
    worker killed                      1     succeeded        before create, during create, after create, after a look

*Jobs* says how many are created in total, *ends* how the task settles, *at* in which phase the fault is injected. After
each row, besides: no Job, pod, process or claim is left over and nobody is in the index of owners; every line of log
was shown, numbered without a gap, at most one chunk twice (a cancelled task shows no more); one process computed at a
time; and a result has the bytes of a run that nobody disturbed. *training* rows fine-tune a small model for real, and
compare its weights with those of the same training on this host; the others chain hashes and checkpoint for seconds.

Twelve seconds without API server are longer than every poll, heartbeat and try of a request; what waits for minutes in
production waits for seconds here (``SHORTENED``). On a real cluster (``KUBECONFIG``, and of
``GENAI_TEST_KUBERNETES_*`` the variables ``NAMESPACE``, ``IMAGE`` and ``STORE``) rows whose fault only the fake can
inject are skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from genai_operators.compute import budget, driver, liveness, patience, reconcile
from genai_operators.compute.kubernetes import phases, removal, waiting, watch
from tests.fakes.faults import api_server, capacity, nodes, pods, stopping, storage, training, workers  # noqa: F401  adds its rows
from tests.fakes.faults.table import ROWS, Row, Table, rendered

pytestmark = [pytest.mark.slow, pytest.mark.workload_env]

LEAST_FAULTS = 25
#: Seconds here, minutes in production.
SHORTENED: tuple[tuple[ModuleType, str, float], ...] = (
    (phases, "STUCK_AFTER_S", 1.0),
    (removal, "STUCK_AFTER_S", 1.0),
    (removal, "NODE_LOST_AFTER_S", 2.0),
    (waiting, "IMAGE_GRACE_S", 3.0),
    (watch, "WATCH_S", 5),
    (driver, "NO_ROOM_RELAUNCH_S", 1.0),
    (budget, "USAGE_INTERVAL_S", 0.5),
    (patience, "CANCEL_PATIENCE_S", 8.0),
    (patience, "SILENT_S", 3.0),
    (liveness, "VANISHED_AFTER_S", 8.0),
    (reconcile, "CANCEL_PATIENCE_S", 8.0),
)


@pytest.fixture(scope="module")
def impatience() -> Iterator[None]:
    """What waits for a minute or more in production waits for seconds here."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name, seconds in SHORTENED:
            patch.setattr(module, name, seconds)
        yield


@pytest.fixture(scope="module")
def table(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, impatience: None
) -> Iterator[Table]:
    """The rows that were asked for, begun."""
    logging.getLogger(watch.__name__).setLevel(logging.ERROR)  # of clusters whose row is over
    asked = {str(item.callspec.params["row"]) for item in request.session.items if is_row(item)}
    table = Table([row for row in ROWS if str(row) in asked], tmp_path_factory.mktemp("faults"))
    yield table
    table.end()
    watch.end_watches()


def is_row(item: Any) -> bool:
    return "row" in getattr(getattr(item, "callspec", None), "params", {})


def test_the_table_above_is_what_is_tested() -> None:
    assert __doc__ is not None
    assert len({row.fault for row in ROWS}) >= LEAST_FAULTS
    for line in rendered(ROWS).splitlines():
        assert f"    {line.rstrip()}\n" in __doc__


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row, table: Table) -> None:
    table.result(row)
