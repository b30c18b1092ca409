"""How the Job controller judges pods that ended: the pod failure policy, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.kubernetes.kinds import Object


@dataclass(frozen=True)
class Judgement:
    """What a failed pod means for its Job."""

    #: Whether it counts against ``backoffLimit`` and in ``status.failed``.
    counts: bool = True
    #: The message of the condition, when the pod ends the Job.
    fails_job: str | None = None


def judge(policy: Mapping[str, Any] | None, pod: Object) -> Judgement:
    """The first rule that matches decides; without one a failed pod counts."""
    for number, rule in enumerate((policy or {}).get("rules") or []):
        what = _exit_code_match(rule, pod) if rule.get("onExitCodes") else _condition_match(rule, pod)
        if what is None:
            continue
        if rule["action"] == "Ignore":
            return Judgement(counts=False)
        if rule["action"] == "FailJob":
            return Judgement(fails_job=f"{what} matching FailJob rule at index {number}")
        return Judgement()
    return Judgement()


def _exit_code_match(rule: Mapping[str, Any], pod: Object) -> str | None:
    wanted = rule["onExitCodes"]
    status = pod.get("status") or {}
    for container in [*(status.get("containerStatuses") or []), *(status.get("initContainerStatuses") or [])]:
        ended = (container.get("state") or {}).get("terminated")
        if ended is None or wanted.get("containerName") not in (None, container["name"]):
            continue
        code = ended["exitCode"]
        if code != 0 and (code in wanted["values"]) == (wanted["operator"] == "In"):
            place = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            return f"Container {container['name']} for pod {place} failed with exit code {code}"
    return None


def _condition_match(rule: Mapping[str, Any], pod: Object) -> str | None:
    conditions = (pod.get("status") or {}).get("conditions") or []
    for pattern in rule.get("onPodConditions") or []:
        for condition in conditions:
            if condition["type"] == pattern["type"] and condition["status"] == pattern.get("status", "True"):
                place = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
                return f"Pod {place} has condition {condition['type']}"
    return None
