"""Resource quantities (``500m``, ``16Gi``) and what pods ask for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any

from tests.fakes.kubernetes.kinds import Object

_SUFFIXES = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal(10**3),
    "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip
_QUANTITY = re.compile(r"^([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)$")
_BUILT_IN = ("cpu", "memory", "ephemeral-storage")


@cache
def _parse(text: str) -> Decimal:
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"quantities must match the regular expression of resource.Quantity, got {text!r}")
    number, exponent, suffix = match.groups()
    return Decimal(number + exponent) if exponent else Decimal(number) * _SUFFIXES[suffix or ""]


def quantity(value: Any) -> Decimal:
    """The number behind a quantity. Raises ValueError."""
    return _parse(str(value))


def is_extended(resource: str) -> bool:
    """Whether a resource is a device such as ``nvidia.com/gpu``: whole numbers, request equals limit."""
    return resource not in _BUILT_IN and not resource.startswith("hugepages-")


def container_requests(container: Mapping[str, Any]) -> dict[str, Decimal]:
    """Requests, which default to limits."""
    resources = container.get("resources") or {}
    merged = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: quantity(value) for name, value in merged.items()}


def pod_requests(spec: Mapping[str, Any]) -> dict[str, Decimal]:
    """What a pod takes from a node: the sum over containers, at least the largest init container; one pod."""
    total: dict[str, Decimal] = defaultdict(Decimal)
    for container in spec.get("containers") or []:
        for name, amount in container_requests(container).items():
            total[name] += amount
    for container in spec.get("initContainers") or []:
        for name, amount in container_requests(container).items():
            total[name] = max(total[name], amount)
    for name, amount in (spec.get("overhead") or {}).items():
        total[name] += quantity(amount)
    return {**total, "pods": Decimal(1)}


def add_up(pods: Iterable[Object]) -> dict[str, Decimal]:
    """What several pods take together."""
    total: dict[str, Decimal] = defaultdict(Decimal)
    for pod in pods:
        for name, amount in pod_requests(pod["spec"]).items():
            total[name] += amount
    return total


def written(amount: Decimal) -> str:
    """A quantity as text, in plain numbers or milli."""
    if amount == amount.to_integral_value():
        return str(int(amount))
    return f"{int(amount * 1000)}m"
