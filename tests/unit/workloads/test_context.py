"""Inputs that are what they claim to be, and checkpoints that are whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from genai_operators.compute.contract import Artifact
from genai_operators.exceptions import BadWorkload, ManifestMismatch, ObjectNotFound
from genai_operators.store import Store, directory_manifest
from genai_operators.workloads.context import Context, InputArtifact
from tests.fakes.workload_process import context_of, file_input


class TestInputs:
    def test_a_file_keeps_its_name(self, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").write_text("text\na\n")
        context = context_of(tmp_path, params={}, inputs={"train_0": file_input(tmp_path / "rows.csv")})
        assert context.fetch("train_0").name == "rows.csv"
        assert context.fetch("train_0").read_text() == "text\na\n"

    def test_a_file_that_changed_since_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").write_text("text\na\n")
        context = context_of(tmp_path, params={}, inputs={"train_0": file_input(tmp_path / "rows.csv")})
        (tmp_path / "rows.csv").write_text("text\nb\n")
        with pytest.raises(ManifestMismatch, match=r"train_0.*rows\.csv changed"):
            context.fetch("train_0")

    def test_a_directory_of_ours_is_verified(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("{}")
        store = Store.open(tmp_path / "store")
        manifest = store.upload_directory(tmp_path / "model", "models/m")
        artifact = Artifact(uri=store.uri_of("models/m"), digest=manifest.digest)
        assert (context_of(tmp_path, params={}, inputs={"m": artifact}).fetch("m") / "config.json").exists()
        store.put("models/m/config.json", b"{ }")
        with pytest.raises(ManifestMismatch, match=r"config\.json"):
            context_of(tmp_path, params={}, inputs={"m": artifact}, attempt=2).fetch("m")

    def test_a_directory_of_somebody_else_is_verified_by_its_files(self, tmp_path: Path) -> None:
        (tmp_path / "base" / "sub").mkdir(parents=True)
        (tmp_path / "base" / "sub" / "a.json").write_text("{}")
        digest = directory_manifest(tmp_path / "base").digest
        artifact = Artifact(uri=(tmp_path / "base").as_uri(), digest=digest)
        assert (context_of(tmp_path, params={}, inputs={"base": artifact}).fetch("base") / "sub" / "a.json").exists()
        (tmp_path / "base" / "sub" / "a.json").write_text("{ }")
        with pytest.raises(ManifestMismatch, match="changed"):
            context_of(tmp_path, params={}, inputs={"base": artifact}, attempt=2).fetch("base")

    def test_what_is_missing_is_named(self, tmp_path: Path) -> None:
        gone = Artifact(uri=(tmp_path / "nowhere").as_uri(), digest="0")
        context = context_of(tmp_path, params={}, inputs={"base": gone})
        with pytest.raises(ObjectNotFound, match="nowhere"):
            context.fetch("base")
        with pytest.raises(BadWorkload, match="no input 'dataset'"):
            context.fetch("dataset")


class TestInAPod:
    """The controller's files and the controller's name of the store mean nothing there."""

    def test_what_lies_on_another_host_is_read_from_its_copy_in_the_store(self, tmp_path: Path) -> None:
        rows = tmp_path / "rows.csv"
        rows.write_text("text\na\n")
        there = Artifact(uri="file:///another/host/rows.csv", digest=file_input(rows).digest)
        Store.open(tmp_path / "store").create(f"inputs/{there.digest}/rows.csv", rows.read_bytes())
        fetched = context_of(tmp_path, params={}, inputs={"train_0": there}).fetch("train_0")
        assert (fetched.name, fetched.read_text()) == ("rows.csv", "text\na\n")

    def test_a_copy_that_is_not_what_it_claims_to_be_is_refused(self, tmp_path: Path) -> None:
        there = Artifact(uri="file:///another/host/rows.csv", digest="d")
        Store.open(tmp_path / "store").create("inputs/d/rows.csv", b"something else")
        with pytest.raises(ManifestMismatch):
            context_of(tmp_path, params={}, inputs={"train_0": there}).fetch("train_0")

    def test_the_store_may_be_called_something_else_by_those_who_wait(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("{}")
        store, theirs = Store.open(tmp_path / "store"), "s3://bucket/store"
        manifest = store.upload_directory(tmp_path / "model", "models/m")
        context = Context(
            store=store,
            directory="workloads/test/fingerprint",
            attempt=1,
            params={},
            inputs={"m": InputArtifact(uri=f"{theirs}/models/m", digest=manifest.digest)},
            scratch=tmp_path / "scratch",
            store_elsewhere=theirs,
        )
        assert (context.fetch("m") / "config.json").exists()
        assert context.uri_of("models/m") == f"{theirs}/models/m"


def save(context: Context, step: int) -> None:
    folder = context.scratch / f"made-{step}"
    folder.mkdir()
    (folder / "weights").write_text(f"weights of step {step}")
    context.checkpoints.save(step, folder)


class TestCheckpoints:
    def test_none_at_the_beginning(self, tmp_path: Path) -> None:
        assert context_of(tmp_path, params={}).checkpoints.newest_valid() is None

    def test_the_newest_of_all_attempts(self, tmp_path: Path) -> None:
        save(context_of(tmp_path, params={}, attempt=1), 30)
        second = context_of(tmp_path, params={}, attempt=2)
        save(second, 20)
        found = context_of(tmp_path, params={}, attempt=3).checkpoints.newest_valid()
        assert found is not None
        assert found[0] == 30
        assert (found[1] / "weights").read_text() == "weights of step 30"

    def test_steps_are_numbers_not_words(self, tmp_path: Path) -> None:
        context = context_of(tmp_path, params={})
        save(context, 9)
        save(context, 100)
        found = context.checkpoints.newest_valid()
        assert found is not None
        assert found[0] == 100

    @pytest.mark.parametrize("damage", ["truncated", "file missing", "no manifest", "half deleted"])
    def test_a_damaged_newest_one_is_passed_over(self, tmp_path: Path, damage: str) -> None:
        context = context_of(tmp_path, params={})
        save(context, 10)
        save(context, 20)
        prefix = f"{context.directory}/attempts/1/checkpoints/20"
        if damage == "truncated":
            context.store.put(f"{prefix}/weights", b"weights of")
        elif damage == "file missing":
            context.store.delete(f"{prefix}/weights")
        elif damage == "no manifest":
            context.store.delete(f"{prefix}/MANIFEST.json")
        else:
            context.store.put(f"{prefix}/MANIFEST.json", b'{"version": 1, "files": {')
        found = context_of(tmp_path, params={}, attempt=2).checkpoints.newest_valid()
        assert found is not None
        assert found[0] == 10

    def test_two_are_kept(self, tmp_path: Path) -> None:
        context = context_of(tmp_path, params={})
        for step in (10, 20, 30):
            save(context, step)
        left = context.store.list(f"{context.directory}/attempts/1/checkpoints")
        assert {info.path.split("/")[-2] for info in left} == {"20", "30"}
