"""What a DAG author may pass for an artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from genai_operators.exceptions import ConfigurationError, DataError
from genai_operators.operators.references import artifact_of, directory_artifact, file_artifact
from genai_operators.store import Store, directory_manifest, sha256_file

REFERENCE = {"outputs": {"dataset": {"uri": "file:///a", "digest": "d"}}, "verdict": "pass"}


class TestArtifacts:
    @pytest.mark.parametrize(
        "value",
        [REFERENCE, REFERENCE["outputs"]["dataset"], json.dumps(REFERENCE)],  # type: ignore[index]
    )
    def test_a_whole_return_value_an_output_or_its_json(self, value: Any) -> None:
        artifact = artifact_of(value, name="dataset", output="dataset")
        assert (artifact.uri, artifact.digest) == ("file:///a", "d")

    def test_a_uri_takes_its_digest_from_the_manifest(self, tmp_path: Path) -> None:
        (tmp_path / "files").mkdir()
        (tmp_path / "files" / "a").write_text("a")
        store = Store.open(tmp_path / "store")
        manifest = store.upload_directory(tmp_path / "files", "x/y")
        assert artifact_of(store.uri_of("x/y"), name="dataset", output="dataset").digest == manifest.digest

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ("{'uri': 'file:///a'}", "tojson"),
            ({"uri": "file:///a"}, "uri and digest"),
            ({"outputs": {"other": {}}}, "'dataset'"),
            (None, "uri and digest"),
        ],
    )
    def test_anything_else_is_explained(self, value: Any, said: str) -> None:
        with pytest.raises(ConfigurationError, match=said):
            artifact_of(value, name="dataset", output="dataset")


class TestFiles:
    def test_a_path_counts_from_the_root(self, tmp_path: Path) -> None:
        (tmp_path / "rows.csv").write_text("text\n")
        artifact = file_artifact("rows.csv", root=tmp_path, field="data.train")
        assert artifact.uri == (tmp_path / "rows.csv").as_uri()
        assert artifact.digest == sha256_file(tmp_path / "rows.csv")

    def test_a_missing_file_is_named_with_the_field(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"data\.train: no/rows\.csv does not exist \(looked at .*Put the file"):
            file_artifact("no/rows.csv", root=tmp_path, field="data.train")
        assert not (tmp_path / "no").exists()

    def test_a_directory_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="is a directory"):
            file_artifact(str(tmp_path), root=tmp_path, field="data.train")


class TestDirectories:
    def test_a_folder_without_a_manifest_is_hashed(self, tmp_path: Path) -> None:
        (tmp_path / "base").mkdir()
        (tmp_path / "base" / "config.json").write_text("{}")
        artifact = directory_artifact("base", name="base_model", root=tmp_path)
        assert artifact.digest == directory_manifest(tmp_path / "base").digest

    def test_what_is_not_there_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="not a directory"):
            directory_artifact("nowhere", name="base_model", root=tmp_path)
