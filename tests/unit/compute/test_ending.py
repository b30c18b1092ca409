from __future__ import annotations

import pytest

from genai_operators.compute.ending import Disposition, Ending
from genai_operators.exceptions import (
    BadWorkload,
    DataError,
    GenaiError,
    NonFiniteLoss,
    NoProgress,
    OutOfMemory,
    StorageFull,
    UnsafeWeights,
    WorkloadFailed,
)

RESUMED = {
    "asked to stop": Ending(code=75),
    "killed, as a process sees it": Ending(code=-9),
    "killed, as a shell sees it": Ending(code=137),
    "terminated before it could catch it": Ending(code=-15),
    "terminated, as a shell sees it": Ending(code=143),
    "gone without a word": Ending(code=None),
}
FAILED: dict[str, tuple[Ending, type[GenaiError]]] = {
    "usage": (Ending(code=2), BadWorkload),
    "configuration": (Ending(code=78), BadWorkload),
    "data": (Ending(code=65), DataError),
    "loss": (Ending(code=76), NonFiniteLoss),
    "disk": (Ending(code=28), StorageFull),
    "anything else": (Ending(code=1), WorkloadFailed),
    "segmentation fault": (Ending(code=-11), WorkloadFailed),
    "killed by the kernel for its memory": (Ending(code=-9, out_of_memory=True), OutOfMemory),
    "killed in a pod for its memory": (Ending(code=137, out_of_memory=True), OutOfMemory),
    "Python ran out of memory": (Ending(code=1, error="MemoryError"), OutOfMemory),
    "CUDA ran out of memory": (Ending(code=1, error="OutOfMemoryError"), OutOfMemory),
    "it says itself": (Ending(code=65, error="UnsafeWeights", message="a pickle"), UnsafeWeights),
    "an error that is not ours": (Ending(code=1, error="RuntimeError", message="odd"), WorkloadFailed),
    "a name that is in our module but is no failure": (Ending(code=1, error="ClassVar"), WorkloadFailed),
    "given up by a driver": (Ending(code=None, error="NoProgress", message="stuck"), NoProgress),
}


@pytest.mark.parametrize("ending", RESUMED.values(), ids=RESUMED.keys())
def test_what_is_nobodys_fault_is_resumed(ending: Ending) -> None:
    assert ending.disposition is Disposition.RESUME


@pytest.mark.parametrize(("ending", "error"), FAILED.values(), ids=FAILED.keys())
def test_a_failure_is_raised_as_what_it_is(ending: Ending, error: type[GenaiError]) -> None:
    assert ending.disposition is Disposition.FAIL
    assert type(ending.failure("attempt 1")) is error


def test_zero_is_done() -> None:
    assert Ending(code=0).disposition is Disposition.DONE


def test_a_failure_says_where_and_what() -> None:
    message = str(Ending(code=1, error="RuntimeError", message="odd").failure("fine_tune abc, attempt 1"))
    assert "fine_tune abc, attempt 1" in message
    assert "odd" in message
    assert "exit code 1" in message


def test_an_unknown_signal_is_described() -> None:
    assert Ending(code=-63).describe()
    assert Ending(code=-9).describe() == "killed by SIGKILL"
