"""The rules beyond the schema that our objects can run into, worded as the API server words them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.fakes.kubernetes.kinds import JOBS, NAMESPACES, PODS, Kind, Object
from tests.fakes.kubernetes.quantities import is_extended, quantity

Cause = tuple[str, str, str]
_LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_LABEL_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_LABEL_NAME = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$")
#: The total of keys and values, as the API server counts them.
LARGEST_ANNOTATIONS = 256 * 1024
#: What of a suspended Job's template may change before it first starts: scheduling directives.
_DIRECTIVES = ("nodeSelector", "affinity", "tolerations", "schedulingGates")


def check(kind: Kind, made: Object) -> list[Cause]:
    """What is wrong with a new object."""
    causes = list(_metadata(kind, made["metadata"]))
    if kind is PODS:
        causes += _pod_spec(made["spec"], "spec")
    if kind is JOBS:
        causes += _job(made)
    return causes


def check_update(kind: Kind, before: Object, after: Object) -> list[Cause]:
    """What must not change."""
    causes = list(_metadata(kind, after["metadata"]))
    if kind is JOBS:
        causes += _job_update(before, after)
    if kind is PODS and _frozen_pod(before["spec"]) != _frozen_pod(after["spec"]):
        message = (
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
            "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
            "previously negative)"
        )
        causes.append(("spec", "FieldValueForbidden", message))
    return causes


def _metadata(kind: Kind, meta: Mapping[str, Any]) -> Iterator[Cause]:
    name = meta.get("name", "")
    pattern, longest = (_LABEL, 63) if kind is NAMESPACES else (_SUBDOMAIN, 253)
    if not pattern.match(name):
        message = (
            f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
            "characters, '-' or '.', and must start and end with an alphanumeric character"
        )
        yield "metadata.name", "FieldValueInvalid", message
    if len(name) > longest:
        yield "metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": must be no more than {longest} bytes'
    yield from _labels(meta.get("labels") or {}, "metadata.labels")
    for key in meta.get("annotations") or {}:
        yield from _label_key(key.lower(), "metadata.annotations")
    if sum(len(key) + len(value) for key, value in (meta.get("annotations") or {}).items()) > LARGEST_ANNOTATIONS:
        yield "metadata.annotations", "FieldValueTooLong", "Too long: may not be more than 262144 bytes"


def _labels(labels: Mapping[str, str], path: str) -> Iterator[Cause]:
    for key, value in labels.items():
        yield from _label_key(key, path)
        if len(value) > 63:
            yield path, "FieldValueInvalid", f'Invalid value: "{value}": must be no more than 63 bytes'
        elif not _LABEL_VALUE.match(value):
            message = (
                f'Invalid value: "{value}": a valid label must be an empty string or consist of alphanumeric '
                "characters, '-', '_' or '.', and must start and end with an alphanumeric character"
            )
            yield path, "FieldValueInvalid", message


def _label_key(key: str, path: str) -> Iterator[Cause]:
    prefix, _, name = key.rpartition("/")
    if (prefix and not _SUBDOMAIN.match(prefix)) or not _LABEL_NAME.match(name) or len(name) > 63:
        message = f"Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or '.'"
        yield path, "FieldValueInvalid", message


def _pod_spec(spec: Mapping[str, Any], path: str) -> Iterator[Cause]:
    volumes = {volume["name"] for volume in spec.get("volumes") or []}
    claims = {claim["name"] for claim in spec.get("resourceClaims") or []}
    if not spec.get("containers"):
        yield f"{path}.containers", "FieldValueRequired", "Required value"
    for group in ("initContainers", "containers"):
        for number, container in enumerate(spec.get(group) or []):
            place = f"{path}.{group}[{number}]"
            yield from _container(container, place, volumes)
            yield from _resources(container.get("resources") or {}, f"{place}.resources", claims)


def _container(container: Mapping[str, Any], path: str, volumes: set[str]) -> Iterator[Cause]:
    if not _LABEL.match(container.get("name", "")):
        yield f"{path}.name", "FieldValueInvalid", f'Invalid value: "{container.get("name", "")}"'
    if not container.get("image"):
        yield f"{path}.image", "FieldValueRequired", "Required value"
    mounted: set[str] = set()
    for number, mount in enumerate(container.get("volumeMounts") or []):
        place = f"{path}.volumeMounts[{number}]"
        if mount["name"] not in volumes:
            yield f"{place}.name", "FieldValueNotFound", f'Not found: "{mount["name"]}"'
        if mount["mountPath"] in mounted:
            message = f'Invalid value: "{mount["mountPath"]}": must be unique'
            yield f"{place}.mountPath", "FieldValueInvalid", message
        mounted.add(mount["mountPath"])


def _resources(resources: Mapping[str, Any], path: str, claims: set[str]) -> Iterator[Cause]:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for name, value in {**limits, **requests}.items():
        try:
            amount = quantity(value)
        except ValueError as error:
            yield f"{path}.requests[{name}]", "FieldValueInvalid", f'Invalid value: "{value}": {error}'
            continue
        if is_extended(name) and amount != amount.to_integral_value():
            yield f"{path}.limits[{name}]", "FieldValueInvalid", f'Invalid value: "{value}": must be an integer'
        if is_extended(name) and limits.get(name) is None:
            message = "Required value: Limit must be set for non overcommitable resources"
            yield f"{path}.limits", "FieldValueRequired", message
        elif name in limits and name in requests and quantity(requests[name]) > quantity(limits[name]):
            message = f'Invalid value: "{requests[name]}": must be less than or equal to {name} limit of {limits[name]}'
            yield f"{path}.requests", "FieldValueInvalid", message
    for number, claim in enumerate(resources.get("claims") or []):
        if claim["name"] not in claims:
            yield f"{path}.claims[{number}].name", "FieldValueNotFound", f'Not found: "{claim["name"]}"'


def _job(made: Object) -> Iterator[Cause]:
    spec = made["spec"]
    pod = spec["template"]["spec"]
    yield from _labels((spec["template"].get("metadata") or {}).get("labels") or {}, "spec.template.labels")
    yield from _pod_spec(pod, "spec.template.spec")
    if len(made["metadata"]["name"]) > 63:  # it becomes a label of the pods
        yield (
            "spec.template.labels",
            "FieldValueInvalid",
            (f'Invalid value: "{made["metadata"]["name"]}": must be no more than 63 bytes'),
        )
    if pod["restartPolicy"] not in ("OnFailure", "Never"):
        message = f'Unsupported value: "{pod["restartPolicy"]}": supported values: "OnFailure", "Never"'
        yield "spec.template.spec.restartPolicy", "FieldValueNotSupported", message
    for name in ("parallelism", "completions", "backoffLimit", "ttlSecondsAfterFinished", "activeDeadlineSeconds"):
        if (spec.get(name) or 0) < 0:
            message = f"Invalid value: {spec[name]}: must be greater than or equal to 0"
            yield f"spec.{name}", "FieldValueInvalid", message
    if spec.get("podFailurePolicy"):
        yield from _failure_policy(spec)


def _failure_policy(spec: Mapping[str, Any]) -> Iterator[Cause]:
    path = "spec.podFailurePolicy.rules"
    if spec["template"]["spec"]["restartPolicy"] != "Never":
        message = 'Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified'
        yield "spec.template.spec.restartPolicy", "FieldValueInvalid", message
    if spec.get("podReplacementPolicy", "Failed") != "Failed":
        message = f'Unsupported value: "{spec["podReplacementPolicy"]}": supported values: "Failed"'
        yield "spec.podReplacementPolicy", "FieldValueNotSupported", message
    names = {container["name"] for container in spec["template"]["spec"]["containers"]}
    for number, rule in enumerate(spec["podFailurePolicy"].get("rules") or []):
        place = f"{path}[{number}]"
        if rule.get("action") not in ("Ignore", "FailJob", "Count", "FailIndex"):
            yield f"{place}.action", "FieldValueNotSupported", f'Unsupported value: "{rule.get("action")}"'
        codes = rule.get("onExitCodes")
        if bool(codes) == bool(rule.get("onPodConditions")):
            message = "Invalid value: specifying one of OnExitCodes and OnPodConditions is required"
            yield place, "FieldValueInvalid", message
        if codes and 0 in codes.get("values", []) and codes.get("operator") == "In":
            message = "Invalid value: 0: must not be 0 for the In operator"
            yield f"{place}.onExitCodes.values", "FieldValueInvalid", message
        if codes and codes.get("containerName") not in (None, *names):
            message = f'Invalid value: "{codes["containerName"]}": must be one of the container or initContainer names'
            yield f"{place}.onExitCodes.containerName", "FieldValueInvalid", message


def _frozen_pod(spec: Mapping[str, Any]) -> dict[str, Any]:
    free = ("tolerations", "activeDeadlineSeconds", "schedulingGates", "nodeSelector", "affinity")
    frozen = {name: value for name, value in spec.items() if name not in free}
    return frozen | {"containers": [{**one, "image": ""} for one in spec.get("containers") or []]}


def _job_update(before: Object, after: Object) -> Iterator[Cause]:
    for name in ("selector", "completionMode", "podFailurePolicy", "podReplacementPolicy", "managedBy"):
        if before["spec"].get(name) != after["spec"].get(name):
            yield f"spec.{name}", "FieldValueInvalid", "Invalid value: field is immutable"
    old, new = before["spec"]["template"], after["spec"]["template"]
    unstarted = before["spec"].get("suspend") and not (before.get("status") or {}).get("startTime")
    if unstarted:
        old, new = _without_directives(old), _without_directives(new)
    if old != new:
        yield "spec.template", "FieldValueInvalid", "Invalid value: field is immutable"


def _without_directives(template: Mapping[str, Any]) -> dict[str, Any]:
    spec = {name: value for name, value in template["spec"].items() if name not in _DIRECTIVES}
    return {"spec": spec}
