"""Captured traffic read back: what teaches, and what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genai_operators.exceptions import DataError
from genai_operators.serving.batches import batch_path, encode
from genai_operators.store import Store
from genai_operators.workloads.traffic import TrafficWindow, read_feedback, read_requests


def request(identity: str, text: str, *, status: int = 200, answer: str | None = "an answer") -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"kind": "request", "request_id": identity, "status": status, "messages": messages, "answer": answer}


def feedback(
    identity: str, text: str, rating: str, *, correction: str | None = None, answer: str | None = "mine"
) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {
        "kind": "feedback",
        "request_id": identity,
        "rating": rating,
        "correction": correction,
        "messages": messages,
        "answer": answer,
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def put(store: Store, number: int, *records: dict[str, Any]) -> None:
    store.put(batch_path("m", "text", number), encode([{"kind": "batch"}, *records]))


class TestFeedback:
    def test_right_keeps_the_answer_and_a_correction_replaces_it(self, store: Store) -> None:
        put(store, 0, feedback("a", "one", "right"), feedback("b", "two", "wrong", correction="better"))
        judged = read_feedback(store, "m", TrafficWindow(first=0, last=0), limit=10)
        assert [(j.record.question, j.record.answer, j.corrected) for j in judged] == [
            ("one", "mine", False),
            ("two", "better", True),
        ]
        assert {j.record.source for j in judged} == {"feedback"}

    def test_wrong_without_a_correction_teaches_nothing(self, store: Store) -> None:
        put(store, 0, feedback("a", "one", "wrong"), feedback("b", "two", "right", answer=None))
        assert read_feedback(store, "m", TrafficWindow(first=0, last=0), limit=10) == []

    def test_the_last_judgement_of_a_request_counts(self, store: Store) -> None:
        put(store, 0, feedback("a", "one", "right"), feedback("b", "two", "right"))
        put(store, 1, feedback("a", "one", "wrong", correction="c"), feedback("b", "two", "wrong"))
        judged = read_feedback(store, "m", TrafficWindow(first=0, last=1), limit=10)
        assert [(j.record.id, j.record.answer) for j in judged] == [("feedback-a", "c")]

    def test_the_newest_are_taken_and_deleted_batches_passed_over(self, store: Store) -> None:
        for number in (0, 1, 3):
            put(store, number, *[feedback(f"{number}-{k}", f"q {number} {k}", "right") for k in range(3)])
        judged = read_feedback(store, "m", TrafficWindow(first=0, last=4), limit=4)
        assert [j.record.id for j in judged] == ["feedback-1-2", "feedback-3-0", "feedback-3-1", "feedback-3-2"]


class TestRequests:
    def test_only_answered_ones_with_text(self, store: Store) -> None:
        image = {**request("c", ""), "messages": [{"role": "user", "content": [{"type": "image"}]}]}
        put(store, 0, request("a", "one"), request("b", "two", status=500), image, {**request("d", ""), "messages": []})
        put(store, 1, request("e", "three", answer=None))
        found = read_requests(store, "m", TrafficWindow(first=0, last=1))
        assert [record.question for record in found] == ["one", "three"]

    def test_a_damaged_batch_is_named(self, store: Store) -> None:
        store.put(batch_path("m", "text", 0), b'{"kind": "batch"}\n{"kind": "req')
        with pytest.raises(DataError, match=r"0000000000\.jsonl, line 2"):
            read_requests(store, "m", TrafficWindow(first=0, last=0))
