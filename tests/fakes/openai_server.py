"""A small OpenAI-compatible server with faults on demand, for tests of the gateway. Run as a program; stdlib only.

It answers every chat with ``--answer``, one word a streamed chunk. ``POST /faults`` changes any option while it runs,
so that a test can make a healthy server sick.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Faults:
    """What goes wrong, and how often. Shares are in [0, 1]; times in milliseconds."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.answer: str = options.answer
        self.error_share: float = options.error_share
        self.first_token_ms: float = options.first_token_ms
        self.gap_ms: float = options.gap_ms
        self.break_after: int | None = options.break_after
        self.error_event: bool = options.error_event
        self.fail_next: int = 0


class Handler(BaseHTTPRequestHandler):
    """A stream is chunked, as a real server's is, so that its sudden end is told from its end."""

    protocol_version = "HTTP/1.1"

    faults: Faults
    name: str
    lock = threading.Lock()

    def do_GET(self) -> None:
        if self.path == "/health":
            self._json(200, {"status": "ok", "pid": os.getpid()})
        else:
            self._json(404, {"error": {"message": "no such path"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        if self.path == "/faults":
            vars(self.faults).update(body)
            self._json(200, vars(self.faults))
        elif body.get("model") != self.name:
            self._json(400, {"error": {"message": f"this server answers to {self.name} only"}})
        elif self._fails():
            self._json(500, {"error": {"message": "asked to fail"}})
        elif body.get("stream"):
            self._stream(body)
        else:
            self._whole(body)

    def _fails(self) -> bool:
        with self.lock:
            if self.faults.fail_next > 0:
                self.faults.fail_next -= 1
                return True
        return random.random() < self.faults.error_share

    def _text(self, body: dict[str, Any]) -> str:
        last = body["messages"][-1]["content"]
        return self.faults.answer.replace("{echo}", last)

    def _whole(self, body: dict[str, Any]) -> None:
        time.sleep(self.faults.first_token_ms / 1000)
        text = self._text(body)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"completion_tokens": len(text.split(" "))}
        self._json(200, {"object": "chat.completion", "model": self.name, "choices": [choice], "usage": usage})

    def _stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
        time.sleep(self.faults.first_token_ms / 1000)
        words = self._text(body).split(" ")
        for k, word in enumerate(words):
            if k == self.faults.break_after:
                if self.faults.error_event:
                    self._event({"error": "asked to break"})
                    self._end()
                    return
                os._exit(3)
            if k:
                time.sleep(self.faults.gap_ms / 1000)
            content = word if k == len(words) - 1 else word + " "
            self._event({"choices": [{"index": 0, "delta": {"content": content}}]})
        end = {
            "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
            "usage": {"completion_tokens": len(words)},
        }
        self._event(end)
        self._end()

    def _event(self, value: dict[str, Any]) -> None:
        data = f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def _json(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: the log of a program under the supervisor is for what matters."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answer", default='{"intent": "refund"}')
    parser.add_argument("--error-share", type=float, default=0.0)
    parser.add_argument("--first-token-ms", type=float, default=0.0)
    parser.add_argument("--gap-ms", type=float, default=0.0)
    parser.add_argument("--break-after", type=int)
    parser.add_argument("--error-event", action="store_true")
    parser.add_argument("--die-at-start", metavar="MESSAGE")
    options = parser.parse_args()
    if options.die_at_start:
        sys.exit(options.die_at_start)
    Handler.faults, Handler.name = Faults(options), options.name
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
