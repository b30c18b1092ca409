"""What all controllers share: a work queue with delays, on one event loop, and the events they publish."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable, Hashable
from typing import Any

from tests.fakes.kubernetes.kinds import EVENTS, Object
from tests.fakes.kubernetes.storage import Store, micro_now, now, random_suffix


class WorkQueue:
    """Runs ``work(key)`` soon after :meth:`add`; several adds before it runs are one run."""

    def __init__(self, work: Callable[[Any], None]) -> None:
        self._work = work
        self._due: dict[Hashable, tuple[float, asyncio.TimerHandle]] = {}

    def add(self, key: Hashable, *, after: float = 0.0) -> None:
        """Look at ``key`` in ``after`` seconds, or earlier if somebody asks for it earlier."""
        loop = asyncio.get_running_loop()
        moment = loop.time() + max(0.0, after)
        if key in self._due:
            earlier, handle = self._due[key]
            if earlier <= moment:
                return
            handle.cancel()
        self._due[key] = (moment, loop.call_at(moment, self._run, key))

    def _run(self, key: Hashable) -> None:
        del self._due[key]
        run_guarded(lambda: self._work(key))


def run_guarded(work: Callable[[], None]) -> None:
    """A controller's mistake is printed to the server's log and must not end the server."""
    try:
        work()
    except Exception:
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()


class Recorder:
    """Publishes core/v1 events; equal ones are counted in one object, as client-go does."""

    def __init__(self, store: Store, component: str) -> None:
        self._store = store
        self._component = component
        self._known: dict[tuple[str, str, str], str] = {}

    def event(self, about: Object, reason: str, message: str, *, warning: bool = False, node: str = "") -> None:
        """One event about one object."""
        meta = about["metadata"]
        namespace = meta.get("namespace") or "default"
        known = (meta["uid"], reason, message)
        if (name := self._known.get(known)) and self._store.find(EVENTS, namespace, name):
            self._store.update(EVENTS, namespace, name, _count)
            return
        name = f"{meta['name'][:200]}.{random_suffix(16)}"
        self._known[known] = name
        involved = {"kind": about["kind"], "name": meta["name"], "uid": meta["uid"], "apiVersion": about["apiVersion"]}
        if meta.get("namespace"):
            involved["namespace"] = meta["namespace"]
        involved["resourceVersion"] = meta["resourceVersion"]
        moment = now()
        source = {"component": self._component, **({"host": node} if node else {})}
        self._store.create(
            EVENTS,
            {
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": involved,
                "reason": reason,
                "message": message,
                "source": source,
                "firstTimestamp": moment,
                "lastTimestamp": moment,
                "eventTime": None,
                "count": 1,
                "type": "Warning" if warning else "Normal",
                "reportingComponent": self._component,
                "reportingInstance": node,
            },
        )


def _count(event: Object) -> None:
    event["count"] = event.get("count", 1) + 1
    event["lastTimestamp"] = now()
    event["series"] = {"count": event["count"], "lastObservedTime": micro_now()}
