"""What the local gateway says of itself: is it up, which versions did it accept, how many requests are open."""

from __future__ import annotations

import json
import re
import time
import urllib.parse
from typing import Any

from genai_operators.exceptions import GatewayUnavailable
from genai_operators.serving import loopback
from genai_operators.serving.gateway import ROUTES_NAME

REQUEST_TIMEOUT_S = 5.0
ACKNOWLEDGE_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.02


class Admin:
    """A client of Envoy's admin interface."""

    def __init__(self, url: str) -> None:
        """:param url: base URL, for example ``http://127.0.0.1:9901``."""
        self.url = url.rstrip("/")

    def check(self) -> None:
        """:raises GatewayUnavailable: unless the gateway serves."""
        state = self._get("/ready").strip()
        if state != "LIVE":
            raise GatewayUnavailable(f"the gateway at {self.url} says {state}, not LIVE; wait for it and run again")

    def wait_for_routes(self, version: str) -> float:
        """Return when the gateway routes by this version; the time of it, in seconds since the epoch."""
        return self._wait_for(f"http.genai.rds.{ROUTES_NAME}.version_text", version)

    def wait_for_clusters(self, version: str) -> float:
        """Return when the gateway knows the clusters of this version."""
        return self._wait_for("cluster_manager.cds.version_text", version)

    def open_requests(self, cluster: str) -> int:
        """Requests that an upstream cluster has not finished; 0 for a cluster that is not known (any more)."""
        return int(self._stat(f"cluster.{cluster}.upstream_rq_active") or 0)

    def reopen_logs(self) -> None:
        """Make the gateway open its access log by name again, after a rotation."""
        self._get("/reopen_logs", method="POST")

    def _wait_for(self, stat: str, version: str) -> float:
        deadline = time.monotonic() + ACKNOWLEDGE_TIMEOUT_S
        while (found := self._stat(stat)) != version:
            if time.monotonic() > deadline:
                raise GatewayUnavailable(
                    f"the gateway at {self.url} did not take over configuration {version} within "
                    f"{ACKNOWLEDGE_TIMEOUT_S:.0f} s ({stat} is {found or 'not set'}). Its log says why it was refused."
                )
            time.sleep(POLL_INTERVAL_S)
        return time.time()

    def _stat(self, name: str) -> Any:
        query = urllib.parse.urlencode({"filter": f"^{re.escape(name)}$", "format": "json"})
        for stat in json.loads(self._get(f"/stats?{query}"))["stats"]:
            if stat.get("name") == name:
                return stat["value"]
        return None

    def _get(self, path: str, *, method: str = "GET") -> str:
        try:
            status, body = loopback.call(self.url + path, method=method, timeout_s=REQUEST_TIMEOUT_S)
        except OSError as error:
            raise GatewayUnavailable(
                f"the gateway does not answer at {self.url} ({error}); `make status` shows what runs"
            ) from error
        # 503 is how `/ready` says that it is not.
        if status not in (200, 503):
            raise GatewayUnavailable(f"the gateway's admin interface at {self.url} answers {status} to {path}")
        return body.decode()
