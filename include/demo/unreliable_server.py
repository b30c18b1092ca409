"""A model server that fails a share of its requests: the demonstration's bad release. Standard library only.

Stands in front of a real ``transformers serve``, which it starts and ends, and answers a share of the chats with status
500. Everything else, streams included, passes through. For a model file's ``serve.runtimes``:

    ["{python}", "{project}/include/demo/unreliable_server.py", "--model-dir", "{model_dir}", "--name", "{name}",
     "--port", "{port}", "--failure-share", "0.3"]
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import ClassVar

BLOCK_BYTES = 65_536
UPSTREAM_TIMEOUT_S = 120.0
CHAT_PATH = "/v1/chat/completions"


class Handler(BaseHTTPRequestHandler):
    """One request a connection. Answers are chunked, so that one that breaks off inside is seen to break off here."""

    protocol_version = "HTTP/1.1"
    inner_port: ClassVar[int]
    failure_share: ClassVar[float]

    def do_GET(self) -> None:
        self._pass_on(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.startswith(CHAT_PATH) and random.random() < self.failure_share:
            self._fail(500, "this release is unreliable on purpose")
        else:
            self._pass_on(body)

    def _pass_on(self, body: bytes) -> None:
        inner = http.client.HTTPConnection("127.0.0.1", self.inner_port, timeout=UPSTREAM_TIMEOUT_S)
        headers = {"content-type": self.headers.get("content-type", "application/json")}
        try:
            inner.request(self.command, self.path, body=body or None, headers=headers)
            answer = inner.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self._fail(503, f"the model server does not answer yet: {error}")
            return
        self.send_response(answer.status)
        self.send_header("content-type", answer.getheader("content-type", "application/json"))
        self.send_header("transfer-encoding", "chunked")
        self.send_header("connection", "close")
        self.end_headers()
        try:
            while block := answer.read1(BLOCK_BYTES):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except (OSError, http.client.HTTPException) as error:
            self.log_error("an answer broke off: %s", error)
        finally:
            inner.close()

    def _fail(self, status: int, message: str) -> None:
        data = json.dumps({"error": {"message": message}}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """One line a request would say nothing that the gateway's log does not."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_inner(options: argparse.Namespace, *, port: int) -> subprocess.Popen[bytes]:
    """``transformers serve`` answers to the name that it was given, so a link of that name must lie where it runs."""
    link = Path(options.name)
    if not link.exists():
        link.symlink_to(options.model_dir, target_is_directory=True)
    serve = [sys.executable, "-P", "-m", "transformers.cli.transformers", "serve", options.name]
    return subprocess.Popen([*serve, "--host", "127.0.0.1", "--port", str(port)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--name", required=True, help="the public model name")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--failure-share", type=float, default=0.3, help="between 0 and 1")
    options = parser.parse_args()
    Handler.inner_port, Handler.failure_share = free_port(), options.failure_share
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.daemon_threads = True
    inner = start_inner(options, port=Handler.inner_port)

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        inner.terminate()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    # When the model server ends, whether it died or was told to, this one ends likewise and the supervisor decides.
    code = inner.wait()
    server.shutdown()
    return abs(code)


if __name__ == "__main__":
    sys.exit(main())
