"""``/version``, ``/api``, ``/apis`` and the resource lists."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tests.fakes.kubernetes.kinds import ALL_VERBS, KINDS, PODS, REVIEWS, Kind, Object


def answer(path: str, *, without: Collection[str], version: str) -> Object | None:
    """The discovery document behind a path, or None when the path is none."""
    steps = [step for step in path.split("/") if step]
    if steps == ["version"]:
        return _version(version)
    if steps == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    if steps == ["apis"]:
        groups = [_group(group) for group in _groups(without)]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if len(steps) == 2 and steps[0] == "apis" and steps[1] in _groups(without):
        return {"kind": "APIGroup", "apiVersion": "v1", **_group(steps[1])}
    if steps == ["api", "v1"]:
        return _resources("", "v1")
    if len(steps) == 3 and steps[0] == "apis" and steps[1] in _groups(without) and steps[2] == _version_of(steps[1]):
        return _resources(steps[1], steps[2])
    return None


def _version(version: str) -> Object:
    major, minor, _ = version.removeprefix("v").split(".")
    built = {"gitCommit": "0" * 40, "gitTreeState": "clean", "buildDate": "2026-02-10T12:53:16Z"}
    compiled = {"goVersion": "go1.25.6", "compiler": "gc", "platform": "linux/amd64"}
    return {"major": major, "minor": minor, "gitVersion": version, **built, **compiled}


def _groups(without: Collection[str]) -> list[str]:
    return list(dict.fromkeys(kind.group for kind in KINDS if kind.group and kind.group not in without))


def _version_of(group: str) -> str:
    return next(kind.version for kind in KINDS if kind.group == group)


def _group(group: str) -> Object:
    entry = {"groupVersion": f"{group}/{_version_of(group)}", "version": _version_of(group)}
    return {"name": group, "versions": [entry], "preferredVersion": entry}


def _resources(group: str, version: str) -> Object:
    resources: list[dict[str, Any]] = []
    for kind in KINDS:
        if (kind.group, kind.version) == (group, version):
            resources += _entries(kind)
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


def _entries(kind: Kind) -> list[dict[str, Any]]:
    common = {"singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.name}
    verbs = ["create"] if kind is REVIEWS else list(ALL_VERBS)
    main = {"name": kind.plural, **common, "verbs": verbs}
    if kind.short_names:
        main["shortNames"] = list(kind.short_names)
    entries: list[dict[str, Any]] = [main]
    if kind.status:
        entries.append({"name": f"{kind.plural}/status", **common, "verbs": ["get", "patch", "update"]})
    if kind is PODS:
        entries.append({"name": "pods/log", **common, "verbs": ["get"]})
        entries.append({"name": "pods/eviction", **common, "kind": "Eviction", "verbs": ["create"]})
    return entries
