"""Is an attempt proved ended? Records, then the backend's word, then silence; never one of them against another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from genai_operators.compute import attempts
from genai_operators.compute.backends import BackendOf
from genai_operators.compute.contract import GONE, UNREACHABLE, Attempt, Probe
from genai_operators.compute.ending import Disposition, Ending
from genai_operators.exceptions import WorkloadFailed

#: The backend says gone; only when the heartbeat has not moved for this long either is the attempt taken for dead.
STALE_AFTER_S = 6.0
#: The backend says gone, but did not see it end: by then a supervisor that lives on has ended its child, as its lease
#: of 60 s ran out, and the last write, which is tried for some seconds.
VANISHED_AFTER_S = 90.0
#: Nobody can look where it runs: its supervisor ends it after a lease of 60 s, so this long is proof enough.
LOST_AFTER_S = 300.0


class Liveness:
    """Looks at the attempts of one workload. Keeps only when it last saw a heartbeat change."""

    def __init__(self, backend_of: BackendOf, *, monotonic: Callable[[], float]) -> None:
        self._backend_of = backend_of
        self._monotonic = monotonic
        self._seen: tuple[int, int, float] = (0, -1, 0.0)  # attempt, beat, when it was first seen
        #: The heartbeat of the attempt that was looked at last; empty before its first.
        self.heartbeat: Mapping[str, Any] = {}
        #: For how long it has not changed, in seconds by this process's clock: those of other machines may differ.
        self.silent_s = 0.0

    def look(self, attempt: Attempt) -> Probe | Ending:
        """Its end if that is proved, else what the backend knows."""
        records = self._read(attempt)
        if records.ending is not None and not self._may_go_on(attempt, records.ending):
            return records.ending
        probe = self._backend_of(attempt).probe(attempt)
        if records.ending is not None:  # of one process; the platform may be about to begin the next
            return self._judge(attempt, probe) if probe.phase in GONE else probe
        gone = probe.phase in GONE and self.silent_s >= (STALE_AFTER_S if probe.vouched else VANISHED_AFTER_S)
        if gone or (probe.reason == UNREACHABLE and self.silent_s >= LOST_AFTER_S):
            return self._judge(attempt, probe)
        return probe

    def _may_go_on(self, attempt: Attempt, ending: Ending) -> bool:
        return ending.disposition is Disposition.RESUME and self._backend_of(attempt).restarts

    def _judge(self, attempt: Attempt, probe: Probe) -> Ending:
        """It is gone. It may have written its last words between the two looks; else the platform's are all there is.

        What the platform says of an end that can be resumed (it was preempted, its node died) changes nothing; what it
        says of one that cannot (memory, the image) is the reason.
        """
        told = self._told(attempt, probe)
        written = self._read(attempt).ending
        if written is None:
            return told
        resumable = written.disposition is Disposition.RESUME and not written.cancelled
        return told if resumable and told.disposition is Disposition.FAIL else written

    def _told(self, attempt: Attempt, probe: Probe) -> Ending:
        """How it ended by the platform's word; by another node's own where the platform has none, or only a code."""
        cancelled = attempts.is_cancelled(attempt)
        told = Ending(
            code=None,
            error=probe.error,
            message=probe.detail if probe.error else f"{probe.detail or 'it is gone'}, and its heartbeat stopped",
            cancelled=cancelled,
            memory="host" if probe.error == "OutOfMemory" else None,
        )
        if told.disposition is Disposition.RESUME or told.error == WorkloadFailed.__name__:
            other = attempts.error_of_another_node(attempt) if attempt.resources.nodes > 1 else None
            return told if other is None else replace(other, cancelled=cancelled)
        return told

    def _read(self, attempt: Attempt) -> attempts.Records:
        records = attempts.read_records(attempt)
        self.heartbeat = records.heartbeat or {}
        beat = int(self.heartbeat.get("beat", -1))
        number, last_beat, since = self._seen
        if (number, last_beat) != (attempt.number, beat) or since == 0.0:
            since = self._monotonic()
            self._seen = (attempt.number, beat, since)
        self.silent_s = self._monotonic() - since
        return records
