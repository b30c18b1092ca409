"""The few MLflow REST calls that the registry needs, over plain HTTP: importing mlflow costs seconds and 169 MiB.

Written against MLflow 3.17. A server that does not answer is :class:`RegistryUnavailable`; one that refuses is
:class:`RegistryError` with MLflow's own code and words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from genai_operators.exceptions import ConfigurationError, GenaiError, RegistryUnavailable

if TYPE_CHECKING:
    import httpx

API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
PROXY_SCHEME = "mlflow-artifacts:/"
#: A cold MLflow server was measured to answer its first request after up to 45 s.
TIMEOUT_S = 60.0
TRANSFER_TIMEOUT_S = 600.0
BLOCK_BYTES = 1 << 20

NOT_FOUND = "RESOURCE_DOES_NOT_EXIST"
ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"
BAD_REQUEST = "BAD_REQUEST"


class RegistryError(GenaiError):
    """MLflow understood the request and refused it. A retry does not help; ``code`` is MLflow's error code."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class MlflowRest:
    """A connection for each call: no state, so that any thread or process may use an instance."""

    def __init__(self, uri: str) -> None:
        """:param uri: base URL of the tracking server, e.g. ``http://127.0.0.1:5000``."""
        self.uri = uri.rstrip("/")

    def _client(self, timeout: float) -> httpx.Client:
        import httpx

        # Reading the certificates takes longer than the request; plain HTTP needs none.
        return httpx.Client(base_url=self.uri, timeout=timeout, trust_env=False, verify=self.uri.startswith("https:"))

    def get(self, path: str, **params: str) -> dict[str, Any]:
        """:raises RegistryError: the server refused; ``code`` says why."""
        return self._json("GET", path, params=params)

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """:raises RegistryError: the server refused; ``code`` says why."""
        return self._json("POST", path, json=dict(body))

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """:raises RegistryError: the server refused; ``code`` says why."""
        return self._json("PATCH", path, json=dict(body))

    def delete(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """:raises RegistryError: the server refused; ``code`` says why."""
        return self._json("DELETE", path, json=dict(body))

    def set(self, path: str, body: Mapping[str, Any]) -> None:
        """Write a value that others may write at the same moment; the last one stays.

        MLflow looks, then inserts; of two first writers one meets the other's row (seen: 400, IntegrityError). Its
        second try finds the row and updates it.

        :raises RegistryError: the server refused twice; ``code`` says why.
        """
        try:
            self.post(path, body)
        except RegistryError as error:
            if error.code != BAD_REQUEST:
                raise
            self.post(path, body)

    def ensure(self, path: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Create something that may exist already; ``None`` if it did."""
        try:
            return self.post(path, body)
        except RegistryError as error:
            if error.code == ALREADY_EXISTS:
                return None
            raise

    def find(self, path: str, *, missing: tuple[str, ...] = (NOT_FOUND,), **params: str) -> dict[str, Any] | None:
        """Like :meth:`get`, ``None`` where MLflow has no such thing."""
        try:
            return self.get(path, **params)
        except RegistryError as error:
            if error.code in missing:
                return None
            raise

    # --- artifacts through the server's proxy ------------------------------------------------------------------

    def artifact_root(self, artifact_uri: str) -> str:
        """The proxy's path of an artifact location.

        :raises ConfigurationError: when the server does not serve artifacts itself.
        """
        if not artifact_uri.startswith(PROXY_SCHEME):
            raise ConfigurationError(
                f"MLflow at {self.uri} keeps artifacts at {artifact_uri}, out of our reach; "
                "start it with --serve-artifacts and --artifacts-destination, or create a new experiment there"
            )
        return artifact_uri.removeprefix(PROXY_SCHEME).strip("/")

    def upload(self, root: str, name: str, file: Path) -> None:
        """Write or replace one file."""
        with file.open("rb") as content:
            self._request("PUT", self._artifact(root, name), content=content, timeout=TRANSFER_TIMEOUT_S)

    def download(self, root: str, name: str, target: Path) -> None:
        """:raises RegistryError: with code ``RESOURCE_DOES_NOT_EXIST`` when the file is gone."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            self._translated(),
            self._client(TRANSFER_TIMEOUT_S) as client,
            client.stream("GET", self._artifact(root, name)) as response,
            target.open("wb") as file,
        ):
            if response.is_error:
                response.read()
            self._check(response)
            for block in response.iter_bytes(BLOCK_BYTES):
                file.write(block)

    def list_files(self, root: str) -> dict[str, int]:
        """Every file below a folder with its size in bytes; none for a folder that does not exist."""
        files: dict[str, int] = {}
        folders = [""]
        while folders:
            folder = folders.pop()
            path = f"{root}/{folder}".rstrip("/")
            listed = self._json("GET", ARTIFACTS, params={"path": path}, prefix="")
            for entry in listed.get("files", []):
                name = f"{folder}/{entry['path']}".lstrip("/")
                if entry.get("is_dir"):
                    folders.append(name)
                else:
                    files[name] = int(entry.get("file_size", 0))
        return files

    @staticmethod
    def _artifact(root: str, name: str) -> str:
        return f"{ARTIFACTS}/{quote(root)}/{quote(name)}"

    # --- the wire ----------------------------------------------------------------------------------------------

    def _json(self, method: str, path: str, *, prefix: str = API, **request: Any) -> dict[str, Any]:
        response = self._request(method, f"{prefix}{path}", **request)
        try:
            body = response.json()
        except ValueError as error:
            raise RegistryUnavailable(
                f"{self.uri} answered {method} {path} with something that is not JSON; is it an MLflow server?"
            ) from error
        return body if isinstance(body, dict) else {}

    def _request(self, method: str, url: str, *, timeout: float = TIMEOUT_S, **request: Any) -> httpx.Response:
        with self._translated(), self._client(timeout) as client:
            response = client.request(method, url, **request)
        self._check(response)
        return response

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import httpx

        try:
            yield
        except httpx.TransportError as error:
            raise RegistryUnavailable(
                f"MLflow at {self.uri} does not answer ({error or type(error).__name__}). Start it, or set the host "
                "and port of the connection genai_mlflow; then run again. Nothing was half-registered."
            ) from error

    def _check(self, response: httpx.Response) -> None:
        if not response.is_error:
            return
        try:
            body = response.json()
            code, message = str(body["error_code"]), str(body["message"]).splitlines()[0]
        except (ValueError, KeyError, TypeError, IndexError):
            code, message = "", response.text[:200]
        if response.status_code >= 500 or response.status_code == 429:
            raise RegistryUnavailable(f"MLflow at {self.uri} answered {response.status_code}: {message}")
        raise RegistryError(f"MLflow at {self.uri} refused ({response.status_code} {code}): {message}", code=code)
