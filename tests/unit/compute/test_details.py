from __future__ import annotations

import time

import pytest

from genai_operators.compute import attempts
from genai_operators.compute.contract import Workload
from genai_operators.compute.details import details_page
from genai_operators.compute.escalation import Ask
from genai_operators.compute.resources import GIB, Resources, Usage
from genai_operators.exceptions import ObjectNotFound
from genai_operators.store import Store

WORKLOAD = Workload(kind="fine_tune", params={"seed": 1})
DIRECTORY = WORKLOAD.directory
MACHINE = Resources(gpu="h100", gpu_count=2, memory_bytes=32 * GIB, price_per_hour=8.0, currency="USD")


@pytest.fixture
def store_of_a_run(store: Store) -> Store:
    """Attempt 1 ran out of GPU memory; attempt 2 was taken away once and runs."""
    store.create_json(f"{DIRECTORY}/spec.json", WORKLOAD.to_json())
    backend = {"target": "kubernetes", "namespace": "genai", "queue": "research"}
    for number in (1, 2):
        attempt = attempts.claim(
            store, DIRECTORY, number=number, backend=backend, owner=None, step=-1, stalls=0, ask=Ask(MACHINE)
        )
        assert attempt is not None
        store.create_json(attempt.path("started.json"), {"process": {"pid": 1}, "at": time.time()})
        usage = Usage(
            pod=f"pod-{number}", node="node-7", machine="p5", gpu="h100", gpu_count=2, seconds=1800, price_per_hour=8.0
        )
        store.put_json(attempt.path(f"usage/{usage.pod}.json"), usage.to_json())
    first, second = (attempts.find_attempt(store, DIRECTORY, number) for number in (1, 2))
    store.create_json(first.path("exit.json"), {"code": 1, "error": "OutOfMemory", "memory": "gpu", "message": "full"})
    store.create_json(second.path("starts/1.json"), {"incarnation": "x", "step": 10, "stalls": 0})
    progress = {"step": 12, "total": 90, "batch": 8}
    store.put_json(
        second.path("heartbeat.json"), {"beat": 3, "ended": False, "progress": progress, "gpu": {"gpu_use": 0.9}}
    )
    store.create(second.path("log/000000.txt"), b"000001 <first>\n")
    store.create(second.path("log/000001.txt"), b"000002 second\n")
    return store


def test_shows_what_one_would_gather_from_the_cluster(store_of_a_run: Store) -> None:
    html = details_page(store_of_a_run, DIRECTORY).html()
    for text in (
        "It has no result yet; nobody waits for it; spent 8.00 USD for 2.00 GPU-hours, 2 pods.",
        "kubernetes genai research",
        "2 x h100, 32 GiB, 8.00 USD/h",
        "OutOfMemory",
        "running",
        "step 12 of 90 (13 %), GPU 90 %",
        "node-7",
        " so far",
        "&lt;first&gt;",
        "second",
    ):
        assert text in html, text
    assert "batch" not in html


def test_shows_why_it_was_asked_to_stop(store_of_a_run: Store) -> None:
    attempts.request_cancel(attempts.find_attempt(store_of_a_run, DIRECTORY, 2), reason="its budget is spent")
    assert "asked to stop: its budget is spent" in details_page(store_of_a_run, DIRECTORY).html()


def test_a_workload_before_its_first_attempt_has_one_too(store: Store) -> None:
    store.create_json(f"{DIRECTORY}/spec.json", WORKLOAD.to_json())
    assert "has no result yet" in details_page(store, DIRECTORY).html()


def test_what_does_not_exist_has_none(store: Store) -> None:
    with pytest.raises(ObjectNotFound):
        details_page(store, DIRECTORY)
