"""The probe of an object store: fit stores pass, careless ones are found out."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from genai_operators.compute.store_probe import WRITERS, main, probe
from genai_operators.exceptions import ConfigurationError
from genai_operators.store import Store


class CarelessStore(Store):
    """Looks whether an object exists, then writes it: what some S3-compatible servers did with ``If-None-Match: *``."""

    def create(self, path: str, data: bytes) -> bool:
        if "race" not in path:
            return super().create(path, data)
        free = not self.exists(path)
        _together.wait(timeout=30)
        self.put(path, data)
        return free


_together = threading.Barrier(WRITERS)


class ForgetfulStore(Store):
    """Says that it wrote."""

    def get(self, path: str) -> bytes:
        return b""


def test_a_folder_is_fit_and_keeps_only_what_was_asked_for(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    probe(store, "check/one")
    assert [info.path for info in store.list("check")] == ["check/one"]


def test_a_store_that_lets_several_win_is_named(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    careless = CarelessStore(store.uri)
    with pytest.raises(ConfigurationError, match=f"{WRITERS} of {WRITERS} writers created"):
        probe(careless, "check/one")
    assert [info.path for info in store.list("check")] == ["check/one"]


def test_a_store_that_forgets_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="something else than was just written"):
        probe(ForgetfulStore(Store.open(tmp_path).uri), "check/one")


def test_an_object_that_exists_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.open(tmp_path)
    store.put("check/one", b"precious")
    assert main(["--store", store.uri, "--path", "check/one"]) == 78
    assert "exists already" in capsys.readouterr().err
    assert store.get("check/one") == b"precious"


def test_the_command_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", tmp_path.as_uri(), "--path", "check/one"]) == 0
    assert f"1 of {WRITERS} writers won" in capsys.readouterr().out
