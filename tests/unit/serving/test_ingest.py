"""Each line of the access log reaches the store once, whatever dies and when."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genai_operators.exceptions import GatewayUnavailable, StoreUnavailable
from genai_operators.serving import batches
from genai_operators.serving.identity import hashed, salt_of
from genai_operators.serving.state import ModelState, StateDirectory
from genai_operators.serving.transfer import FEEDBACK_PATIENCE_S, Ingest
from genai_operators.store import Store
from tests.fakes.access_log import LoggingGateway, feedback_line, request_line

NOW = 2_000.0


class Killed(BaseException):
    """Stands for the death of the process."""


class DyingStore(Store):
    """Dies after a number of writes; those made stay."""

    def __init__(self, uri: str, *, writes: int) -> None:
        super().__init__(uri)
        self._left = writes

    def create(self, path: str, data: bytes) -> bool:
        if self._left == 0:
            raise Killed
        self._left -= 1
        return super().create(path, data)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "gateway"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def gateway(directory: Path) -> Iterator[LoggingGateway]:
    gateway = LoggingGateway(directory)
    yield gateway
    gateway.close()


def ingest(directory: Path, store: Store, gateway: LoggingGateway, *, now: float = NOW) -> Ingest:
    """A fresh process's ingest, run until nothing is left."""
    found = Ingest(directory=directory, store=store, admin=gateway)
    while found.step(now=now):
        pass
    return found


def records(store: Store, kind: batches.Kind, *, model: str = "demo") -> list[dict[str, Any]]:
    """Every record of a model in order; fails on a gap in the numbers."""
    found = []
    for number in itertools.count():
        batch = batches.read_batch(store, model, kind, number)
        if batch is None:
            names = store.list_names(f"traffic/{model}/{kind}")
            assert len(names) == number, names
            return found
        found += [item for item in batch if item["kind"] != "batch"]
    raise AssertionError


def request_ids(store: Store, **where: Any) -> list[str]:
    return [item["request_id"] for item in records(store, "facts", **where) if item["kind"] == "request"]


def expected(directory: Path, *names: str) -> list[str]:
    return [hashed(name, salt=salt_of(directory)) for name in names]


class TestBatches:
    def test_facts_hold_no_text_and_text_is_apart(self, directory: Path, store: Store, gateway: LoggingGateway) -> None:
        gateway.write(request_line("a"), feedback_line("a", rating="wrong", correction="better"))
        ingest(directory, store, gateway)
        facts, text = records(store, "facts"), records(store, "text")
        assert [item["kind"] for item in facts] == ["request", "feedback"]
        assert "question a" not in json.dumps(facts)
        assert "better" not in json.dumps(facts)
        assert text[0]["messages"] == [{"role": "user", "content": "question a"}]
        assert text[0]["answer"] == "answer a"

    def test_no_id_of_a_user_or_request_is_stored_as_it_was(
        self, directory: Path, store: Store, gateway: LoggingGateway, tmp_path: Path
    ) -> None:
        gateway.write(request_line("very-secret-id"), feedback_line("very-secret-id"))
        ingest(directory, store, gateway)
        stored = [path.read_bytes() for path in (tmp_path / "store").rglob("*.jsonl")]
        assert len(stored) == 2
        # The prompt of the test line repeats the id; nothing else may.
        assert all(b'"very-secret-id"' not in data for data in stored)

    def test_each_model_has_its_own_numbers(self, directory: Path, store: Store, gateway: LoggingGateway) -> None:
        gateway.write(request_line("a"), request_line("b", model="other"))
        ingest(directory, store, gateway)
        gateway.write(request_line("c"))
        ingest(directory, store, gateway)
        assert request_ids(store) == expected(directory, "a", "c")
        assert request_ids(store, model="other") == expected(directory, "b")

    def test_a_line_separator_in_a_prompt_is_no_end_of_a_line(
        self, directory: Path, store: Store, gateway: LoggingGateway
    ) -> None:
        correction = "one\u2028two\x85three"
        gateway.write(request_line("a"), feedback_line("a", rating="wrong", correction=correction))
        ingest(directory, store, gateway)
        data = store.get(batches.batch_path("demo", "text", 0)).decode()
        assert len(data.splitlines()) == 3
        assert records(store, "text")[1]["correction"] == correction

    def test_half_a_line_waits_for_its_end(self, directory: Path, store: Store, gateway: LoggingGateway) -> None:
        line = request_line("a")
        gateway.write(line[:50], end=b"")
        ingest(directory, store, gateway)
        assert store.list_names("traffic") == []
        gateway.write(line[50:])
        ingest(directory, store, gateway)
        assert request_ids(store) == expected(directory, "a")

    def test_line_behind_the_half_line_of_a_killed_gateway_is_kept(
        self, directory: Path, store: Store, gateway: LoggingGateway
    ) -> None:
        gateway.write(request_line("lost")[:80], end=b"")
        gateway.write(request_line("kept"), b"complete nonsense", request_line("also"))
        ingest(directory, store, gateway)
        assert request_ids(store) == expected(directory, "kept", "also")


class TestFeedback:
    def test_joined_across_batches_with_the_prompt_and_answer_it_judges(
        self, directory: Path, store: Store, gateway: LoggingGateway
    ) -> None:
        gateway.write(request_line("a"))
        ingest(directory, store, gateway)
        gateway.write(feedback_line("a", rating="wrong", correction="better"))
        ingest(directory, store, gateway)
        *_, judged = records(store, "text")
        assert judged["messages"] == [{"role": "user", "content": "question a"}]
        assert (judged["answer"], judged["correction"]) == ("answer a", "better")

    def test_waits_for_a_request_that_is_logged_later(
        self, directory: Path, store: Store, gateway: LoggingGateway
    ) -> None:
        gateway.write(request_line("first"), feedback_line("a", at=NOW), request_line("between"))
        ingest(directory, store, gateway, now=NOW + 1)
        assert request_ids(store) == expected(directory, "first")
        gateway.write(request_line("a"))
        ingest(directory, store, gateway, now=NOW + 2)
        assert request_ids(store) == expected(directory, "first", "between", "a")
        assert [item["kind"] for item in records(store, "facts")].count("feedback") == 1

    def test_on_an_unknown_request_is_passed_over_in_the_end(
        self, directory: Path, store: Store, gateway: LoggingGateway
    ) -> None:
        gateway.write(feedback_line("never", at=NOW), request_line("a"))
        ingest(directory, store, gateway, now=NOW + FEEDBACK_PATIENCE_S)
        assert [item["kind"] for item in records(store, "facts")] == ["request"]

    def test_still_known_when_its_text_was_deleted(
        self, directory: Path, store: Store, gateway: LoggingGateway
    ) -> None:
        gateway.write(request_line("a"))
        ingest(directory, store, gateway)
        store.delete(batches.batch_path("demo", "text", 0))
        gateway.write(feedback_line("a"))
        ingest(directory, store, gateway)
        judged = batches.read_batch(store, "demo", "text", 1)
        assert judged is not None
        assert (judged[1]["messages"], judged[1]["answer"]) == ([], None)


class TestExactlyOnce:
    @pytest.mark.parametrize("writes", range(7))
    def test_death_between_any_two_writes(
        self, writes: int, directory: Path, store: Store, gateway: LoggingGateway
    ) -> None:
        names = [f"r{k}" for k in range(6)]
        gateway.write(request_line("r0"), request_line("o0", model="other"), feedback_line("r0"))
        dying = DyingStore(store.uri, writes=writes)
        try:
            ingest(directory, dying, gateway)
            gateway.write(*(request_line(name) for name in names[1:]), request_line("o1", model="other"))
            ingest(directory, dying, gateway)
        except Killed:
            if request_ids(store) in ([], expected(directory, "r0")) and writes < 4:
                # The next process reads a log that has grown meanwhile.
                gateway.write(*(request_line(name) for name in names[1:]), request_line("o1", model="other"))
        ingest(directory, store, gateway)
        assert request_ids(store) == expected(directory, *names)
        assert request_ids(store, model="other") == expected(directory, "o0", "o1")
        for model in ("demo", "other"):
            facts, text = records(store, "facts", model=model), records(store, "text", model=model)
            assert [(f["kind"], f["request_id"]) for f in facts] == [(t["kind"], t["request_id"]) for t in text]

    def test_lost_position_file_doubles_nothing(self, directory: Path, store: Store, gateway: LoggingGateway) -> None:
        gateway.write(request_line("a"), request_line("b"))
        ingest(directory, store, gateway)
        (directory / "ingest" / "position.json").unlink()
        gateway.write(request_line("c"))
        ingest(directory, store, gateway)
        assert request_ids(store) == expected(directory, "a", "b", "c")

    def test_new_directory_on_an_old_store_loses_nothing(
        self, directory: Path, store: Store, gateway: LoggingGateway, tmp_path: Path
    ) -> None:
        gateway.write(*(request_line(f"r{k}") for k in range(20)))
        ingest(directory, store, gateway)
        other = LoggingGateway(tmp_path / "second")
        other.write(request_line("x"))
        ingest(tmp_path / "second", store, other)
        other.close()
        assert request_ids(store)[-1:] == expected(tmp_path / "second", "x")
        assert len(request_ids(store)) == 21

    def test_two_at_once_do_not_both_write_a_batch(
        self, directory: Path, store: Store, gateway: LoggingGateway
    ) -> None:
        one, two = (Ingest(directory=directory, store=store, admin=gateway) for _ in range(2))
        gateway.write(request_line("a"))
        one.step(now=NOW)
        with pytest.raises(StoreUnavailable, match="another ingest wrote batch 0 of demo"):
            two.step(now=NOW)
        ingest(directory, store, gateway)
        assert request_ids(store) == expected(directory, "a")

    @pytest.mark.slow
    def test_kill_9_again_and_again_under_load_and_rotation(
        self, directory: Path, store: Store, gateway: LoggingGateway, project_root: Path
    ) -> None:
        written: list[str] = []
        done = threading.Event()

        def write() -> None:
            while not done.is_set():
                name = f"r{len(written)}"
                gateway.write(request_line(name))
                written.append(name)
                time.sleep(0.001)

        writer = threading.Thread(target=write)
        writer.start()
        dice = random.Random(0)
        with gateway.admin_interface() as url:
            for _ in range(10):
                process = self._start(directory, store, project_root, url)
                before = len(store.list("traffic"))
                while len(store.list("traffic")) < before + 4:
                    assert process.poll() is None
                    time.sleep(0.01)
                time.sleep(dice.random() * 0.1)
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
        done.set()
        writer.join()
        ingest(directory, store, gateway)
        assert json.loads((directory / "ingest" / "position.json").read_text())["position"][0] > 5
        assert request_ids(store) == expected(directory, *written)
        assert len(records(store, "text")) == len(written)

    def _start(self, directory: Path, store: Store, root: Path, admin_url: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "genai_operators.serving.ingest", "--directory", str(directory)]
        return subprocess.Popen(
            [*command, "--store", store.uri, "--admin-url", admin_url, "--interval", "0.005", "--rotate-age", "0.02"],
            env={**os.environ, "PYTHONPATH": str(root / "plugins")},
            stderr=subprocess.DEVNULL,
        )


class TestRotation:
    def test_prompts_are_gone_from_the_log_once_ingested(
        self, directory: Path, store: Store, gateway: LoggingGateway
    ) -> None:
        gateway.write(request_line("a"))
        found = ingest(directory, store, gateway)
        found.rotate()
        while found.step(now=NOW):
            pass
        gateway.write(request_line("b"))
        while found.step(now=NOW):
            pass
        assert [path.name for path in gateway.path.parent.iterdir()] == ["access.jsonl"]
        assert gateway.path.read_bytes().startswith(request_line("b"))
        assert request_ids(store) == expected(directory, "a", "b")

    def test_lines_written_before_the_gateway_opens_the_new_file_are_kept(
        self, directory: Path, store: Store, gateway: LoggingGateway
    ) -> None:
        gateway.write(request_line("a"))
        found = ingest(directory, store, gateway)
        gateway.down = True
        with pytest.raises(GatewayUnavailable):
            found.rotate()
        gateway.write(request_line("b"))
        found = ingest(directory, store, gateway)
        assert request_ids(store) == expected(directory, "a", "b")
        gateway.down = False
        gateway.write(request_line("c"))
        found.rotate()
        gateway.write(request_line("d"))
        ingest(directory, store, gateway)
        assert request_ids(store) == expected(directory, "a", "b", "c", "d")
        assert [path.name for path in gateway.path.parent.iterdir()] == ["access.jsonl"]

    def test_death_after_a_rotation_doubles_nothing(
        self, directory: Path, store: Store, gateway: LoggingGateway
    ) -> None:
        for name in ("a", "b", "c"):
            gateway.write(request_line(name))
            ingest(directory, store, gateway).rotate()
        ingest(directory, store, gateway)
        assert request_ids(store) == expected(directory, "a", "b", "c")


class TestRetention:
    def test_old_text_goes_and_facts_stay(self, directory: Path, store: Store, gateway: LoggingGateway) -> None:
        StateDirectory(directory).write(ModelState(model="demo", retention_s=3600.0))
        gateway.write(request_line("a"), request_line("b", model="other"))
        found = ingest(directory, store, gateway)
        found.delete_old_text(now=time.time() + 3500)
        assert len(records(store, "text")) == 1
        found.delete_old_text(now=time.time() + 3700)
        assert records(store, "text") == []
        assert request_ids(store) == expected(directory, "a")
        assert len(records(store, "text", model="other")) == 1

    def test_salt_is_readable_by_its_owner_only_and_stays(self, directory: Path) -> None:
        salt = salt_of(directory)
        assert (directory / "salt").stat().st_mode & 0o777 == 0o600
        assert salt_of(directory) == salt
        assert len(salt) == 32


class TestProgram:
    def test_second_one_on_a_directory_refuses(self, directory: Path, store: Store, project_root: Path) -> None:
        gateway = LoggingGateway(directory)
        gateway.close()
        command = [sys.executable, "-m", "genai_operators.serving.ingest", "--directory", str(directory)]
        command += ["--store", store.uri, "--admin-url", "http://127.0.0.1:1"]
        environment = {**os.environ, "PYTHONPATH": str(project_root / "plugins")}
        first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            assert first.stderr is not None
            assert "Ingesting" in first.stderr.readline()
            second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
            assert second.returncode == 1
            assert "Another ingest works on" in second.stderr
        finally:
            first.terminate()
            assert first.wait(timeout=60) == 0
            first.stderr.close()
