"""How an attempt ended, judged from its exit code *and* the reason it left behind, never from the code alone."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from genai_operators import exceptions
from genai_operators.exceptions import (
    BadWorkload,
    DataError,
    GenaiError,
    NonFiniteLoss,
    OutOfMemory,
    StorageFull,
    WorkloadFailed,
)

EXIT_RESUMABLE = 75  # EX_TEMPFAIL of sysexits.h: stopped after a checkpoint, run me again
EXIT_ERRORS: Mapping[int, type[GenaiError]] = {
    2: BadWorkload,
    78: BadWorkload,
    65: DataError,
    76: NonFiniteLoss,
    28: StorageFull,
}
#: Somebody ended the process from outside. Without a sign of memory shortage the work itself is not to blame.
EXTERNAL_SIGNALS = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
#: Names under which Python and torch say that memory ran out.
MEMORY_ERRORS = frozenset({"MemoryError", "OutOfMemoryError", "OutOfMemory"})
#: The machine went away; the work itself is not to blame.
TAKEN_AWAY = frozenset({"Preempted", "NodeLost"})


class Disposition(StrEnum):
    """What to do after an attempt ended."""

    DONE = "done"
    RESUME = "resume"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The end of an attempt.

    :param code: exit code; negative is minus the signal, 128 + signal means the same; ``None`` when nobody saw it end.
    :param error: class of the error that it reported itself.
    :param message: what it said, or its last lines.
    :param out_of_memory: the kernel or the platform vouches that memory ran out.
    :param cancelled: somebody had asked it to stop.
    :param memory: which memory ran out, ``host`` or ``gpu``, where the workload or the platform said so.
    """

    code: int | None
    error: str | None = None
    message: str = ""
    out_of_memory: bool = False
    cancelled: bool = False
    memory: str | None = None

    @classmethod
    def from_json(cls, record: Mapping[str, Any], *, cancelled: bool = False) -> Ending:
        """From ``exit.json`` or from a heartbeat that says it is the last."""
        return cls(
            code=record.get("code"),
            error=record.get("error"),
            message=record.get("message", ""),
            out_of_memory=bool(record.get("out_of_memory", False)),
            cancelled=cancelled,
            memory=record.get("memory"),
        )

    @property
    def signal(self) -> int | None:
        """The signal that ended it, if one did."""
        if self.code is None or 0 <= self.code <= 128:
            return None
        return -self.code if self.code < 0 else self.code - 128

    @property
    def disposition(self) -> Disposition:
        """Done, resume from the newest valid checkpoint, or fail."""
        if self.code == 0:
            return Disposition.DONE
        if self.error in TAKEN_AWAY:
            return Disposition.RESUME
        if self.out_of_memory or self.error is not None:
            return Disposition.FAIL
        if self.code is None or self.code == EXIT_RESUMABLE or self.signal in EXTERNAL_SIGNALS:
            return Disposition.RESUME
        return Disposition.FAIL

    @property
    def memory_that_ran_out(self) -> str | None:
        """``gpu`` or ``host``; ``None`` if neither did."""
        if self.memory is not None:
            return self.memory
        return "host" if self.out_of_memory or self.error in MEMORY_ERRORS else None

    def describe(self) -> str:
        """In a few words, for the log."""
        if self.code is None:
            told = self.message or "its process is gone without a word"
            return f"{self.error}: {told}" if self.error else told
        if self.code == EXIT_RESUMABLE:
            return "stopped as asked, after a checkpoint" if self.cancelled else "stopped, can be resumed"
        if self.signal is not None:
            memory = ", out of memory" if self.out_of_memory else ""
            return f"killed by {_signal_name(self.signal)}{memory}"
        return f"exit code {self.code}" + (f", {self.error}" if self.error else "")

    def failure(self, where: str) -> GenaiError:
        """The error to raise for it. :param where: which attempt, and where its log lies."""
        if (memory := self.memory_that_ran_out) is not None:
            told = self.message or "the process was killed for its memory"
            return OutOfMemory(
                f"{where}: out of {memory} memory: {told}. Use a smaller batch or a machine with more memory."
            )
        told = self.message or self.describe()
        kind = error_class(self.error)
        if kind is not None and self.code is None:
            return kind(told)  # written by a driver that gave it up: it says where itself
        kind = kind or EXIT_ERRORS.get(self.code or 0, WorkloadFailed)
        suffix = f" ({self.describe()})" if kind is WorkloadFailed else ""
        return kind(f"{where}: {told}{suffix}")


def error_class(name: str | None) -> type[GenaiError] | None:
    """One of our failures by its name; ``None`` for any other name."""
    found = getattr(exceptions, name, None) if name else None
    return found if isinstance(found, type) and issubclass(found, GenaiError) else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
