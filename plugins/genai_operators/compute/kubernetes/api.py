"""Requests to a cluster as plain JSON: retried where that is safe and sensible, and failing with our own exceptions.

The official client gives configuration, credentials and TLS. Its models are left aside: reading a list of 200 pods into
them takes ten times the time and memory of the JSON that we need.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from genai_operators.compute.kubernetes import clients
from genai_operators.compute.kubernetes.errors import Failure, translate
from genai_operators.exceptions import ClusterUnavailable, ConfigurationError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Json = Mapping[str, Any]

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 20.0
TRIES = 4
#: Before the second try; doubles with each further one.
FIRST_BACKOFF_S = 0.25
LONGEST_BACKOFF_S = 5.0
#: The server asks for patience, or has a fault that may pass.
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
PAGE = 500
USER_AGENT = "genai-operators"


class Expired(Exception):
    """The resource version of a watch is too old (410): list again."""


@dataclass(frozen=True)
class Listing:
    """Objects, and the version of the cluster's state that they are a picture of: a watch goes on from there."""

    items: list[Json]
    version: str


@dataclass(frozen=True)
class KubernetesApi:
    """A cluster, by the name of its connection.

    Every method raises ``ClusterUnavailable`` when the cluster does not answer, ``ConfigurationError`` when it refuses
    us (the message names what is missing), ``QuotaExceeded`` when the namespace has no room.

    :param clients: ``module:function`` that makes a client; see :mod:`.clients`.
    """

    connection: str
    clients: str = clients.DEFAULT_SOURCE
    tries: int = field(default=TRIES, compare=False)

    def find(self, path: str) -> Json | None:
        """The object at ``path``, ``None`` where there is none."""
        return self._json("GET", path, accept={404})

    def list(self, path: str, *, labels: str = "", fields: str = "") -> Listing:
        """All objects of a collection that match both selectors."""
        items: list[Json] = []
        query: dict[str, Any] = {"limit": PAGE, "labelSelector": labels, "fieldSelector": fields}
        while True:
            page = self._json("GET", path, query=query) or {}
            items.extend(page.get("items") or [])
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return Listing(items=items, version=str(metadata.get("resourceVersion", "")))
            query["continue"] = metadata["continue"]

    def create(self, path: str, body: Json) -> Json | None:
        """Create an object in the collection at ``path``; ``None`` when one of its name exists."""
        return self._json("POST", path, body=body, accept={409})

    def delete(self, path: str, *, uid: str, propagation: str = "Foreground", grace_s: int | None = None) -> bool:
        """Ask for an object to be deleted. ``False``: the object with that uid is gone already."""
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": propagation,
        }
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        return self._json("DELETE", path, body=options, accept={404, 409}) is not None

    def text(self, path: str, **query: Any) -> str:
        """What ``path`` says, as text (logs); empty where there is nothing of that kind."""
        data = self._request("GET", path, query=query, accept={400, 404})
        return "" if data is None else data.decode("utf-8", errors="replace")

    def watch(self, path: str, *, labels: str, version: str, timeout_s: int) -> Iterator[Json]:
        """Connect a watch from ``version`` on, and return its events, bookmarks included.

        The server ends it after ``timeout_s`` seconds. Closing the iterator closes the connection.

        :raises Expired: ``version`` is too old; also while it is read.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": labels,
            "resourceVersion": version,
            "timeoutSeconds": timeout_s,
        }
        response = self._open("GET", path, query=query, body=None, read_timeout_s=timeout_s + CONNECT_TIMEOUT_S)
        if response.status == 200:
            return self._events(response, path)
        failure = Failure("watch", path, response.status, response.read())
        raise Expired(path) if response.status == 410 else translate(failure, connection=self.connection)

    def _events(self, response: Any, path: str) -> Iterator[Json]:
        with contextlib.closing(response):
            for event in _lines(response, connection=self.connection):
                if event.get("type") == "ERROR":
                    _raise_event(event, path, connection=self.connection)
                yield event

    # --- requests ----------------------------------------------------------------------------------------------

    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Json | None = None,
        body: Json | None = None,
        accept: Collection[int] = (),
    ) -> Json | None:
        data = self._request(method, path, query=query, body=body, accept=accept)
        return None if data is None else json.loads(data)

    def _request(
        self,
        method: str,
        path: str,
        *,
        query: Json | None = None,
        body: Json | None = None,
        accept: Collection[int] = (),
    ) -> bytes | None:
        """The answer's body; ``None`` for a status in ``accept``. Tries again what may pass."""
        for number in range(1, self.tries + 1):
            try:
                response = self._open(method, path, query=query, body=body, read_timeout_s=READ_TIMEOUT_S)
                data: bytes = response.read()
            except ClusterUnavailable:
                if number == self.tries:
                    raise
                _back_off(number)
                continue
            if 200 <= response.status < 300:
                return data
            failure = Failure(_verb(method, query), path, response.status, data)
            if response.status in accept and not failure.conflict:
                return None
            if number == self.tries or not (response.status in TRANSIENT or failure.conflict):
                raise translate(failure, connection=self.connection)
            _back_off(number, response.headers.get("Retry-After"))
        raise AssertionError("the last try returns or raises")

    def _open(self, method: str, path: str, *, query: Json | None, body: Json | None, read_timeout_s: float) -> Any:
        """Send a request, as the connection says now where the old way fails; the body is not yet read."""
        client = clients.connect(self.clients, self.connection)
        try:
            response = self._send(client, method, path, query, body, read_timeout_s)
        except (ClusterUnavailable, ConfigurationError):
            clients.forget(self.clients, self.connection, silent=client)
            raise
        if response.status == 401:
            response.close()
            client = clients.renew(self.clients, self.connection, refused=client)
            response = self._send(client, method, path, query, body, read_timeout_s)
        return response

    def _send(
        self, client: ApiClient, method: str, path: str, query: Json | None, body: Json | None, read_timeout_s: float
    ) -> Any:
        import urllib3

        headers = {"Accept": "application/json, */*", "Content-Type": "application/json", "User-Agent": USER_AGENT}
        client.update_params_for_auth(headers, [], ["BearerToken"])
        told = {name: value for name, value in (query or {}).items() if value not in ("", None)}
        url = client.configuration.host + path + (f"?{urlencode(told)}" if told else "")
        try:
            return client.rest_client.pool_manager.request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s),
                preload_content=False,
                retries=False,
            )
        except urllib3.exceptions.SSLError as error:
            raise ConfigurationError(
                f"connection {self.connection}: no trusted connection to {client.configuration.host}: {error}. Name "
                "the cluster's certificate authority in the connection."
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise ClusterUnavailable(
                f"connection {self.connection}: the cluster at {client.configuration.host} does not answer: {error}"
            ) from error


def _verb(method: str, query: Json | None) -> str:
    if method == "GET":
        return "list" if query else "get"
    return {"POST": "create", "DELETE": "delete", "PATCH": "patch"}[method]


def _back_off(number: int, asked: str | None = None) -> None:
    """Wait before the next try; a little at random, so that many clients do not come back at once."""
    wait_s = FIRST_BACKOFF_S * 2 ** (number - 1) * random.uniform(0.8, 1.2)  # noqa: S311  no secret
    if asked is not None and asked.isdigit():
        wait_s = max(wait_s, float(asked))
    time.sleep(min(wait_s, LONGEST_BACKOFF_S))


def _lines(response: Any, *, connection: str) -> Iterator[Json]:
    """JSON lines of a response as they come. A connection that breaks is the end, like one that is closed."""
    import urllib3

    rest = b""
    try:
        for piece in response.stream(amt=None, decode_content=True):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.strip():
                    yield json.loads(line)
    except urllib3.exceptions.HTTPError as error:
        raise ClusterUnavailable(f"connection {connection}: a watch broke off: {error}") from error


def _raise_event(event: Json, path: str, *, connection: str) -> None:
    status = event.get("object") or {}
    if status.get("code") == 410:
        raise Expired(path)
    failure = Failure("watch", path, int(status.get("code") or 500), json.dumps(status).encode())
    raise translate(failure, connection=connection)
