"""A small HTTP/1.1 server on asyncio streams: it can hold, cut and reset connections where a framework would not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

LARGEST_BODY = 3 * 1024 * 1024  # the API server's own limit


@dataclass(frozen=True)
class Request:
    """One request; header names are lower-case, repeated query names keep their last value."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""

    def flag(self, name: str) -> bool:
        """A boolean of the query, as Kubernetes writes them (``true``, ``1``, or the bare name)."""
        return name in self.query and self.query[name].lower() in ("true", "1", "t", "")


@dataclass
class Reply:
    """The other direction of one exchange: either :meth:`send` once, or :meth:`start` and :meth:`write` often."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    streaming: bool = False
    sent: bool = False
    extra_headers: dict[str, str] = field(default_factory=dict)
    #: Instead of answering, cut the connection ("the answer was lost").
    lose_answer: bool = False

    @property
    def gone(self) -> bool:
        """Whether the client hung up."""
        return self.writer.is_closing() or self.reader.at_eof()

    def send(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """A whole answer; anything but bytes is sent as JSON."""
        if self.lose_answer:
            self.abort()
            return
        raw = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
        kind = "text/plain" if isinstance(body, bytes) else "application/json"
        self._head(status, {"Content-Type": kind, "Content-Length": str(len(raw)), **(headers or {})})
        self.writer.write(raw)
        self.sent = True

    def start(self, content_type: str = "application/json") -> None:
        """Begin a chunked answer."""
        self._head(200, {"Content-Type": content_type, "Transfer-Encoding": "chunked"})
        self.streaming = True

    def write(self, chunk: bytes) -> None:
        """One chunk; empty ones are left out, since they would end the stream."""
        if chunk and not self.gone:
            self.writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))

    def end(self) -> None:
        """The last chunk."""
        if not self.gone:
            self.writer.write(b"0\r\n\r\n")
        self.sent = True

    def abort(self) -> None:
        """Cut the connection without an answer."""
        self.sent = True
        self.writer.transport.abort()

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Status"
        lines = [f"HTTP/1.1 {status} {phrase}"]
        lines += [f"{name}: {value}" for name, value in {**headers, **self.extra_headers}.items()]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())


Handler = Callable[[Request, Reply], Awaitable[None]]


class WebServer:
    """Listens on one loopback port; the port survives :meth:`close` and :meth:`listen` (an outage)."""

    def __init__(self, handler: Handler, *, port: int = 0) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = port

    async def listen(self) -> None:
        """Accept connections (again, on the same port)."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=256 * 1024, backlog=512)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Refuse connections and reset the open ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while (request := await _read(reader)) is not None:
                reply = Reply(reader, writer)
                await self._handler(request, reply)
                if writer.is_closing():
                    return
                await writer.drain()
                if request.headers.get("connection", "").lower() == "close":
                    return
        except (
            ConnectionError,
            asyncio.CancelledError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
            TimeoutError,
        ):
            return  # the client is gone or does not speak HTTP, or the server ends
        finally:
            self._writers.discard(writer)
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *rest = head.decode("latin-1").split("\r\n")
    method, target, _version = first.split(" ", 2)
    headers = {}
    for line in filter(None, rest):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    length = min(int(headers.get("content-length", "0")), LARGEST_BODY)
    body = await reader.readexactly(length) if length else b""
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Request(method=method, path=unquote(parts.path), query=query, headers=headers, body=body)
