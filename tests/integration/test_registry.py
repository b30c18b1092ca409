"""The registry against a real MLflow server."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from genai_operators.exceptions import ManifestMismatch, RegistryUnavailable, SignatureInvalid, UnsafeWeights
from genai_operators.hooks.mlflow_rest import RegistryError
from genai_operators.hooks.registry import COMPLETE_TAG, DIGEST_TAG, ModelRegistry
from genai_operators.release.verification import CARD_NAME, MODEL_FOLDER, read_manifest
from tests.fakes.packages import Keys, make_keys, make_package
from tests.fakes.ports import free_port

pytestmark = pytest.mark.slow

TAGS = {"genai.dataset": "d" * 64, "genai.evaluation": "pass"}
METRICS = {"exact_match.new": 0.9}


@pytest.fixture
def registry(mlflow_uri: str) -> ModelRegistry:
    return ModelRegistry(mlflow_uri)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path / "keys")


@pytest.fixture
def package(tmp_path: Path, keys: Keys) -> Path:
    return make_package(tmp_path / "package", keys=keys)


@pytest.fixture
def model(numbers=itertools.count(1)) -> str:  # noqa: B008 - one counter for all tests is the point
    return f"bot_{next(numbers)}"


def register(registry: ModelRegistry, model: str, package: Path):
    return registry.register(model, package, tags=TAGS, metrics=METRICS)


class TestRegister:
    def test_version_has_files_tags_and_a_finished_run_with_the_figures(self, registry, model, package):
        version = register(registry, model, package)
        assert (version.version, version.complete) == (1, True)
        assert version.tags["genai.dataset"] == TAGS["genai.dataset"]
        assert version.digest == read_manifest(package / MODEL_FOLDER).digest
        files = registry.rest.list_files(registry.rest.artifact_root(version.source))
        assert {CARD_NAME, "model.sig", "model/MANIFEST.json", "model/tokenizer/tokenizer.json"} < set(files)
        found = registry.rest.get("/model-versions/get", name=model, version="1")["model_version"]
        run = registry.rest.get("/runs/get", run_id=found["run_id"])["run"]
        assert run["info"]["status"] == "FINISHED"
        assert {m["key"]: m["value"] for m in run["data"]["metrics"]} == METRICS

    def test_again_it_is_the_same_version(self, registry, model, package):
        assert register(registry, model, package).version == register(registry, model, package).version == 1
        assert len(registry.versions(model)) == 1

    def test_another_model_is_another_version(self, registry, model, package, keys, tmp_path):
        register(registry, model, package)
        assert register(registry, model, make_package(tmp_path / "b", keys=keys, content="second")).version == 2

    def test_racing_registrations_leave_one_version(self, registry, model, package):
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda: found.append(register(registry, model, package).version)) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 3
        assert len(set(found)) == 1
        assert [version.version for version in registry.versions(model)] == [found[0]]

    def test_first_writers_of_the_same_tags_at_the_same_moment_all_succeed(self, registry, model, package):
        version = register(registry, model, package).version
        tags = [{f"genai.racing_{number}": str(number)} for number in range(10)]
        with ThreadPoolExecutor(max_workers=8) as racers:
            racing = [racers.submit(registry.tag, model, version, each) for each in tags for _ in range(8)]
            assert [race.result() for race in racing] == [None] * len(racing)
        found = registry.get(model, version).tags
        assert all(found[name] == value for each in tags for name, value in each.items())

    def test_a_crash_during_the_upload_is_not_a_version_and_is_finished_by_the_next_try(self, registry, model, package):
        class DiesUploading(type(registry.rest)):
            def upload(self, root, name, file):
                if name == "model/model.safetensors":
                    raise KeyboardInterrupt
                super().upload(root, name, file)

        dying = ModelRegistry(registry.rest.uri)
        dying.rest = DiesUploading(registry.rest.uri)
        with pytest.raises(KeyboardInterrupt):
            register(dying, model, package)
        assert registry.versions(model) == []
        assert registry.get(model, 1).tags[COMPLETE_TAG] == "false"
        assert register(registry, model, package).version == 1
        assert len(registry.versions(model)) == 1

    def test_a_file_lost_on_the_way_is_noticed_and_the_version_stays_incomplete(self, registry, model, package):
        class Loses(type(registry.rest)):
            def upload(self, root, name, file):
                if name != "model/config.json":
                    super().upload(root, name, file)

        losing = ModelRegistry(registry.rest.uri)
        losing.rest = Loses(registry.rest.uri)
        with pytest.raises(RegistryUnavailable, match=r"model/config\.json has no bytes after the upload"):
            register(losing, model, package)
        assert registry.versions(model) == []

    def test_a_pickle_is_refused_before_anything_is_made(self, registry, model, package):
        (package / MODEL_FOLDER / "pytorch_model.bin").write_bytes(b"\x80\x04")
        with pytest.raises(UnsafeWeights):
            register(registry, model, package)
        with pytest.raises(RegistryError):
            registry.get(model, 1)


class TestServerDown:
    def test_is_a_clear_retryable_error(self, model, package):
        registry = ModelRegistry(f"http://127.0.0.1:{free_port()}")
        with pytest.raises(RegistryUnavailable, match=r"does not answer .* genai_mlflow") as caught:
            register(registry, model, package)
        assert caught.value.retry_helps


class TestFetch:
    def fetch(self, registry, model, tmp_path, keys, **more):
        return registry.fetch(model, 1, cache=tmp_path / "cache", trusted_keys=keys.trusted_keys, **more)

    def test_gives_the_verified_files_once_downloaded(self, registry, model, package, keys, tmp_path):
        register(registry, model, package)
        verified = self.fetch(registry, model, tmp_path, keys)
        names = sorted(path.name for path in verified.directory.rglob("*") if path.is_file())
        assert names == ["MANIFEST.json", "config.json", "model.safetensors", "tokenizer.json"]
        before = verified.directory.stat().st_ino
        assert self.fetch(registry, model, tmp_path, keys).directory.stat().st_ino == before

    def test_collected_artifacts_are_not_served_as_an_empty_model(
        self, registry, model, package, keys, tmp_path, mlflow_uri
    ):
        version = register(registry, model, package)
        registry.rest.delete(f"/logged-models/{version.logged_model}", {}) if version.logged_model else None
        root = registry.rest.artifact_root(version.source)
        registry.rest._request("DELETE", f"/api/2.0/mlflow-artifacts/artifacts/{root}")
        with pytest.raises(ManifestMismatch, match="mlflow gc"):
            self.fetch(registry, model, tmp_path, keys)
        assert not list((tmp_path / "cache").glob("*"))

    def test_another_digest_than_the_ledger_names_is_refused(self, registry, model, package, keys, tmp_path):
        register(registry, model, package)
        with pytest.raises(ManifestMismatch, match="another model than was asked for"):
            self.fetch(registry, model, tmp_path, keys, digest="0" * 64)

    def test_a_stranger_s_signature_is_refused(self, registry, model, tmp_path, keys):
        strangers = make_keys(tmp_path / "strangers")
        register(registry, model, make_package(tmp_path / "theirs", keys=strangers))
        with pytest.raises(SignatureInvalid, match=f"^{model} v1: "):
            self.fetch(registry, model, tmp_path, keys)
        assert not list((tmp_path / "cache").glob("*")), "it would be found again once the version is mended"


class TestAlias:
    def test_follows_and_says_whether_it_moved(self, registry, model, package):
        version = register(registry, model, package).version
        assert registry.champion(model) is None
        assert registry.set_champion(model, version) is True
        assert registry.set_champion(model, version) is False
        assert registry.champion(model) == version

    def test_lookup_by_digest(self, registry, model, package):
        version = register(registry, model, package)
        assert registry.find(model, version.digest).version == version.version
        assert registry.find(model, "0" * 64) is None
        assert version.tags[DIGEST_TAG] == version.digest
