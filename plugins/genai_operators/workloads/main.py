"""The process of one attempt: ``python -m genai_operators.workloads.main``.

Reads ``<GENAI_WORKLOAD_URI>/spec.json``, computes in ``GENAI_SCRATCH``, publishes ``attempts/<GENAI_ATTEMPT>/output``
with its manifest, then ``report.html``, then ``result.json``, create-only and last: the first attempt to get there
wins, and a zombie cannot change it. The supervisor starts this; by hand (or from a test) it needs only the three
variables::

    GENAI_WORKLOAD_URI=file:///store/workloads/validate/<fingerprint> GENAI_ATTEMPT=1 GENAI_SCRATCH=/tmp/scratch \\
        python -m genai_operators.workloads.main

Exit codes: 0 done, 75 stopped resumably, 78 bad workload, 65 bad data, 76 non-finite loss, 28 no space, 1 anything
else.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from genai_operators.exceptions import (
    BadWorkload,
    DataError,
    GenaiError,
    ManifestMismatch,
    NonFiniteLoss,
    ObjectNotFound,
    OutOfMemory,
    StorageFull,
    UnsafeWeights,
)
from genai_operators.store import Store, directory_manifest
from genai_operators.workloads.context import Context, InputArtifact, StoppedResumably, WorkloadOutput
from genai_operators.workloads.ranks import Rank

WorkloadFunction = Callable[[Context], WorkloadOutput]

EXIT_RESUMABLE = 75
EXIT_FAILURE = 1
EXIT_CODES: Mapping[type[GenaiError], int] = {
    BadWorkload: 78,
    DataError: 65,
    UnsafeWeights: 65,
    ManifestMismatch: 65,
    ObjectNotFound: 65,
    NonFiniteLoss: 76,
    StorageFull: 28,
}
RESULT_VERSION = 1
FULL_DISK_BYTES = 64 * 1024
#: How CUDA's libraries say that memory ran out where they raise no class of its own.
GPU_MEMORY_WORDS = ("CUDA out of memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED")

#: kind -> "module:function"; imported only when asked for, as one needs torch and another great-expectations.
KINDS: Mapping[str, str] = {
    "validate": "genai_operators.workloads.validate:validate",
    "fine_tune": "genai_operators.workloads.fine_tune:fine_tune",
    "evaluate": "genai_operators.workloads.evaluate:evaluate",
    "drift": "genai_operators.workloads.drift:drift",
}
#: A checkpoint or a result is tried for this long, as long as the supervisor's lease, when the store does not answer.
STORE_PATIENCE_S = 60.0
#: ``kind=module:function``, comma separated: workloads of your own (and of tests).
EXTRA_WORKLOADS_VARIABLE = "GENAI_EXTRA_WORKLOADS"


def main(environment: Mapping[str, str]) -> int:
    """Run one attempt; returns the exit code of the process."""
    node, rank = Path(environment["GENAI_SCRATCH"]), Rank.of(environment)
    code = run(environment, rank=rank, scratch=rank.scratch(node))
    rank.note_exit(node, code)
    return code


def run(environment: Mapping[str, str], *, rank: Rank, scratch: Path) -> int:
    """Compute; publish, unless another process speaks for all; returns the exit code."""
    started = time.monotonic()
    try:
        context, kind = open_context(environment, scratch=scratch)
        signal.signal(signal.SIGTERM, lambda *_: context.request_stop())
        output = load_kind(kind, environment)(context)
        if rank.speaks:
            publish(context, kind=kind, output=output, seconds=time.monotonic() - started)
    except StoppedResumably:
        return EXIT_RESUMABLE
    except Exception as error:  # noqa: BLE001  the edge of the process: all become an exit code and error.json
        return report_failure(error, scratch=scratch, file=rank.error_file(rank.node(scratch)))
    return 0


def open_context(environment: Mapping[str, str], *, scratch: Path) -> tuple[Context, str]:
    """:raises BadWorkload: when the specification is missing or malformed."""
    root, _, directory = environment["GENAI_WORKLOAD_URI"].rstrip("/").rpartition("/workloads/")
    store, directory = Store.open(root, patience_s=STORE_PATIENCE_S), f"workloads/{directory}"
    try:
        spec = store.get_json(f"{directory}/spec.json")
        inputs = {
            name: InputArtifact(uri=artifact["uri"], digest=artifact["digest"])
            for name, artifact in spec["inputs"].items()
        }
        kind, params = str(spec["kind"]), spec["params"]
    except (ObjectNotFound, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadWorkload(f"{store.uri_of(directory)}/spec.json is not a workload specification: {error!r}") from error
    context = Context(
        store=store,
        directory=directory,
        attempt=int(environment["GENAI_ATTEMPT"]),
        params=params,
        inputs=inputs,
        scratch=scratch,
        start=int(environment.get("GENAI_START", "0")),
        store_elsewhere=environment.get("GENAI_STORE_URI"),
    )
    return context, kind


def load_kind(kind: str, environment: Mapping[str, str]) -> WorkloadFunction:
    """The function of a kind. :raises BadWorkload: when there is none."""
    kinds = dict(KINDS)
    for item in filter(None, environment.get(EXTRA_WORKLOADS_VARIABLE, "").split(",")):
        name, separator, path = item.partition("=")
        kinds[name if separator else item.rpartition(":")[2]] = path if separator else item
    if kind not in kinds:
        raise BadWorkload(f"there is no workload kind {kind!r}; there are {', '.join(sorted(kinds))}")
    module, _, function = kinds[kind].partition(":")
    loaded: WorkloadFunction = getattr(importlib.import_module(module), function)
    return loaded


def publish(context: Context, *, kind: str, output: WorkloadOutput, seconds: float) -> None:
    """Upload the output, the report, then the result.

    A process that the platform started in the place of another has a folder of its own for its output: the other may
    live on where nobody reaches it, and just publish.
    """
    again = f"-{context.start}" if context.start else ""
    base = f"{context.directory}/attempts/{context.attempt}/output{again}"
    outputs: dict[str, dict[str, str]] = {}
    for name, folder in output.outputs.items():
        local, prefix = context.output / folder, f"{base}/{folder}".rstrip("/")
        outputs[name] = {"uri": context.uri_of(prefix), "digest": directory_manifest(local).digest}
        context.store.upload_directory(local, prefix)
    report_path = f"{context.directory}/report.html"
    if output.report is not None:
        context.store.create(report_path, output.report.html().encode())
    result: dict[str, Any] = {
        "version": RESULT_VERSION,
        "kind": kind,
        "attempt": context.attempt,
        "verdict": output.verdict.to_json() if output.verdict is not None else None,
        "outputs": outputs,
        "metrics": {**output.metrics, **gpu_memory_peaks()},
        "report_uri": context.uri_of(report_path) if output.report is not None else None,
        "seconds": round(seconds, 3),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    if not context.store.create_json(f"{context.directory}/result.json", result):
        context.log("another attempt had finished first; its result stands")
    if output.verdict is not None:
        context.log(output.verdict.render_text())


def report_failure(error: Exception, *, scratch: Path, file: Path) -> int:
    """Write ``file`` for whoever started this process, print what went wrong, and choose the exit code."""
    if _no_space_left(error, scratch):
        error = StorageFull(f"no space left on the disk that holds {scratch}; free some and run again")
    known = isinstance(error, GenaiError)
    name, message = type(error).__name__, str(error) if known else f"{type(error).__name__}: {error}"
    memory = memory_that_ran_out(error)
    if known:
        print(f"{name}: {message}", file=sys.stderr, flush=True)
    else:
        traceback.print_exception(error)
    if isinstance(error, StorageFull):
        _make_room(scratch)
    try:
        told = {"class": OutOfMemory.__name__ if memory else name, "message": message, "memory": memory}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(told), encoding="utf-8")
    except OSError as unwritable:
        print(f"cannot write {file}: {unwritable}", file=sys.stderr, flush=True)
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), EXIT_FAILURE)


def memory_that_ran_out(error: Exception) -> str | None:
    """``gpu`` or ``host``, also where a library says so in its own words; ``None`` if it was something else."""
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return "host"
    if type(error).__name__ == "OutOfMemoryError":  # of torch, which is imported only where it is used
        return "gpu"
    told = isinstance(error, RuntimeError) and any(words in str(error) for words in GPU_MEMORY_WORDS)
    return "gpu" if told else None


def gpu_memory_peaks() -> dict[str, float]:
    """Largest memory that this process had on any GPU, in bytes; empty where it used none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    devices = range(torch.cuda.device_count())
    return {
        "peak_gpu_memory_bytes": float(max(map(torch.cuda.max_memory_allocated, devices))),
        "peak_gpu_memory_reserved_bytes": float(max(map(torch.cuda.max_memory_reserved, devices))),
    }


def _make_room(scratch: Path) -> None:
    """Empty the scratch folder, which nobody needs any more, so that the reason of the failure can be written there."""
    for path in scratch.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _no_space_left(error: Exception, scratch: Path) -> bool:
    """Whether the disk is full, also where a library says so in its own words (torch: "failed writing file")."""
    if isinstance(error, GenaiError):
        return False
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "os error 28" in str(error):
        return True
    return shutil.disk_usage(scratch).free < FULL_DISK_BYTES


if __name__ == "__main__":
    sys.exit(main(os.environ))
