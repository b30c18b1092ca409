"""What the API server fills in."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from tests.fakes.kubernetes.kinds import JOBS, PODS, SECRETS, Kind, Object


def set_defaults(kind: Kind, made: Object) -> None:
    """Fill in defaults, in place."""
    setters: dict[Kind, Callable[[Object], None]] = {PODS: _pod, JOBS: _job, SECRETS: _secret}
    if setter := setters.get(kind):
        setter(made)


def _secret(made: Object) -> None:
    """``stringData`` is for writing only."""
    plain: dict[str, str] = made.pop("stringData", None) or {}
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in plain.items()}
    made["data"] = {**(made.get("data") or {}), **encoded}
    made.setdefault("type", "Opaque")


def _pod(made: Object) -> None:
    pod_spec_defaults(made["spec"])
    made["status"] = {"phase": "Pending", "qosClass": _quality(made["spec"])}
    tolerations = made["spec"].setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(one.get("key") in (key, None) and one.get("effect") in ("NoExecute", None) for one in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})


def pod_spec_defaults(spec: Object) -> None:
    """Defaults of a pod's spec; also those of a template."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        _container(container)
    for volume in spec.get("volumes") or []:
        for source in ("secret", "configMap", "projected", "downwardAPI"):
            if source in volume and isinstance(volume[source], dict):
                volume[source].setdefault("defaultMode", 0o644)


def _container(container: Object) -> None:
    image = container.get("image", "")
    floating = "@" not in image and (":" not in image.rsplit("/", 1)[-1] or image.endswith(":latest"))
    container.setdefault("imagePullPolicy", "Always" if floating else "IfNotPresent")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    resources = container.setdefault("resources", {})
    limits = resources.get("limits") or {}
    for name, value in limits.items():
        resources.setdefault("requests", {}).setdefault(name, value)
    for variable in container.get("env") or []:
        field: dict[str, Any] | None = (variable.get("valueFrom") or {}).get("fieldRef")
        if field is not None:
            field.setdefault("apiVersion", "v1")


def _quality(spec: Object) -> str:
    resources = [container.get("resources") or {} for container in spec.get("containers") or []]
    if all(not one.get("requests") and not one.get("limits") for one in resources):
        return "BestEffort"
    guaranteed = all(
        (one.get("limits") or {}).get(name) is not None
        and (one.get("limits") or {}).get(name) == (one.get("requests") or {}).get(name)
        for one in resources
        for name in ("cpu", "memory")
    )
    return "Guaranteed" if guaranteed else "Burstable"


def _job(made: Object) -> None:
    spec = made["spec"]
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed")
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or []:
        for pattern in rule.get("onPodConditions") or []:
            pattern.setdefault("status", "True")
    pod_spec_defaults(spec["template"]["spec"])
    made["status"] = {}
