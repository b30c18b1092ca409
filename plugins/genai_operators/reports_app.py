"""Serves the stored HTML reports inside Airflow, to people who are logged in to Airflow.

``GET /genai/reports/<path>`` answers with one ``*.html`` object of the store, and with nothing else: no listing, no
other file, no path that leaves the store. ``GET /genai/runs/<kind>/<fingerprint>`` answers with the details of a
workload's run as they are now. Either is untrusted content to the browser: no script, no network, no framing.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from genai_operators.exceptions import ObjectNotFound

if TYPE_CHECKING:
    from fastapi import FastAPI

URL_PREFIX = "/genai"
KIND, FINGERPRINT = re.compile(r"[a-z][a-z0-9_]*"), re.compile(r"[0-9a-f]{64}")
#: Inline style and inline SVG are all that a report needs; `sandbox` keeps it from acting as Airflow's own page.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}


def report_url(path: str) -> str:
    """Where the report at ``path`` of the store is read, below the base URL of Airflow's API server."""
    return f"{URL_PREFIX}/reports/{path}"


def run_url(directory: str) -> str:
    """Where the details of a workload's run are read. :param directory: ``workloads/<kind>/<fingerprint>``."""
    return f"{URL_PREFIX}/runs/{directory.partition('/')[2]}"


def is_report_path(path: str) -> bool:
    """Whether ``path`` can only be a report below the store: no parent step, no second decoding, ``.html``."""
    parts = PurePosixPath(path).parts
    return (
        path.endswith(".html")
        and not path.startswith("/")
        and all(part not in (".", "..") for part in parts)
        and "/".join(parts) == path
        and unquote(path) == path
        and path.isprintable()
        and "\\" not in path
    )


def create_app() -> FastAPI:
    """The FastAPI application that Airflow mounts below :data:`URL_PREFIX`. Every route needs a login."""
    from airflow.api_fastapi.core_api.security import requires_authenticated
    from fastapi import Depends, FastAPI, HTTPException
    from fastapi.responses import HTMLResponse

    app = FastAPI(
        title="genai reports",
        # Airflow mounts a plugin's app without any authentication, its documentation included.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(requires_authenticated())],
    )

    @app.get("/reports/{path:path}")
    async def report(path: str) -> HTMLResponse:
        try:
            content = await asyncio.to_thread(read_report, path)
        except ObjectNotFound as error:
            raise HTTPException(status_code=404, detail="no such report", headers=HEADERS) from error
        return HTMLResponse(content, headers=HEADERS)

    @app.get("/runs/{kind}/{fingerprint}")
    async def run(kind: str, fingerprint: str) -> HTMLResponse:
        try:
            content = await asyncio.to_thread(read_run, kind, fingerprint)
        except ObjectNotFound as error:
            raise HTTPException(status_code=404, detail="no such run", headers=HEADERS) from error
        return HTMLResponse(content, headers=HEADERS)

    @app.get("/{path:path}", include_in_schema=False)
    async def anything_else(path: str) -> HTMLResponse:
        raise HTTPException(status_code=404, detail="no such page", headers=HEADERS)

    return app


def read_report(path: str) -> bytes:
    """The bytes of one report.

    :raises ObjectNotFound: no such report, or a path that cannot be one.
    """
    from genai_operators.hooks.settings import store_uri
    from genai_operators.store import Store

    if not is_report_path(path):
        raise ObjectNotFound(f"{path!r} is not the path of a report")
    return Store.open(store_uri()).get(path)


def read_run(kind: str, fingerprint: str) -> str:
    """The page of a workload's run.

    :raises ObjectNotFound: no such workload, or what cannot be one.
    """
    from genai_operators.compute.contract import WORKLOADS_PREFIX
    from genai_operators.compute.details import details_page
    from genai_operators.hooks.settings import store_uri
    from genai_operators.store import Store

    if not (KIND.fullmatch(kind) and FINGERPRINT.fullmatch(fingerprint)):
        raise ObjectNotFound(f"{kind}/{fingerprint} names no workload")
    return details_page(Store.open(store_uri()), f"{WORKLOADS_PREFIX}/{kind}/{fingerprint}").html()


class LazyReportsApp:
    """Builds the application at the first request: every process loads plugins, only the API server needs this."""

    def __init__(self) -> None:
        self._app: FastAPI | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        if self._app is None:
            self._app = create_app()
        await self._app(scope, receive, send)
