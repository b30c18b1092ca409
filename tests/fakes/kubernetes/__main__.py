"""``python -m tests.fakes.kubernetes SETTINGS``: serve one cluster until standard input closes.

Prints one line of JSON with both ports when it is ready. Ends, with every process it started, when its standard input
ends (the test's process died), on SIGTERM, or when its parent is gone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.container import CLUSTER_MARKER, kill_quietly, marked_processes
from tests.fakes.kubernetes.control import Control
from tests.fakes.kubernetes.settings import Settings
from tests.fakes.kubernetes.web import WebServer

#: How often it looks whether its parent is still there.
PARENT_S = 1.0


async def serve(settings: Settings) -> None:
    """Run until told to end."""
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    cluster = Cluster(settings)
    api_server = WebServer(cluster.api.handle)
    control_server = WebServer(Control(cluster, api_server).handle)
    await api_server.listen()
    await control_server.listen()
    loop.add_signal_handler(signal.SIGCHLD, cluster.kubelets.reap)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    loop.add_reader(sys.stdin.fileno(), _on_input, end)
    print(json.dumps({"api": api_server.port, "control": control_server.port}), flush=True)
    await _until(end)
    api_server.close()
    control_server.close()
    cluster.kubelets.kill_all()
    for pid in marked_processes(CLUSTER_MARKER, settings.folder):
        kill_quietly(pid)


def _leave_a_guardian(marker: str) -> None:
    """A small process that ends what is left when this one is killed: a pod's children that left its group."""
    alive, mine = os.pipe()
    if os.fork():
        os.close(alive)
        return  # ``mine`` stays open, unread, as long as this process lives
    os.setsid()
    os.close(mine)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    os.read(alive, 1)
    for pid in marked_processes(CLUSTER_MARKER, marker):
        kill_quietly(pid)
    os._exit(0)


def _on_input(end: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        end.set()


async def _until(end: asyncio.Event) -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        try:
            await asyncio.wait_for(end.wait(), PARENT_S)
        except TimeoutError:
            continue
        return


if __name__ == "__main__":
    loaded = Settings.load(Path(sys.argv[1]))
    _leave_a_guardian(loaded.folder)
    asyncio.run(serve(loaded))
