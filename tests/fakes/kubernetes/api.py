"""Routing: from a request to the store and back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tests.fakes.kubernetes import discovery, errors
from tests.fakes.kubernetes.admission import Admission
from tests.fakes.kubernetes.deletion import ORPHANED_PODS_WARNING, delete
from tests.fakes.kubernetes.gate import Gate
from tests.fakes.kubernetes.kinds import JOBS, PODS, REVIEWS, Kind, Object, find_kind
from tests.fakes.kubernetes.patch import apply_patch
from tests.fakes.kubernetes.storage import Store, copy_of, now
from tests.fakes.kubernetes.watch import Watches, list_objects, selection
from tests.fakes.kubernetes.web import Reply, Request

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get", "DELETE": "delete"}


class PodSubresources(Protocol):
    """What the kubelet answers for the API server."""

    async def log(self, pod: Object, request: Request, reply: Reply) -> None:
        """``pods/log``."""

    def evict(self, pod: Object, options: Object) -> Object:
        """``pods/eviction``."""


@dataclass(frozen=True)
class Target:
    """What a path names."""

    kind: Kind
    namespace: str
    name: str
    subresource: str

    @property
    def resource(self) -> str:
        """``jobs``, ``pods/log``."""
        return self.kind.plural + (f"/{self.subresource}" if self.subresource else "")


@dataclass
class Api:
    """The API server."""

    store: Store
    gate: Gate
    watches: Watches
    admission: Admission
    pods: PodSubresources
    without: set[str]
    version: str

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request."""
        try:
            await self._handle(request, reply)
        except errors.NoSuchPath as refusal:
            reply.send(refusal.code, refusal.body)
        except errors.ApiError as refusal:
            reply.send(refusal.code, refusal.status(), refusal.headers)

    async def _handle(self, request: Request, reply: Reply) -> None:
        if self.gate.latency_s:
            await asyncio.sleep(self.gate.latency_s)
        if request.path in ("/healthz", "/livez", "/readyz"):
            reply.send(200, b"ok")
            return
        target = self._target(request.path)
        verb = self._verb(request, target)
        resource = target.resource if target else "discovery"
        namespace = target.namespace if target else ""
        self.gate.requests[f"{verb} {resource}"] += 1
        self.gate.refuse_if_injected(verb, resource, namespace)
        user = self.gate.authenticate(request.headers)
        if target is None:
            self._discover(request, reply)
            return
        self.gate.authorize(
            user=user, verb=verb, kind=target.kind, subresource=target.subresource, namespace=namespace,
            name=target.name,
        )  # fmt: skip
        reply.lose_answer = self.gate.loses_answer(verb, resource)
        await self._dispatch(verb, target, request, reply, user)

    def _discover(self, request: Request, reply: Reply) -> None:
        document = discovery.answer(request.path, without=self.without, version=self.version)
        if document is None:
            raise errors.NoSuchPath()
        reply.send(200, document)

    def _target(self, path: str) -> Target | None:
        steps = [step for step in path.split("/") if step]
        if steps[:1] == ["api"] and len(steps) > 2:
            group, version, rest = "", steps[1], steps[2:]
        elif steps[:1] == ["apis"] and len(steps) > 3:
            group, version, rest = steps[1], steps[2], steps[3:]
        else:
            return None
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        kind = find_kind(group, version, rest[0])
        if kind is None or group in self.without or (namespace and not kind.namespaced):
            raise errors.NoSuchPath()
        name, subresource = [*rest[1:], "", ""][:2]
        return Target(kind, namespace, name, subresource)

    def _verb(self, request: Request, target: Target | None) -> str:
        verb = _VERBS.get(request.method, "get")
        if target is None or target.name:
            return verb
        if request.method == "GET":
            return "watch" if request.flag("watch") else "list"
        return "deletecollection" if verb == "delete" else verb

    async def _dispatch(self, verb: str, target: Target, request: Request, reply: Reply, user: str) -> None:
        if target.subresource == "log" and target.kind is PODS and verb == "get":
            pod = self.store.get(PODS, target.namespace, target.name)
            await self.pods.log(pod, request, reply)
            return
        if verb == "watch":
            reply.lose_answer = False
            await self.watches.serve(target.kind, target.namespace, request, reply)
            return
        if target.kind is REVIEWS and verb == "create":
            self._review(target, request, reply, user)
            return
        if target.subresource not in ("", "status") and (target.kind, target.subresource) != (PODS, "eviction"):
            raise errors.NoSuchPath()
        handlers: dict[str, Callable[[Target, Request, Reply], Awaitable[None]]] = {
            "create": self._create, "get": self._get, "list": self._list, "update": self._update,
            "patch": self._patch, "delete": self._delete, "deletecollection": self._delete_collection,
        }  # fmt: skip
        await handlers[verb](target, request, reply)

    # --- verbs -------------------------------------------------------------------------------------------------

    async def _get(self, target: Target, _request: Request, reply: Reply) -> None:
        reply.send(200, self.store.get(target.kind, target.namespace, target.name))

    async def _list(self, target: Target, request: Request, reply: Reply) -> None:
        reply.send(200, list_objects(self.store, target.kind, target.namespace, request))

    async def _create(self, target: Target, request: Request, reply: Reply) -> None:
        body = _body(request)
        if target.subresource == "eviction":
            pod = self.store.get(PODS, target.namespace, target.name)
            reply.send(201, self.pods.evict(pod, body.get("deleteOptions") or {}))
            return
        made, warnings = self.admission.prepare(target.kind, target.namespace, body, request.query)
        _warn(reply, warnings)
        if request.query.get("dryRun") == "All":
            if self.store.find(target.kind, target.namespace, made["metadata"]["name"]) is not None:
                raise errors.already_exists(target.kind, made["metadata"]["name"])
            reply.send(201, made | {"metadata": made["metadata"] | {"creationTimestamp": now()}})
            return
        reply.send(201, self.store.create(target.kind, made))

    async def _update(self, target: Target, request: Request, reply: Reply) -> None:
        body = _body(request)
        reply.send(200, self._write(target, body, body.get("metadata", {}).get("resourceVersion"), request, reply))

    async def _patch(self, target: Target, request: Request, reply: Reply) -> None:
        content_type = request.headers.get("content-type", "")
        patch = _parse(request.body)
        if "apply-patch" in content_type and self.store.find(target.kind, target.namespace, target.name) is None:
            await self._create(Target(target.kind, target.namespace, "", ""), request, reply)
            return
        current = self.store.get(target.kind, target.namespace, target.name)
        wanted = (patch.get("metadata") or {}).get("resourceVersion") if isinstance(patch, dict) else None
        changed = apply_patch(target.kind, current, patch, content_type)
        reply.send(200, self._write(target, changed, wanted, request, reply))

    def _write(self, target: Target, wanted: Object, version: str | None, request: Request, reply: Reply) -> Object:
        """Store a wanted state; the status only through its subresource, everything else only outside of it."""
        current = self.store.get(target.kind, target.namespace, target.name)
        if target.subresource == "status":
            wanted = copy_of(current) | {"status": wanted.get("status")}
        else:
            wanted, warnings = self.admission.prepare_update(target.kind, current, wanted, request.query)
            _warn(reply, warnings)

        def replace(made: Object) -> None:
            made.clear()
            made.update(wanted)

        return self.store.update(target.kind, target.namespace, target.name, replace, version=version)

    async def _delete(self, target: Target, request: Request, reply: Reply) -> None:
        options = _delete_options(request)
        if target.kind is JOBS and not ({"propagationPolicy", "orphanDependents"} & options.keys()):
            reply.extra_headers["Warning"] = ORPHANED_PODS_WARNING
        if options.get("dryRun"):
            reply.send(200, self.store.get(target.kind, target.namespace, target.name))
            return
        last = delete(self.store, target.kind, target.namespace, target.name, options)
        gone = self.store.find(target.kind, target.namespace, target.name) is None
        reply.send(200, _deleted(target.kind, last) if gone and target.kind is not PODS else last)

    async def _delete_collection(self, target: Target, request: Request, reply: Reply) -> None:
        options = _delete_options(request)
        chosen = selection(target.kind, target.namespace, request.query)
        found = [made for made in self.store.all(target.kind, target.namespace or None) if chosen(made)]
        for made in found:
            delete(self.store, target.kind, made["metadata"].get("namespace", ""), made["metadata"]["name"], options)
        meta = {"resourceVersion": str(self.store.revision)}
        listed = {"kind": f"{target.kind.name}List", "apiVersion": target.kind.api_version, "metadata": meta}
        reply.send(200, listed | {"items": found})

    def _review(self, target: Target, request: Request, reply: Reply, user: str) -> None:
        body = _body(request)
        asked = (body.get("spec") or {}).get("resourceAttributes") or {}
        plural = asked.get("resource", "") + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        allowed = asked.get("group", "") not in self.without and self.gate.allowed(
            user=user, verb=asked.get("verb", ""), resource=plural, namespace=asked.get("namespace", "")
        )
        body["status"] = {"allowed": allowed} | ({"reason": "RBAC: allowed by the fake"} if allowed else {})
        body |= {"kind": target.kind.name, "apiVersion": target.kind.api_version}
        reply.send(201, body)


def _parse(raw: bytes) -> Any:
    try:
        return json.loads(raw or b"{}")
    except ValueError as error:
        raise errors.bad_request(f"the object provided is unrecognized: {error}") from error


def _body(request: Request) -> Object:
    parsed = _parse(request.body)
    if not isinstance(parsed, dict):
        raise errors.bad_request("the object provided is unrecognized: it is not an object")
    return parsed


def _delete_options(request: Request) -> Object:
    options = _body(request) if request.body else {}
    for name in ("propagationPolicy", "gracePeriodSeconds", "dryRun"):
        if name in request.query:
            options[name] = int(request.query[name]) if name == "gracePeriodSeconds" else request.query[name]
    return {name: value for name, value in options.items() if value is not None}


def _deleted(kind: Kind, last: Object) -> Object:
    details = {"name": last["metadata"]["name"], "kind": kind.plural, "uid": last["metadata"]["uid"]}
    if kind.group:
        details["group"] = kind.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _warn(reply: Reply, warnings: list[str]) -> None:
    if warnings:
        reply.extra_headers["Warning"] = ", ".join(f'299 - "{text}"' for text in warnings)
