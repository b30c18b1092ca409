"""``list`` and ``watch``."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.fakes.kubernetes import errors
from tests.fakes.kubernetes.kinds import Kind, Object
from tests.fakes.kubernetes.selectors import Predicate, field_predicate, label_predicate
from tests.fakes.kubernetes.storage import Change, Store
from tests.fakes.kubernetes.web import Reply, Request

#: How often a watch looks whether its client hung up.
LOOK_S = 1.0
#: Without ``timeoutSeconds`` the real server ends a watch after 30 to 60 minutes.
DEFAULT_TIMEOUT_S = (1800, 3600)


def selection(kind: Kind, namespace: str, query: Mapping[str, str]) -> Predicate:
    """What a request asks to see."""
    by_label = label_predicate(query.get("labelSelector", ""))
    by_field = field_predicate(kind, query.get("fieldSelector", ""))

    def chosen(made: Object) -> bool:
        return (not namespace or made["metadata"].get("namespace") == namespace) and by_label(made) and by_field(made)

    return chosen


def list_objects(store: Store, kind: Kind, namespace: str, request: Request) -> Object:
    """A list, in pages when ``limit`` is given. Raises 410 for an exact version that is gone."""
    query = request.query
    version = query.get("resourceVersion", "")
    if query.get("resourceVersionMatch") == "Exact" and version and int(version) < store.compacted:
        raise errors.expired(f"The resourceVersion for the provided list is too old: {version}")
    chosen = [made for made in store.all(kind, namespace or None) if selection(kind, namespace, query)(made)]
    meta: Object = {"resourceVersion": str(store.revision)}
    chosen, rest, token = _page(chosen, query)
    if token:
        meta |= {"continue": token, "remainingItemCount": rest}
    items = chosen if kind.custom else [_bare(made) for made in chosen]
    return {"kind": f"{kind.name}List", "apiVersion": kind.api_version, "metadata": meta, "items": items}


def _bare(made: Object) -> Object:
    """Items of built-in lists carry no kind: their list's does."""
    return {name: value for name, value in made.items() if name not in ("kind", "apiVersion")}


def _page(chosen: list[Object], query: Mapping[str, str]) -> tuple[list[Object], int, str]:
    if query.get("continue"):
        last = tuple(json.loads(base64.urlsafe_b64decode(query["continue"])))
        chosen = [made for made in chosen if _place(made) > last]
    limit = int(query.get("limit") or 0)
    if not limit or len(chosen) <= limit:
        return chosen, 0, ""
    token = base64.urlsafe_b64encode(json.dumps(_place(chosen[limit - 1])).encode()).decode()
    return chosen[:limit], len(chosen) - limit, token


def _place(made: Object) -> tuple[str, str]:
    return made["metadata"].get("namespace", ""), made["metadata"]["name"]


@dataclass
class Watches:
    """The open watches, and the faults that befall them."""

    store: Store
    bookmark_s: float
    #: So many of the next watches are told that their version is too old.
    expire_next: int = 0
    #: While true, open watches stay silent and lose what happens.
    stalled: bool = False
    open: set[Watch] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.store.listen(self._on_change)

    def drop_all(self) -> int:
        """Cut every open watch in the middle. Returns how many."""
        watches = list(self.open)
        for watch in watches:
            watch.reply.abort()
            watch.wake.set()
        return len(watches)

    def _on_change(self, change: Change) -> None:
        for watch in self.open:
            if watch.kind is change.kind:
                watch.offer(change)

    async def serve(self, kind: Kind, namespace: str, request: Request, reply: Reply) -> None:
        """Run one watch to its end."""
        watch = Watch(kind, selection(kind, namespace, request.query), reply)
        begin = self._backlog(watch, namespace, request)
        reply.start()
        if isinstance(begin, errors.ApiError):
            reply.write(_line("ERROR", begin.status()))
            reply.end()
            return
        self.open.add(watch)
        try:
            for line in begin:
                reply.write(line)
            await self._follow(watch, request)
        finally:
            self.open.discard(watch)

    def _backlog(self, watch: Watch, namespace: str, request: Request) -> list[bytes] | errors.ApiError:
        version = request.query.get("resourceVersion", "")
        if self.expire_next > 0 and version not in ("", "0"):
            self.expire_next -= 1
            return errors.expired(f"too old resource version: {version} ({self.store.revision})")
        initial = request.flag("sendInitialEvents")
        if version in ("", "0") or initial:
            present = [made for made in self.store.all(watch.kind, namespace or None) if watch.chosen(made)]
            lines = [_line("ADDED", made) for made in present]
            return [*lines, self._bookmark(watch.kind, initial=True)] if initial else lines
        try:
            changes = list(self.store.since(int(version)))
        except errors.ApiError as refusal:
            return refusal
        return [line for change in changes if change.kind is watch.kind and (line := watch.line(change))]

    async def _follow(self, watch: Watch, request: Request) -> None:
        loop = asyncio.get_running_loop()
        asked = float(request.query.get("timeoutSeconds") or 0)
        ends = loop.time() + (asked or random.uniform(*DEFAULT_TIMEOUT_S))
        bookmarks = request.flag("allowWatchBookmarks")
        next_bookmark = loop.time() + self.bookmark_s
        while not watch.reply.gone and (left := ends - loop.time()) > 0:
            await watch.wait(min(LOOK_S, left))
            if self.stalled:
                watch.pending.clear()
                continue
            watch.flush()
            if bookmarks and loop.time() >= next_bookmark:
                next_bookmark = loop.time() + self.bookmark_s
                watch.reply.write(self._bookmark(watch.kind))
            if not watch.reply.gone:
                await watch.reply.writer.drain()
        if bookmarks and not self.stalled:
            watch.reply.write(self._bookmark(watch.kind))
        watch.reply.end()

    def _bookmark(self, kind: Kind, *, initial: bool = False) -> bytes:
        meta: Object = {"resourceVersion": str(self.store.revision), "creationTimestamp": None}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        return _line("BOOKMARK", {"kind": kind.name, "apiVersion": kind.api_version, "metadata": meta})


@dataclass(eq=False)
class Watch:
    """One open watch."""

    kind: Kind
    chosen: Predicate
    reply: Reply
    pending: list[bytes] = field(default_factory=list)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, change: Change) -> None:
        """Note a change if it concerns this watch."""
        if line := self.line(change):
            self.pending.append(line)
            self.wake.set()

    def line(self, change: Change) -> bytes | None:
        """The event as this watch sees it: leaving the selection looks like deletion, entering it like creation."""
        before = change.previous is not None and self.chosen(change.previous)
        after = self.chosen(change.object)
        if change.type == "DELETED" or (before and not after):
            return _line("DELETED", change.object) if before or after else None
        if not after:
            return None
        return _line("MODIFIED" if before else "ADDED", change.object)

    async def wait(self, seconds: float) -> None:
        """Until something happens, at most so long."""
        if not self.pending:
            self.wake.clear()
            try:
                await asyncio.wait_for(self.wake.wait(), seconds)
            except TimeoutError:
                return

    def flush(self) -> None:
        """Send what is pending."""
        lines, self.pending = self.pending, []
        self.reply.write(b"".join(lines))


def _line(type_: str, made: Object) -> bytes:
    return json.dumps({"type": type_, "object": made}, separators=(",", ":")).encode() + b"\n"
