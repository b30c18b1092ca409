"""The model registry: versions in MLflow as plain directories, each with manifest, signature and card.

A version exists for us only when its tag ``genai.complete`` is ``true``, which is set last, after every uploaded file
was read back. Registering the same model again finds the version by its digest, so a retry never makes a second one.
The alias ``champion`` is a cache of the ledger; nothing here reads it to decide.
"""

from __future__ import annotations

import logging
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genai_operators.exceptions import ManifestMismatch, RegistryUnavailable, SignatureInvalid, UnsafeWeights
from genai_operators.hooks.mlflow_rest import NOT_FOUND, MlflowRest, RegistryError
from genai_operators.release.verification import (
    CARD_NAME,
    MODEL_FOLDER,
    SIGNATURE_NAME,
    VerifiedModel,
    place_package,
    read_manifest,
    refuse_unsafe,
    verify_package,
)
from genai_operators.store import MANIFEST_NAME, sha256_file

CHAMPION_ALIAS = "champion"
DIGEST_TAG = "genai.digest"
COMPLETE_TAG = "genai.complete"
#: Read back byte for byte after an upload; the sizes of all other files are compared.
PROOFS = (f"{MODEL_FOLDER}/{MANIFEST_NAME}", SIGNATURE_NAME, CARD_NAME)
MAXIMUM_TAG_CHARACTERS = 5_000
_SHA256 = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """One version of a registered model.

    :param source: where MLflow keeps its files.
    :param tags: all tags; ours start with ``genai.``.
    """

    model: str
    version: int
    digest: str
    source: str
    complete: bool
    tags: Mapping[str, str] = field(default_factory=dict)
    logged_model: str | None = None

    @classmethod
    def from_rest(cls, record: Mapping[str, Any]) -> RegisteredVersion:
        """From MLflow's ``model_version`` record."""
        tags = {tag["key"]: tag.get("value", "") for tag in record.get("tags", [])}
        return cls(
            model=record["name"],
            version=int(record["version"]),
            digest=tags.get(DIGEST_TAG, ""),
            source=record.get("source", ""),
            complete=tags.get(COMPLETE_TAG) == "true",
            tags=tags,
            logged_model=record.get("model_id") or None,
        )


class ModelRegistry:
    """Versions of models in one MLflow server."""

    def __init__(self, uri: str) -> None:
        """:param uri: base URL of the MLflow server."""
        self.rest = MlflowRest(uri)

    def register(
        self, model: str, package: Path, *, tags: Mapping[str, str], metrics: Mapping[str, float]
    ) -> RegisteredVersion:
        """Make a version of a verified package, or find the one there is.

        Safe to repeat and to race: what a crash left behind is taken up again, and of two versions made at once for the
        same digest the lower number stays.

        :param package: folder with ``model/``, ``model.sig`` and ``README.md``.
        :param tags: searchable facts of the version, e.g. dataset digest, fingerprint, verdict.
        :param metrics: figures of the evaluation, shown by MLflow.
        :raises RegistryUnavailable: MLflow does not answer; the version is not marked complete.
        :raises UnsafeWeights: checked once more before anything is uploaded.
        """
        refuse_unsafe(package / MODEL_FOLDER)
        digest = read_manifest(package / MODEL_FOLDER).digest
        self.rest.ensure("/registered-models/create", {"name": model})
        found = self.find(model, digest)
        if found is None or not found.complete:
            found = self._upload(found or self._create(model, digest, metrics), package)
        self.tag(model, found.version, tags)
        return self.get(model, found.version)

    def find(self, model: str, digest: str) -> RegisteredVersion | None:
        """The version of a digest: the complete one, else the lowest; ``None`` if there is none."""
        versions = sorted(self._search(model, DIGEST_TAG, digest), key=lambda v: (not v.complete, v.version))
        return versions[0] if versions else None

    def get(self, model: str, version: int) -> RegisteredVersion:
        """:raises RegistryError: with code ``RESOURCE_DOES_NOT_EXIST`` when there is no such version."""
        record = self.rest.get("/model-versions/get", name=model, version=str(version))
        return RegisteredVersion.from_rest(record["model_version"])

    def versions(self, model: str) -> list[RegisteredVersion]:
        """Every complete version, oldest first."""
        return sorted(self._search(model, COMPLETE_TAG, "true"), key=lambda version: version.version)

    def tag(self, model: str, version: int, tags: Mapping[str, str]) -> None:
        """Set tags of a version; others stay."""
        for key, value in tags.items():
            body = {"name": model, "version": str(version), "key": key, "value": value[:MAXIMUM_TAG_CHARACTERS]}
            self.rest.set("/model-versions/set-tag", body)

    def fetch(self, model: str, version: int, *, cache: Path, trusted_keys: Path, digest: str = "") -> VerifiedModel:
        """The verified files of a version on this machine, downloaded once for each digest.

        A download that does not verify is not kept, so a retry after the version was mended downloads it again.

        :param cache: folder of packages by digest; shared between processes.
        :param digest: what the ledger or the candidate says it must be; the version's own tag if not given.
        :raises ManifestMismatch: files are gone, damaged or of another model.
        :raises SignatureInvalid: not signed by a trusted key.
        """
        registered = self.get(model, version)
        digest = digest or registered.digest
        if not _SHA256.fullmatch(digest):  # it becomes the name of a folder, and whoever reaches MLflow can set tags
            raise ManifestMismatch(f"{model} v{version}: {DIGEST_TAG} is {digest!r}, no sha256; register it again")
        package = cache / digest
        downloaded = not package.exists()
        if downloaded:
            self._download(registered, package)
        try:
            return verify_package(package, trusted_keys=trusted_keys, digest=digest)
        except (ManifestMismatch, SignatureInvalid, UnsafeWeights) as error:
            if downloaded:
                shutil.rmtree(package, ignore_errors=True)
            raise type(error)(f"{model} v{version}: {error}") from error

    # --- the alias, a cache of the ledger ----------------------------------------------------------------------

    def champion(self, model: str) -> int | None:
        """Where the alias points at present."""
        found = self.rest.find(
            "/registered-models/alias",
            missing=(NOT_FOUND, "INVALID_PARAMETER_VALUE"),
            name=model,
            alias=CHAMPION_ALIAS,
        )
        return int(found["model_version"]["version"]) if found else None

    def set_champion(self, model: str, version: int) -> bool:
        """Point the alias at what the ledger says; ``True`` if it moved."""
        if self.champion(model) == version:
            return False
        body = {"name": model, "alias": CHAMPION_ALIAS, "version": str(version)}
        self.rest.post("/registered-models/alias", body)
        return True

    # --- making a version --------------------------------------------------------------------------------------

    def _create(self, model: str, digest: str, metrics: Mapping[str, float]) -> RegisteredVersion:
        experiment = self._experiment(model)
        run = self._run(experiment, model, digest, metrics)
        logged = self.rest.post(
            "/logged-models",
            {
                "experiment_id": experiment,
                "name": model,
                "model_type": "huggingface_directory",
                "source_run_id": run,
                "tags": [{"key": DIGEST_TAG, "value": digest}],
            },
        )["model"]["info"]
        created = self.rest.post(
            "/model-versions/create",
            {
                "name": model,
                "source": logged["artifact_uri"],
                "model_id": logged["model_id"],
                "run_id": run,
                "tags": [{"key": DIGEST_TAG, "value": digest}, {"key": COMPLETE_TAG, "value": "false"}],
            },
        )["model_version"]
        mine = RegisteredVersion.from_rest(created)
        first = self.find(model, digest)
        if first is not None and first.version != mine.version:
            self._drop(mine)
            return first
        return mine

    def _experiment(self, model: str) -> str:
        for _ in range(2):
            found = self.rest.find("/experiments/get-by-name", experiment_name=model)
            if found:
                return str(found["experiment"]["experiment_id"])
            created = self.rest.ensure("/experiments/create", {"name": model})
            if created:
                return str(created["experiment_id"])
        raise RegistryUnavailable(f"MLflow at {self.rest.uri}: experiment {model} exists but is not found; try again")

    def _run(self, experiment: str, model: str, digest: str, metrics: Mapping[str, float]) -> str:
        query = {"experiment_ids": [experiment], "filter": f"tags.`{DIGEST_TAG}` = '{digest}'", "max_results": 1}
        if runs := self.rest.post("/runs/search", query).get("runs"):
            return str(runs[0]["info"]["run_id"])
        now = int(time.time() * 1000)
        tags = [{"key": DIGEST_TAG, "value": digest}]
        body = {"experiment_id": experiment, "run_name": f"{model} {digest[:12]}", "start_time": now, "tags": tags}
        run = str(self.rest.post("/runs/create", body)["run"]["info"]["run_id"])
        points = [{"key": key, "value": value, "timestamp": now, "step": 0} for key, value in sorted(metrics.items())]
        self.rest.post("/runs/log-batch", {"run_id": run, "metrics": points})
        self.rest.post("/runs/update", {"run_id": run, "status": "FINISHED", "end_time": now})
        return run

    def _drop(self, version: RegisteredVersion) -> None:
        log.info("%s v%s was made twice at once; the higher number is removed", version.model, version.version)
        self.rest.delete("/model-versions/delete", {"name": version.model, "version": str(version.version)})
        if version.logged_model:
            self.rest.delete(f"/logged-models/{version.logged_model}", {"model_id": version.logged_model})

    def _upload(self, version: RegisteredVersion, package: Path) -> RegisteredVersion:
        root = self.rest.artifact_root(version.source)
        names = _files(package)
        for name in names:
            self.rest.upload(root, name, package / name)
        self._read_back(version, package, names)
        if version.logged_model:
            body = {"model_id": version.logged_model, "status": "LOGGED_MODEL_READY"}
            self.rest.patch(f"/logged-models/{version.logged_model}", body)
        self.tag(version.model, version.version, {COMPLETE_TAG: "true"})
        return self.get(version.model, version.version)

    def _read_back(self, version: RegisteredVersion, package: Path, names: Iterable[str]) -> None:
        root = self.rest.artifact_root(version.source)
        stored = self.rest.list_files(root)
        where = f"{version.model} v{version.version} in MLflow at {self.rest.uri}"
        for name in names:
            size = (package / name).stat().st_size
            if stored.get(name) != size:
                raise RegistryUnavailable(
                    f"{where}: {name} has {stored.get(name, 'no')} bytes after the upload, expected {size}. "
                    "The version stays incomplete and unused; a retry uploads it again."
                )
        with tempfile.TemporaryDirectory() as folder:
            for name in PROOFS:
                copy = Path(folder) / Path(name).name
                self.rest.download(root, name, copy)
                if sha256_file(copy) != sha256_file(package / name):
                    raise RegistryUnavailable(f"{where}: {name} differs after the upload; a retry uploads it again.")

    def _download(self, version: RegisteredVersion, package: Path) -> None:
        root = self.rest.artifact_root(version.source)
        partial = package.with_name(f".{package.name}.{secrets.token_hex(4)}")
        try:
            for name in self.rest.list_files(root):
                self.rest.download(root, name, partial / _inside(name))
            partial.mkdir(parents=True, exist_ok=True)
            read_manifest(partial / MODEL_FOLDER)
            place_package(partial, package)
        except RegistryError as error:
            raise ManifestMismatch(f"{version.model} v{version.version}: {error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _search(self, model: str, tag: str, value: str) -> list[RegisteredVersion]:
        found: list[RegisteredVersion] = []
        token = ""
        while True:
            page = self.rest.get(
                "/model-versions/search",
                filter=f"name = '{model}' and tags.`{tag}` = '{value}'",
                max_results="1000",
                **({"page_token": token} if token else {}),
            )
            found += [RegisteredVersion.from_rest(record) for record in page.get("model_versions", [])]
            token = page.get("next_page_token", "")
            if not token:
                return found


def _files(package: Path) -> list[str]:
    return sorted(path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file())


def _inside(name: str) -> str:
    if name.startswith("/") or ".." in Path(name).parts:
        raise ManifestMismatch(f"the registry lists {name!r}, a path outside of its version; do not use it")
    return name
