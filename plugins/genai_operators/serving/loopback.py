"""HTTP to this machine's own servers: a status and a body, or ``OSError``. No proxy, no redirect, nothing else."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit


def call(url: str, *, method: str = "GET", body: Any = None, timeout_s: float) -> tuple[int, bytes]:
    """Send a request, with ``body`` as JSON if there is one. Any status is an answer.

    :raises OSError: nobody listens, the connection broke, or it took too long.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=timeout_s)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, body=data, headers={"content-type": "application/json"} if data else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"{url} broke off: {error!r}") from error
    finally:
        connection.close()
