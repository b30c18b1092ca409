"""Ports for servers that tests start, stop and start again."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

_OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST, _USUALLY_FIRST_OUTGOING = 10_000, 32_768


def free_port() -> int:
    """A port that nobody listens on at this moment and that the system gives to no outgoing connection.

    So it is still free when its server, which was away for a moment, comes back.
    """
    first_outgoing = int(_OUTGOING.read_text().split()[0]) if _OUTGOING.exists() else _USUALLY_FIRST_OUTGOING
    while True:
        port = _LOWEST + secrets.randbelow(max(first_outgoing - _LOWEST, 1))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
