"""The process of an attempt: what it publishes, in which order, and how it ends."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from genai_operators.compute.contract import Workload
from genai_operators.decisions.verdict import Check, Outcome, Verdict
from genai_operators.exceptions import DataError, NonFiniteLoss, StorageFull, UnsafeWeights
from genai_operators.report import Page
from genai_operators.store import Store
from genai_operators.workloads.context import Context, StoppedResumably, WorkloadOutput
from genai_operators.workloads.main import main, memory_that_ran_out

EXTRA = {"GENAI_EXTRA_WORKLOADS": "copy=tests.unit.workloads.test_main:copy"}


def copy(context: Context) -> WorkloadOutput:
    """Writes its parameter ``text``, or fails as it is told."""
    what = context.params.get("raise")
    if what is not None:
        raise {
            "data": DataError("rows.csv, line 3: bad"),
            "loss": NonFiniteLoss("the loss became nan"),
            "pickle": UnsafeWeights("weights.bin is a pickle"),
            "full": StorageFull("no space"),
            "disk": OSError(errno.ENOSPC, "No space left on device", "/some/file"),
            "library": RuntimeError("I/O error: No space left on device (os error 28)"),
            "stop": StoppedResumably(),
            "bug": RuntimeError("boom"),
        }[what]
    (context.output / "words").mkdir()
    (context.output / "words" / "a.txt").write_text(context.params["text"])
    verdict = Verdict.of("copying", [Check(name="copied", outcome=Outcome.PASS)])
    return WorkloadOutput(verdict=verdict, outputs={"words": "words"}, metrics={"n": 1.0}, report=Page("Copied"))


class Attempt:
    """One workload; :meth:`run` runs an attempt of it in this process."""

    def __init__(self, tmp_path: Path, **params: Any) -> None:
        self.store = Store.open(tmp_path / "store")
        self.workload = Workload(kind="copy", params=params)
        self.store.create_json(f"{self.workload.directory}/spec.json", self.workload.to_json())
        self.tmp_path = tmp_path

    def run(self, attempt: int = 1, **environment: str) -> int:
        scratch = self.tmp_path / f"scratch-{attempt}"
        scratch.mkdir()
        return main(
            {
                "GENAI_WORKLOAD_URI": self.store.uri_of(self.workload.directory),
                "GENAI_ATTEMPT": str(attempt),
                "GENAI_SCRATCH": str(scratch),
                **EXTRA,
                **environment,
            }
        )

    def error(self, attempt: int = 1) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.tmp_path / f"scratch-{attempt}" / "error.json").read_text())
        return found


class TestPublishing:
    def test_the_result_names_its_outputs_as_those_who_wait_call_the_store(self, tmp_path: Path) -> None:
        attempt = Attempt(tmp_path, text="hello")
        assert attempt.run(GENAI_STORE_URI="s3://bucket/store") == 0
        result = attempt.store.get_json(f"{attempt.workload.directory}/result.json")
        uris = [result["report_uri"], *(output["uri"] for output in result["outputs"].values())]
        assert all(uri.startswith("s3://bucket/store/workloads/copy/") for uri in uris)

    def test_output_report_and_result_are_in_the_store(self, tmp_path: Path) -> None:
        attempt = Attempt(tmp_path, text="hello")
        assert attempt.run() == 0
        base = attempt.workload.directory
        result = attempt.store.get_json(f"{base}/result.json")
        manifest = attempt.store.read_manifest(f"{base}/attempts/1/output/words")
        assert manifest is not None
        assert result["outputs"]["words"] == {
            "uri": attempt.store.uri_of(f"{base}/attempts/1/output/words"),
            "digest": manifest.digest,
        }
        assert result["attempt"] == 1
        assert result["metrics"] == {"n": 1.0}
        assert Verdict.from_json(result["verdict"]).outcome is Outcome.PASS
        assert b"Copied" in attempt.store.get(f"{base}/report.html")

    def test_a_replacement_leaves_what_the_process_before_it_has_published(self, tmp_path: Path) -> None:
        attempt = Attempt(tmp_path, text="hello")
        prefix = f"{attempt.workload.directory}/attempts/1"
        attempt.store.put(f"{prefix}/output/words/a.txt", b"of a zombie that is about to write its result")
        before = attempt.store.get(f"{prefix}/output/words/a.txt")
        assert attempt.run(GENAI_START="2") == 0
        assert attempt.store.get(f"{prefix}/output/words/a.txt") == before
        result = attempt.store.get_json(f"{attempt.workload.directory}/result.json")
        assert result["outputs"]["words"]["uri"] == attempt.store.uri_of(f"{prefix}/output-2/words")

    def test_the_first_result_stands(self, tmp_path: Path) -> None:
        attempt = Attempt(tmp_path, text="hello")
        assert attempt.run(2) == 0
        before = attempt.store.get(f"{attempt.workload.directory}/result.json")
        assert attempt.run(1) == 0
        assert attempt.store.get(f"{attempt.workload.directory}/result.json") == before


@pytest.mark.parametrize(
    ("what", "code", "name"),
    [
        ("data", 65, "DataError"),
        ("pickle", 65, "UnsafeWeights"),
        ("loss", 76, "NonFiniteLoss"),
        ("full", 28, "StorageFull"),
        ("disk", 28, "StorageFull"),
        ("library", 28, "StorageFull"),
        ("bug", 1, "RuntimeError"),
    ],
)
def test_a_failure_leaves_its_class_and_message_and_no_result(tmp_path: Path, what: str, code: int, name: str) -> None:
    attempt = Attempt(tmp_path, **{"raise": what})
    assert attempt.run() == code
    assert attempt.error()["class"] == name
    assert attempt.error()["message"]
    assert not attempt.store.exists(f"{attempt.workload.directory}/result.json")


def test_a_resumable_stop_is_no_failure(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, **{"raise": "stop"})
    assert attempt.run() == 75
    assert not (tmp_path / "scratch-1" / "error.json").exists()


def test_an_unknown_kind_is_named_with_the_known_ones(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, text="x")
    assert attempt.run(GENAI_EXTRA_WORKLOADS="") == 78
    assert "'copy'" in attempt.error()["message"]
    assert "fine_tune" in attempt.error()["message"]


def test_a_missing_specification_is_a_bad_workload(tmp_path: Path) -> None:
    attempt = Attempt(tmp_path, text="x")
    attempt.store.delete(f"{attempt.workload.directory}/spec.json")
    assert attempt.run() == 78
    assert "spec.json" in attempt.error()["message"]


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), "host"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), "host"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), "gpu"),
        (RuntimeError("CUDA error: out of memory"), "gpu"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "gpu"),
        (RuntimeError("CUDA error: device-side assert triggered"), None),
        (DataError("a row about CUDA error: out of memory"), None),
    ],
)
def test_which_memory_ran_out_is_known(error: Exception, memory: str | None) -> None:
    assert memory_that_ran_out(error) == memory
