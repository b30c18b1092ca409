"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.kubernetes import errors
from tests.fakes.kubernetes.kinds import EVENTS, JOBS, PODS, Kind, Object

Predicate = Callable[[Object], bool]
_SET_BASED = re.compile(r"^(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^)]*)\)$")
_EQUALITY = re.compile(r"^(?P<key>[^=!\s]+)\s*(?P<operator>!=|==|=)\s*(?P<value>[^=!\s]*)$")
_FIELDS: dict[Kind, tuple[str, ...]] = {
    PODS: ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "status.phase"),
    EVENTS: (
        "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
        "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
        "reportingComponent", "source", "type",
    ),
    JOBS: ("status.successful",),
}  # fmt: skip


def label_predicate(selector: str) -> Predicate:
    """``a=b,c!=d,e in (f,g),h notin (i),j,!k``. Raises 400."""
    tests = [_label_test(part.strip()) for part in re.split(r",(?![^(]*\))", selector) if part.strip()]
    return lambda made: all(test(made["metadata"].get("labels") or {}) for test in tests)


def _label_test(part: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _SET_BASED.match(part):
        key, values = match["key"], {value.strip() for value in match["values"].split(",")}
        if match["operator"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _EQUALITY.match(part):
        key, value = match["key"], match["value"]
        if match["operator"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    name = part.removeprefix("!").strip()
    if not re.fullmatch(r"[A-Za-z0-9][\w./-]*", name):
        raise errors.bad_request(f"unable to parse requirement: found '{part}', expected: identifier")
    if part.startswith("!"):
        return lambda labels: name not in labels
    return lambda labels: name in labels


def field_predicate(kind: Kind, selector: str) -> Predicate:
    """``metadata.name=x,status.phase!=Failed``; only the fields that the real server knows for the kind."""
    tests: list[Predicate] = []
    for part in filter(None, selector.split(",")):
        match = _EQUALITY.match(part.strip())
        if match is None:
            raise errors.bad_request(f"invalid selector: '{selector}'; can't understand '{part}'")
        if match["key"] not in ("metadata.name", "metadata.namespace", *_FIELDS.get(kind, ())):
            raise errors.bad_request(f"field label not supported: {match['key']}")
        tests.append(_field_test(match["key"], match["value"], negated=match["operator"] == "!="))
    return lambda made: all(test(made) for test in tests)


def _field_test(path: str, value: str, *, negated: bool) -> Predicate:
    def holds(made: Object) -> bool:
        found: Any = made
        for step in path.split("."):
            found = found.get(step) if isinstance(found, dict) else None
        return (str(found if found is not None else "") == value) is not negated

    return holds


def matches_selector(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """A ``LabelSelector`` object with ``matchLabels`` and ``matchExpressions``."""
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        expression_holds(expression, labels) for expression in selector.get("matchExpressions") or []
    )


def expression_holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """One requirement of a label selector or a node selector."""
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
    found = labels.get(key)
    if operator == "In":
        return found in values
    if operator == "NotIn":
        return found not in values
    if operator == "Exists":
        return found is not None
    if operator == "DoesNotExist":
        return found is None
    return _compares(operator, found, values)


def _compares(operator: str, found: str | None, values: list[str]) -> bool:
    try:
        left, right = int(found or ""), int(values[0])
    except (ValueError, IndexError):
        return False
    return left > right if operator == "Gt" else left < right
