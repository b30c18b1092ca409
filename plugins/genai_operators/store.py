"""The object store: everything durable that is not Airflow's or MLflow's.

One small interface over obstore, so that a folder, S3, GCS and Azure behave alike. ``create`` is the only primitive
that concurrency rests on: it writes an object that must not exist yet, and exactly one of several racers succeeds.
Nothing else opens files in the store behind its back.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from genai_operators.exceptions import ManifestMismatch, ObjectNotFound, StorageFull, StoreUnavailable

MANIFEST_NAME = "MANIFEST.json"
MANIFEST_VERSION = 1
#: Where somebody is patient, his patience is the limit, not this.
MOST_RETRIES = 1000
#: Between two tries of a request whose answer was cut off.
CUT_OFF_PAUSE_S = 0.5
HASH_BLOCK_BYTES = 1 << 20

Answer = TypeVar("Answer")


def canonical_json(value: Any) -> bytes:
    """The one byte string of a JSON value: sorted keys, no spaces, UTF-8, no NaN. Digests are taken of this."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_bytes(data: bytes) -> str:
    """Hex digest of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a local file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object. ``path`` is relative to the store, ``size`` in bytes."""

    path: str
    size: int
    last_modified: datetime


@dataclass(frozen=True)
class ManifestFile:
    """Size in bytes and sha256 of one file of a directory."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a directory holds. Written last, so a directory without one does not exist."""

    files: dict[str, ManifestFile]
    version: int = MANIFEST_VERSION

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON of the manifest: the identity of the whole directory."""
        return sha256_bytes(canonical_json(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        files = {name: {"size": f.size, "sha256": f.sha256} for name, f in sorted(self.files.items())}
        return {"version": self.version, "files": files}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Manifest:
        """:raises ManifestMismatch: when the record is not a manifest of this version."""
        try:
            if record["version"] != MANIFEST_VERSION:
                raise ManifestMismatch(f"manifest version {record['version']!r}, this code reads {MANIFEST_VERSION}")
            files = {name: ManifestFile(size=f["size"], sha256=f["sha256"]) for name, f in record["files"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise ManifestMismatch(f"not a manifest: {error!r}") from error
        return cls(files=files)


def directory_manifest(directory: Path) -> Manifest:
    """Manifest of a local directory, its own ``MANIFEST.json`` left out."""
    files = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        name = path.relative_to(directory).as_posix()
        if name != MANIFEST_NAME:
            files[name] = ManifestFile(size=path.stat().st_size, sha256=sha256_file(path))
    return Manifest(files=files)


def verify_directory(directory: Path, manifest: Manifest, *, where: str = "") -> None:
    """:raises ManifestMismatch: naming the first file that is missing, extra or changed."""
    found = directory_manifest(directory)
    where = where or str(directory)
    for name, expected in manifest.files.items():
        if name not in found.files:
            raise ManifestMismatch(f"{where}: {name} is missing. Restore it, or produce the directory again.")
        if found.files[name] != expected:
            raise ManifestMismatch(
                f"{where}: {name} does not match its manifest (sha256 {found.files[name].sha256[:12]}, "
                f"expected {expected.sha256[:12]}). The copy is damaged or was changed; do not use it."
            )
    if extra := sorted(set(found.files) - set(manifest.files)):
        raise ManifestMismatch(f"{where}: {extra[0]} is not in the manifest. Somebody added it; do not use the copy.")


class Store:
    """A place of objects, addressed by relative paths with ``/``. Cheap to make; safe to use from threads."""

    def __init__(self, uri: str, *, backend: Any = None, patience_s: float | None = None) -> None:
        """Name a store.

        :param uri: ``file:///folder``, ``s3://bucket/prefix``, ``gs://...``, ``az://...``; or a local path.
        :param backend: an obstore store with credentials or an endpoint of its own, instead of what ``uri`` implies.
        :param patience_s: how long each request is tried when nobody answers; ``None``: some seconds.
        """
        self.uri = (Path(uri).expanduser().resolve().as_uri() if "://" not in uri else uri).rstrip("/")
        self._backend = backend if backend is not None else _backend(self.uri, patience_s)
        self._patience_s = 0.0 if local_path(self.uri) else patience_s or 0.0

    @classmethod
    def open(cls, uri: str | Path, *, patience_s: float | None = None) -> Store:
        """Open a store by URI or local path; the folder is made if needed. For ``patience_s`` see the constructor."""
        return cls(str(uri), patience_s=patience_s)

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    # --- objects -----------------------------------------------------------------------------------------------

    def put(self, path: str, data: bytes) -> None:
        """Write or replace an object, atomically."""
        import obstore

        self._repeatable(path, lambda: obstore.put(self._backend, path, data))

    def create(self, path: str, data: bytes) -> bool:
        """Write an object that must not exist. ``False`` if it does: somebody else was first and theirs stands."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            with _Translated(self.uri_of(path)):
                obstore.put(self._backend, path, data, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def get(self, path: str) -> bytes:
        """:raises ObjectNotFound: when there is none."""
        import obstore

        return self._repeatable(path, lambda: bytes(obstore.get(self._backend, path).bytes()))

    def put_json(self, path: str, value: Any) -> None:
        """:meth:`put` of canonical JSON."""
        self.put(path, canonical_json(value))

    def create_json(self, path: str, value: Any) -> bool:
        """:meth:`create` of canonical JSON."""
        return self.create(path, canonical_json(value))

    def get_json(self, path: str) -> Any:
        """:raises ObjectNotFound: when there is none."""
        return json.loads(self.get(path))

    def find_json(self, path: str) -> Any | None:
        """Like :meth:`get_json`, ``None`` when there is no such object."""
        try:
            return self.get_json(path)
        except ObjectNotFound:
            return None

    def exists(self, path: str) -> bool:
        """Whether the object is there."""
        import obstore

        try:
            self._repeatable(path, lambda: obstore.head(self._backend, path))
        except ObjectNotFound:
            return False
        return True

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Every object below a folder ``prefix``, sorted by path. ``a/b`` does not list ``a/bc``."""
        import obstore

        def read() -> list[ObjectInfo]:
            return [
                ObjectInfo(path=item["path"], size=item["size"], last_modified=item["last_modified"])
                for batch in obstore.list(self._backend, prefix or None)
                for item in batch
            ]

        return sorted(self._repeatable(prefix, read), key=lambda info: info.path)

    def list_names(self, prefix: str) -> Sequence[str]:
        """Names directly below a folder, folders and objects alike, sorted. One level, so cheap in a deep store."""
        import obstore

        level = self._repeatable(prefix, lambda: obstore.list_with_delimiter(self._backend, prefix or None))
        paths = [*level["common_prefixes"], *(item["path"] for item in level["objects"])]
        return sorted(PurePosixPath(path).name for path in paths)

    def delete(self, path: str) -> None:
        """Remove an object; none there is fine."""
        import obstore

        try:
            self._repeatable(path, lambda: obstore.delete(self._backend, path))
        except ObjectNotFound:
            return

    def _repeatable(self, path: str, request: Callable[[], Answer]) -> Answer:
        """Send a request that may arrive twice.

        obstore repeats what got no answer, but not what got the beginning of one. A patient store does.
        """
        from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                with _Translated(self.uri_of(path)):
                    return request()
            except StoreUnavailable as error:
                refused = isinstance(error.__cause__, (PermissionDeniedError, UnauthenticatedError))
                if refused or time.monotonic() >= deadline:
                    raise
            time.sleep(CUT_OFF_PAUSE_S)

    def uri_of(self, path: str) -> str:
        """The absolute URI of an object or folder of this store."""
        return f"{self.uri}/{path}" if path else self.uri

    def path_of(self, uri: str) -> str:
        """The relative path of a URI of this store. :raises ValueError: for a URI elsewhere."""
        if not uri.startswith(self.uri + "/"):
            raise ValueError(f"{uri} is not in the store {self.uri}")
        return uri[len(self.uri) + 1 :]

    # --- directories -------------------------------------------------------------------------------------------

    def upload_directory(self, directory: Path, prefix: str) -> Manifest:
        """Upload every file, then the manifest, so that a crash leaves no directory that looks whole."""
        import obstore

        manifest = directory_manifest(directory)
        for name in manifest.files:
            target, file = f"{prefix}/{name}", directory / name
            self._repeatable(target, partial(obstore.put, self._backend, target, file))
        self.put_json(f"{prefix}/{MANIFEST_NAME}", manifest.to_json())
        return manifest

    def read_manifest(self, prefix: str) -> Manifest | None:
        """The manifest of a stored directory; ``None`` if the directory was never finished."""
        try:
            record = self.find_json(f"{prefix}/{MANIFEST_NAME}")
        except ValueError as error:
            raise ManifestMismatch(f"{self.uri_of(prefix)}/{MANIFEST_NAME} is damaged: {error}") from error
        return None if record is None else Manifest.from_json(record)

    def download_directory(self, prefix: str, directory: Path) -> Manifest:
        """Download what the manifest lists and verify every file.

        :raises ObjectNotFound: when there is no manifest, hence no directory.
        :raises ManifestMismatch: naming the first file that is missing or damaged.
        """
        manifest = self.read_manifest(prefix)
        if manifest is None:
            raise ObjectNotFound(f"{self.uri_of(prefix)} has no {MANIFEST_NAME}: it was never completely written")
        directory.mkdir(parents=True, exist_ok=True)
        for name, expected in manifest.files.items():
            target = directory / _safe_name(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._download(f"{prefix}/{name}", target)
            except ObjectNotFound as error:
                raise ManifestMismatch(
                    f"{self.uri_of(prefix)}: {name} is missing. Restore it, or produce the directory again."
                ) from error
            if target.stat().st_size != expected.size or sha256_file(target) != expected.sha256:
                raise ManifestMismatch(
                    f"{self.uri_of(prefix)}: {name} does not match its manifest: the copy is damaged or was changed. "
                    "Restore it, or produce the directory again."
                )
        return manifest

    def _download(self, path: str, target: Path) -> None:
        import obstore

        with _Translated(self.uri_of(path)), target.open("wb") as file:
            for chunk in obstore.get(self._backend, path).stream():
                file.write(chunk)


def locate(uri: str) -> tuple[Store, str]:
    """Open the parent folder of a URI as a store: ``file:///a/b`` gives ``(Store(file:///a), "b")``."""
    parent, _, name = uri.rstrip("/").rpartition("/")
    return Store.open(parent), name


def local_path(uri: str) -> Path | None:
    """The local path of a ``file://`` URI, ``None`` for any other."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _safe_name(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ManifestMismatch(f"the manifest names {name!r}, a path outside its directory")
    return name


@lru_cache(maxsize=64)
def _backend(uri: str, patience_s: float | None) -> Any:
    import obstore.store

    if (folder := local_path(uri)) is not None:
        folder.mkdir(parents=True, exist_ok=True)
        return obstore.store.LocalStore(prefix=folder)
    if patience_s is None:
        return obstore.store.from_url(uri)
    backoff = {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=2), "base": 2}
    limits = {"max_retries": MOST_RETRIES, "retry_timeout": timedelta(seconds=patience_s)}
    return obstore.store.from_url(uri, retry_config={"backoff": backoff, **limits})


class _Translated:
    """Turn obstore's errors into ours, naming the object."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError

        if error is None or isinstance(error, AlreadyExistsError):
            return
        if isinstance(error, (NotFoundError, FileNotFoundError)):
            raise ObjectNotFound(f"{self._uri} does not exist") from error
        if isinstance(error, (BaseError, OSError)):
            text = str(error)
            if "No space left" in text or "os error 28" in text:
                raise StorageFull(f"no space left writing {self._uri}; free some and run again") from error
            raise StoreUnavailable(f"{self._uri}: {text.splitlines()[0] if text else error!r}") from error
