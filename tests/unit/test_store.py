"""The object store: create-only writes, manifests, and errors that name the object."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from genai_operators.exceptions import ManifestMismatch, ObjectNotFound, StorageFull, StoreUnavailable
from genai_operators.store import Manifest, Store, canonical_json, directory_manifest, locate, verify_directory

RACERS = 8
ROUNDS = 20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "a store")


@pytest.fixture(scope="module")
def s3_store() -> Iterator[Store]:
    """moto's S3 in this process: the real wire protocol, no cloud."""
    import boto3
    import obstore.store
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    client.create_bucket(Bucket="models")
    backend = obstore.store.S3Store(
        "models",
        prefix="genai",
        endpoint=endpoint,
        region="us-east-1",
        access_key_id="test",
        secret_access_key="test",
        client_options={"allow_http": True},
    )
    yield Store("s3://models/genai", backend=backend)
    server.stop()


def race(uri: str, name: str, racer: int, barrier: object, wins: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    if Store.open(uri).create(name, str(racer).encode()):
        wins.append(racer)  # type: ignore[attr-defined]


class TestCreate:
    def test_the_second_writer_is_told_and_the_first_object_stands(self, store: Store) -> None:
        assert store.create("ledger/1.json", b"first")
        assert not store.create("ledger/1.json", b"second")
        assert store.get("ledger/1.json") == b"first"

    def test_one_of_several_racing_processes_wins_each_round(self, store: Store) -> None:
        context = multiprocessing.get_context(
            "spawn"
        )  # a fork of a process that used obstore hangs: its threads are gone
        with context.Manager() as manager:
            for number in range(3):
                barrier, wins = manager.Barrier(RACERS), manager.list()
                racers = [
                    context.Process(target=race, args=(store.uri, f"round/{number}", racer, barrier, wins))
                    for racer in range(RACERS)
                ]
                for process in racers:
                    process.start()
                for process in racers:
                    process.join()
                assert len(wins) == 1
                assert store.get(f"round/{number}") == str(wins[0]).encode()

    def test_one_of_several_racing_threads_wins_on_s3(self, s3_store: Store) -> None:
        for number in range(ROUNDS):
            wins: list[int] = []
            barrier = threading.Barrier(RACERS)

            def attempt(racer: int, number: int = number, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                if s3_store.create(f"round/{number}", str(racer).encode()):
                    wins.append(racer)  # noqa: B023  read after the threads of this round ended

            threads = [threading.Thread(target=attempt, args=(racer,)) for racer in range(RACERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len(wins) == 1
            assert s3_store.get(f"round/{number}") == str(wins[0]).encode()


class TestAnAnswerThatIsCutOff:
    """obstore repeats what got no answer, but not what got the beginning of one."""

    @pytest.fixture
    def s3(self) -> Iterator[tuple[Any, list[str]]]:
        """The backend of an S3 that breaks off the answer to its first request to delete; what it was asked."""
        import obstore.store

        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                asked.append(self.path)
                answer = b"<DeleteResult><Deleted><Key>old</Key></Deleted></DeleteResult>"
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer[:10] if len(asked) == 1 else answer)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Quiet."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield (
                obstore.store.S3Store(
                    "models",
                    endpoint=f"http://127.0.0.1:{server.server_port}",
                    region="us-east-1",
                    skip_signature=True,
                    client_options={"allow_http": True},
                ),
                asked,
            )
            server.shutdown()

    def test_whoever_is_patient_asks_again(self, s3: tuple[Any, list[str]]) -> None:
        backend, asked = s3
        Store("s3://models", backend=backend, patience_s=60).delete("old")
        assert len(asked) == 2

    def test_whoever_is_not_is_told(self, s3: tuple[Any, list[str]]) -> None:
        with pytest.raises(StoreUnavailable, match="models/old"):
            Store("s3://models", backend=s3[0]).delete("old")


class TestObjects:
    @pytest.fixture(params=["folder", "s3"])
    def any_store(self, request: pytest.FixtureRequest) -> Store:
        return request.getfixturevalue({"folder": "store", "s3": "s3_store"}[request.param])

    def test_what_was_put_is_read_listed_and_deleted(self, any_store: Store) -> None:
        any_store.put("objects/b", b"2")
        any_store.put("objects/a", b"1")
        any_store.put("objects-other/c", b"3")
        assert [info.path for info in any_store.list("objects")] == ["objects/a", "objects/b"]
        assert any_store.list_names("objects") == ["a", "b"]
        any_store.put("objects/a", b"11")
        assert any_store.get("objects/a") == b"11"
        any_store.delete("objects/a")
        any_store.delete("objects/a")
        assert not any_store.exists("objects/a")
        assert any_store.exists("objects/b")

    def test_a_missing_object_is_named(self, any_store: Store) -> None:
        with pytest.raises(ObjectNotFound, match="nothing/here"):
            any_store.get("nothing/here")
        assert any_store.find_json("nothing/here") is None

    def test_a_directory_goes_up_and_comes_down_verified(self, any_store: Store, tmp_path: Path) -> None:
        source = make_directory(tmp_path / "model")
        manifest = any_store.upload_directory(source, "models/1")
        assert any_store.download_directory("models/1", tmp_path / "copy") == manifest
        assert (tmp_path / "copy" / "weights" / "part").read_bytes() == b"\x00\x01"
        assert directory_manifest(tmp_path / "copy").digest == manifest.digest

    def test_a_full_disk_says_so(self, tmp_path: Path) -> None:
        full = Path("/dev/full")
        if not full.exists():
            pytest.skip("no /dev/full on this system")
        from genai_operators.store import _Translated

        with (
            pytest.raises(StorageFull, match="no space left writing file:///x"),
            _Translated("file:///x"),
            full.open("wb", buffering=0) as file,
        ):
            file.write(b"x")

    def test_an_unreachable_store_says_a_retry_helps(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        store = Store.open(tmp_path / "folder")
        (tmp_path / "folder" / "file").write_bytes(b"")
        with pytest.raises(StoreUnavailable, match="folder/file/below") as caught:
            store.put("file/below", b"x")
        assert caught.value.retry_helps

    def test_a_uri_leads_back_to_its_object(self, store: Store) -> None:
        store.put("a/b.json", b"1")
        parent, name = locate(store.uri_of("a/b.json"))
        assert parent.get(name) == b"1"
        assert store.path_of(store.uri_of("a/b.json")) == "a/b.json"
        with pytest.raises(ValueError, match="not in the store"):
            store.path_of("file:///elsewhere/x")


class TestManifest:
    def test_an_upload_that_died_before_its_manifest_does_not_exist(self, store: Store, tmp_path: Path) -> None:
        store.upload_directory(make_directory(tmp_path / "model"), "models/1")
        store.delete("models/1/MANIFEST.json")
        assert store.read_manifest("models/1") is None
        with pytest.raises(ObjectNotFound, match="never completely written"):
            store.download_directory("models/1", tmp_path / "copy")

    @pytest.mark.parametrize("damage", [b"\x00\x02", b""])
    def test_a_changed_file_is_named(self, store: Store, tmp_path: Path, damage: bytes) -> None:
        store.upload_directory(make_directory(tmp_path / "model"), "models/1")
        store.put("models/1/weights/part", damage)
        with pytest.raises(ManifestMismatch, match="weights/part"):
            store.download_directory("models/1", tmp_path / "copy")

    def test_a_missing_and_an_extra_file_are_named(self, tmp_path: Path) -> None:
        directory = make_directory(tmp_path / "model")
        manifest = directory_manifest(directory)
        (directory / "stowaway").write_bytes(b"x")
        with pytest.raises(ManifestMismatch, match="stowaway is not in the manifest"):
            verify_directory(directory, manifest)
        (directory / "stowaway").unlink()
        (directory / "config.json").unlink()
        with pytest.raises(ManifestMismatch, match=r"config\.json is missing"):
            verify_directory(directory, manifest)

    def test_a_manifest_cannot_write_outside_its_directory(self, store: Store, tmp_path: Path) -> None:
        record = {"version": 1, "files": {"../escape": {"size": 1, "sha256": "0" * 64}}}
        store.put_json("models/1/MANIFEST.json", record)
        with pytest.raises(ManifestMismatch, match="outside its directory"):
            store.download_directory("models/1", tmp_path / "copy")

    def test_another_version_is_refused(self) -> None:
        with pytest.raises(ManifestMismatch, match="version 9"):
            Manifest.from_json({"version": 9, "files": {}})
        with pytest.raises(ManifestMismatch, match="not a manifest"):
            Manifest.from_json({"files": {}})


def test_canonical_json_does_not_depend_on_order_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": "ü"}) == canonical_json({"a": "ü", "b": 1}) == '{"a":"ü","b":1}'.encode()
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json({"a": float("nan")})


def make_directory(path: Path) -> Path:
    (path / "weights").mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "weights" / "part").write_bytes(b"\x00\x01")
    return path
