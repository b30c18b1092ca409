"""The patch formats: JSON patch, merge patch, strategic merge patch (merge keys of the lists that we use)."""

from __future__ import annotations

from typing import Any

from tests.fakes.kubernetes import errors
from tests.fakes.kubernetes.kinds import Kind, Object
from tests.fakes.kubernetes.storage import copy_of

#: By field name: how list entries are matched in a strategic merge; other lists are replaced.
MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath",
    "conditions": "type", "ownerReferences": "uid", "ports": "containerPort", "taints": "key",
    "imagePullSecrets": "name", "resourceClaims": "name",
}  # fmt: skip
_SETS = ("finalizers",)


def apply_patch(kind: Kind, current: Object, patch: Any, content_type: str) -> Object:
    """The patched copy. Raises 400, 415 or 422."""
    content_type = content_type.split(";")[0].strip()
    if content_type == "application/json-patch+json":
        return _json_patch(kind, copy_of(current), patch)
    if not isinstance(patch, dict):
        raise errors.bad_request("error decoding patch: json: cannot unmarshal array into Go value of type map")
    if content_type in ("application/merge-patch+json", "application/apply-patch+yaml"):
        return dict(_merge(copy_of(current), patch))
    if content_type == "application/strategic-merge-patch+json" and not kind.custom:
        return dict(_strategic(copy_of(current), patch))
    supported = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        f"{supported}{'' if kind.custom else ', application/strategic-merge-patch+json'}"
    )
    raise errors.ApiError(415, "UnsupportedMediaType", message)


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = target if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value)
    return merged


def _strategic(target: Any, patch: Any, field: str = "") -> Any:
    if isinstance(patch, list):
        return _strategic_list(target if isinstance(target, list) else [], patch, field)
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    merged = target if isinstance(target, dict) else {}
    for name, value in patch.items():
        if name.startswith("$"):
            _directive(merged, name, value)
        elif value is None:
            merged.pop(name, None)
        else:
            merged[name] = _strategic(merged.get(name), value, name)
    return merged


def _directive(merged: Object, name: str, value: Any) -> None:
    prefix = "$deleteFromPrimitiveList/"
    if name.startswith(prefix) and isinstance(merged.get(name.removeprefix(prefix)), list):
        field = name.removeprefix(prefix)
        merged[field] = [one for one in merged[field] if one not in value]


def _strategic_list(target: list[Any], patch: list[Any], field: str) -> list[Any]:
    if field in _SETS:
        return target + [one for one in patch if one not in target]
    key = MERGE_KEYS.get(field)
    if key is None:
        return patch
    merged = list(target)
    for entry in patch:
        place = next((at for at, one in enumerate(merged) if one.get(key) == entry.get(key)), None)
        if entry.get("$patch") == "delete":
            merged = [one for at, one in enumerate(merged) if at != place]
        elif place is None:
            merged.append(entry)
        else:
            merged[place] = _strategic(merged[place], entry)
    return merged


def _json_patch(kind: Kind, target: Object, operations: list[Object]) -> Object:
    for operation in operations:
        steps = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
        try:
            _one_operation(target, steps, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            name = target["metadata"]["name"]
            message = f"the server rejected our request due to an error in our request: {operation} ({error!r})"
            raise errors.invalid(kind, name, [("patch", "FieldValueInvalid", message)]) from error
    return target


def _one_operation(target: Any, steps: list[str], operation: Object) -> None:
    for step in steps[:-1]:
        target = target[int(step)] if isinstance(target, list) else target[step]
    last, action = steps[-1], operation["op"]
    place: Any = last
    if isinstance(target, list):
        place = len(target) if last == "-" else int(last)
    if action == "test":
        if target[place] != operation["value"]:
            raise ValueError("test failed")
    elif action == "remove":
        del target[place]
    elif action == "add" and isinstance(target, list):
        target.insert(place, operation["value"])
    elif action in ("add", "replace"):
        if action == "replace" and isinstance(target, dict) and place not in target:
            raise KeyError(place)
        target[place] = operation["value"]
    else:
        raise ValueError(f"unsupported operation {action}")
