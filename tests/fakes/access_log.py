"""Lines as the gateway writes them to its access log, and a gateway that only writes them."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from genai_operators.serving.admin import Admin
from genai_operators.serving.gateway import access_log_path

LIMIT = 65_536


def encoded(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    return base64.b64encode(data).decode()


def answer_body(text: str) -> dict[str, Any]:
    """A whole, unstreamed answer of one choice."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


def request_line(request_id: str, *, model: str = "demo", at: float = 1_000.0, **changes: Any) -> bytes:
    """A request that the champion answered; ``changes`` replace fields of the entry, of ``route`` and of ``seen``."""
    body = {"model": model, "messages": [{"role": "user", "content": f"question {request_id}"}]}
    request, response = encoded(body), encoded(answer_body(f"answer {request_id}"))
    route = {
        "model": model,
        "variant": "champion",
        "deployment": f"{model}-v1-fake",
        "route_version": 3,
        "percent": 25,
        "assigned": True,
    }
    seen = {
        "started": at * 1000,
        "limit": LIMIT,
        "request": request,
        "request_bytes": len(base64.b64decode(request)),
        "response": response,
        "response_bytes": len(base64.b64decode(response)),
    }
    entry = {
        "at": f"{at:.6f}",
        "attempts": 1,
        "details": "via_upstream",
        "flags": "-",
        "id": request_id,
        "method": "POST",
        "ms": 120,
        "path": "/v1/chat/completions",
        "route": route | changes.pop("route", {}),
        "seen": seen | changes.pop("seen", {}),
        "status": 200,
    }
    return _line(entry | changes)


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()


def feedback_line(request_id: str, *, at: float = 1_001.0, rating: str = "right", **body: Any) -> bytes:
    """A user's judgement, answered 202."""
    entry = {
        "at": f"{at:.6f}",
        "attempts": 0,
        "details": "direct_response",
        "flags": "-",
        "id": f"feedback-on-{request_id}",
        "method": "POST",
        "ms": 0,
        "path": "/v1/feedback",
        "route": None,
        "seen": {"feedback": encoded({"request_id": request_id, "rating": rating, **body})},
        "status": 202,
    }
    return _line(entry)


class LoggingGateway(Admin):
    """Writes the log of a gateway directory and opens it again on demand, as Envoy does. ``down`` makes it deaf."""

    def __init__(self, directory: Path) -> None:
        super().__init__("http://127.0.0.1:1")
        self.path = access_log_path(directory)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.down = False
        self._lock = threading.Lock()
        self._file = self.path.open("ab")

    def write(self, *lines: bytes, end: bytes = b"\n") -> None:
        with self._lock:
            for line in lines:
                self._file.write(line + end)
            self._file.flush()

    def reopen_logs(self) -> None:
        if self.down:
            super().reopen_logs()
        with self._lock:
            self._file.close()
            self._file = self.path.open("ab")

    def close(self) -> None:
        self._file.close()

    @contextmanager
    def admin_interface(self) -> Iterator[str]:
        """Base URL under which another process may ask for the log to be opened again."""
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                gateway.reopen_logs()
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
