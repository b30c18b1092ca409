"""Claimed attempts at the checkpointing workload, without a driver."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

from genai_operators.compute import attempts
from genai_operators.compute.contract import Attempt, Probe, Workload
from genai_operators.compute.escalation import Ask
from genai_operators.compute.kubernetes.backend import KubernetesCompute
from genai_operators.compute.resources import GIB, Resources
from genai_operators.store import Store
from tests.fakes import checkpointing
from tests.fakes.kubernetes.fixture import is_real, real_store

PATIENCE_S = 60.0
RUN = secrets.token_hex(4)


def store_in(folder: Path) -> Store:
    """A store that the pods reach, one for each folder of this process."""
    return Store.open(f"{real_store()}/{RUN}{folder}" if is_real() else folder.as_uri())


def claimed(folder: Path, *, name: str = "one", resources: Resources | None = None, **params: Any) -> Attempt:
    """Attempt 1 at a workload of a fiftieth of a second a step. On a real cluster a folder is one of its store."""
    store = store_in(folder)
    witness = "/scratch/witness" if is_real() else str(folder / f"witness-{name}")
    told = {"steps": 5, "step_s": 0.02, "witness": witness, "name": name, "place": f"{RUN}{folder}", **params}
    workload = Workload(kind=checkpointing.KIND, params=told)
    store.create_json(f"{workload.directory}/spec.json", workload.to_json())
    attempt = attempts.claim(
        store,
        workload.directory,
        number=1,
        backend={"target": "kubernetes"},
        owner=None,
        step=-1,
        stalls=0,
        ask=Ask(resources or Resources(cpu=0.1, memory_bytes=GIB)),
    )
    assert attempt is not None
    return attempt


def probe_until(backend: KubernetesCompute, attempt: Attempt, *phases: str, every_s: float = 0.1) -> list[Probe]:
    """Probe until a phase (or a reason) is among ``phases``; all probes whose phase or reason was news."""
    seen: list[Probe] = []
    deadline = time.monotonic() + PATIENCE_S
    while True:
        probe = backend.probe(attempt)
        if not seen or (probe.phase, probe.reason) != (seen[-1].phase, seen[-1].reason):
            seen.append(probe)
        if probe.phase.value in phases or probe.reason in phases:
            return seen
        assert time.monotonic() < deadline, f"waited for {phases}, saw {seen}"
        time.sleep(every_s)
