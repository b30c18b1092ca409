"""Unknown fields, wrong types and missing fields, by the published OpenAPI schemas (package kubernetes-validate).

Custom kinds have no published schema there; the fields that we may use are written down in ``custom_schemas``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.fakes.kubernetes.custom_schemas import CUSTOM
from tests.fakes.kubernetes.kinds import Kind, Object

SCHEMAS = "v1.35.0-local-strict"
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
#: Types that JSON Schema leaves open but the server does not: a number where a string belongs is refused.
_GO_NAMES = {dict: "object", list: "array", str: "string", bool: "bool", int: "number", float: "number"}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: ``unknown``, ``type`` or ``required``."""

    problem: str
    path: str
    detail: str = ""


@cache
def _folder() -> Path:
    spec = find_spec("kubernetes_validate")
    if spec is None or spec.origin is None:
        raise RuntimeError("the fake cluster needs the package kubernetes-validate; run `make install`")
    return Path(spec.origin).parent / "kubernetes-json-schema" / SCHEMAS


@cache
def _schema(file: str) -> dict[str, Any]:
    return dict(json.loads((_folder() / f"{file}.json").read_text(encoding="utf-8")))


def _resolve(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    return schema if reference is None else _schema(_file_of(reference.rsplit("/", 1)[1]))


@cache
def _file_of(definition: str) -> str:
    """``io.k8s.api.batch.v1.JobSpec`` -> ``jobspec-batch-v1``."""
    *_, group, version, name = definition.split(".")
    if group in ("api", "util", "pkg"):  # io.k8s.apimachinery.pkg.api.resource.Quantity, ...util.intstr.IntOrString
        return f"{name}-{version}".lower()
    return f"{name}-{version}".lower() if group == "core" else f"{name}-{group}-{version}".lower()


def findings(kind: Kind, made: Object) -> list[Finding]:
    """Everything that the schema objects to."""
    if kind.custom:
        schema = CUSTOM.get(kind.plural)
        return [] if schema is None else list(_walk(made, schema, ""))
    group = kind.group.split(".")[0]
    file = "-".join(part for part in (kind.name.lower(), group, kind.version) if part)
    return list(_walk(made, _schema(file), ""))


def _walk(value: Any, schema: dict[str, Any], path: str) -> Iterator[Finding]:
    schema = _resolve(schema)
    if value is None:
        return
    types = [one["type"] for one in schema.get("oneOf", ()) if "type" in one] or schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    expected = [one for one in types if one != "null"]
    if expected and not any(_is(value, one) for one in expected):
        yield Finding("type", path, f"cannot unmarshal {_GO_NAMES[type(value)]} into a field of type {expected[0]}")
    elif isinstance(value, dict):
        yield from _walk_object(value, schema, path)
    elif isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            yield from _walk(item, schema["items"], f"{path}[{number}]")


def _is(value: Any, name: str) -> bool:
    return isinstance(value, _PYTHON_TYPES[name]) and not (isinstance(value, bool) and name != "boolean")


def _walk_object(value: dict[str, Any], schema: dict[str, Any], path: str) -> Iterator[Finding]:
    properties = schema.get("properties")
    others = schema.get("additionalProperties")
    for name, inner in value.items():
        place = f"{path}.{name}" if path else name
        if properties and name in properties:
            yield from _walk(inner, properties[name], place)
        elif isinstance(others, dict):
            yield from _walk(inner, others, place)
        elif properties is not None and others is not True:
            yield Finding("unknown", place)
    for name in schema.get("required", []):
        if value.get(name) is None:
            yield Finding("required", f"{path}.{name}" if path else name)


def prune(made: Object, unknown: list[Finding]) -> None:
    """Drop unknown fields in place, silently, as the server does."""
    for finding in unknown:
        holder: Any = made
        *steps, last = _steps(finding.path)
        for step in steps:
            holder = holder[step]
        holder.pop(last, None)


def _steps(path: str) -> list[Any]:
    """``spec.containers[0].env`` -> ``["spec", "containers", 0, "env"]``; only used on paths of properties."""
    steps: list[Any] = []
    for part in path.split("."):
        name, *numbers = part.replace("]", "").split("[")
        steps += [name, *(int(number) for number in numbers)]
    return steps
