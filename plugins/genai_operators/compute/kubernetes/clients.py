"""Connections to clusters: one client a connection and process, made anew when it is refused or gets no answer.

Where a client comes from is told by a dotted path (``module:function``) in the backend's description, so that nothing
here knows Airflow; :func:`from_kubeconfig` is the source of whoever has none.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from genai_operators.exceptions import ConfigurationError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

#: Makes a client for the connection of that name. Called again whenever the cluster refuses the credentials.
ClientSource = Callable[[str], "ApiClient"]
DEFAULT_SOURCE = "genai_operators.compute.kubernetes.clients:from_kubeconfig"

#: A client younger than this is not made again because its cluster does not answer.
REREAD_S = 10.0

_clients: dict[tuple[int, str, str], ApiClient] = {}
_made_at: dict[tuple[int, str, str], float] = {}
_lock = threading.Lock()


def from_kubeconfig(connection: str) -> ApiClient:
    """The cluster of ``KUBECONFIG``; without it the one that this process runs in, else that of ``~/.kube/config``.

    :param connection: named in messages only.
    :raises ConfigurationError: there is none of them.
    """
    from kubernetes import client, config
    from kubernetes.config.config_exception import ConfigException

    path = os.environ.get("KUBECONFIG")
    try:
        if path is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            configuration = client.Configuration()
            config.load_incluster_config(client_configuration=configuration)
            return client.ApiClient(configuration)
        return config.new_client_from_config(config_file=path, persist_config=False)
    except (ConfigException, OSError) as error:
        raise ConfigurationError(
            f"connection {connection}: no cluster is configured: {error}. Set KUBECONFIG, or the connection in Airflow."
        ) from error


def connect(source: str, connection: str) -> ApiClient:
    """The client of this process. :raises ConfigurationError: the source does not exist or has no such connection."""
    with _lock:
        return _connect((os.getpid(), source, connection))


def renew(source: str, connection: str, *, refused: ApiClient) -> ApiClient:
    """A client with fresh credentials, after the cluster refused those of ``refused``. Several may ask at once."""
    with _lock:
        key = (os.getpid(), source, connection)
        if _clients.get(key) is refused:
            del _clients[key]
        return _connect(key)


def forget(source: str, connection: str, *, silent: ApiClient) -> None:
    """Read the connection anew next time, after the cluster of ``silent`` did not answer: it may have moved.

    Not more often than every :data:`REREAD_S`, however many ask in vain.
    """
    with _lock:
        key = (os.getpid(), source, connection)
        if _clients.get(key) is silent and time.monotonic() - _made_at[key] >= REREAD_S:
            del _clients[key]


def _connect(key: tuple[int, str, str]) -> ApiClient:
    if key not in _clients:
        _clients[key] = _source(key[1])(key[2])
        _made_at[key] = time.monotonic()
    return _clients[key]


def _source(path: str) -> ClientSource:
    module, separator, function = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), function) if separator else None
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"clients: {path!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigurationError(f"clients: {path!r} is no function; write module:function")
    source: ClientSource = found
    return source
