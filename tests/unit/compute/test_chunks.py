from __future__ import annotations

from pathlib import Path

import pytest

from genai_operators.compute.chunks import ChunkWriter, read_chunk
from genai_operators.exceptions import StoreUnavailable
from genai_operators.store import Store


class StoreThatFails(Store):
    """Fails the writes that a test names, before or after they arrive."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.failures: list[str] = []

    def create(self, path: str, data: bytes) -> bool:
        failure = self.failures.pop(0) if self.failures else None
        if failure == "before":
            raise StoreUnavailable("away")
        created = super().create(path, data)
        if failure == "after":
            raise StoreUnavailable("the answer was lost")
        return created


def chunks(store: Store) -> list[list[str]]:
    found: list[list[str]] = []
    while (lines := read_chunk(store, "log", len(found), "txt")) is not None:
        found.append(lines)
    return found


def test_each_flush_is_the_next_chunk(store: Store) -> None:
    writer = ChunkWriter(store=store, prefix="log", suffix="txt")
    writer.add("one")
    writer.add("two")
    writer.flush()
    writer.flush()
    writer.add("three")
    writer.flush()
    assert chunks(store) == [["one", "two"], ["three"]]


@pytest.mark.parametrize("failure", ["before", "after"])
def test_a_write_that_failed_neither_loses_nor_repeats_a_line(tmp_path: Path, failure: str) -> None:
    store = StoreThatFails(str(tmp_path / "store"))
    writer = ChunkWriter(store=store, prefix="log", suffix="txt")
    store.failures = [failure, failure]
    writer.add("one")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            writer.flush()
        writer.add("more")
    writer.flush()
    writer.flush()
    assert chunks(store) == [["one"], ["more", "more"]]


class TestReplacedWriter:
    def writer(self, store: Store) -> ChunkWriter:
        return ChunkWriter(store=store, prefix="log", suffix="txt", numbered=True)

    def test_the_next_one_goes_on_after_its_last_line(self, store: Store) -> None:
        first, second = self.writer(store), self.writer(store)
        first.add("one")
        first.add("two")
        first.flush()
        second.go_on()
        second.add("three")
        second.flush()
        assert chunks(store) == [["000001 one", "000002 two"], ["000003 three"]]

    def test_both_may_write_at_once_and_no_line_is_lost_or_numbered_twice(self, store: Store) -> None:
        first, second = self.writer(store), self.writer(store)
        first.add("one")
        first.flush()
        second.go_on()
        first.add("last words")
        second.add("two")
        first.flush()
        second.flush()
        first.add("more last words")
        first.flush()
        assert chunks(store) == [["000001 one"], ["000002 last words"], ["000003 two"], ["000004 more last words"]]

    def test_nothing_there_is_no_reason_to_begin_elsewhere(self, store: Store) -> None:
        writer = self.writer(store)
        writer.go_on()
        writer.add("one")
        writer.flush()
        assert chunks(store) == [["000001 one"]]
