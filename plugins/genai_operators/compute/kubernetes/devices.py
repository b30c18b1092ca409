"""GPUs claimed by dynamic resource allocation (``resource.k8s.io/v1``): by what they can do, with a second choice."""

from __future__ import annotations

from typing import Any

from genai_operators.compute.kubernetes import names, placement
from genai_operators.compute.kubernetes.gpu_products import PRODUCTS
from genai_operators.compute.kubernetes.pod import CLAIM, PodRequest, claim_template_name

#: Of the claimed devices' attributes and capacities: the domain under which NVIDIA's driver publishes them.
DOMAIN = "gpu.nvidia.com"


def claim_template(request: PodRequest, *, owner: dict[str, Any]) -> dict[str, Any]:
    """The ResourceClaimTemplate beside an attempt's object; it goes when that goes.

    The GPU that was asked for comes first; any other with enough memory is the second choice.
    """
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {
            "name": claim_template_name(request.attempt),
            "namespace": request.settings.namespace,
            "labels": names.labels(request.attempt),
            "annotations": {names.DIRECTORY_ANNOTATION: request.attempt.directory},
            "ownerReferences": [owner],
        },
        "spec": {"spec": {"devices": {"requests": [_device_request(request)]}}},
    }


def _device_request(request: PodRequest) -> dict[str, Any]:
    memory, product = _memory_selector(request), _product_selector(request)
    if product is None:
        return {"name": CLAIM, "exactly": _devices(request, memory)}
    return {
        "name": CLAIM,
        "firstAvailable": [
            {"name": "wanted", **_devices(request, [*memory, product])},
            {"name": "large-enough", **_devices(request, memory)},
        ],
    }


def _devices(request: PodRequest, selectors: list[dict[str, Any]]) -> dict[str, Any]:
    chosen = {"selectors": selectors} if selectors else {}
    return {
        "deviceClassName": request.settings.device_class,
        "allocationMode": "ExactCount",
        "count": request.resources.gpu_count,
        **chosen,
    }


def _memory_selector(request: PodRequest) -> list[dict[str, Any]]:
    needed = placement.needed_memory_mib(request.resources)
    if not needed:
        return []
    return [_cel(f"device.capacity['{DOMAIN}'].memory.compareTo(quantity('{needed}Mi')) > 0")]


def _product_selector(request: PodRequest) -> dict[str, Any] | None:
    products = PRODUCTS.get(request.resources.gpu or "", ())
    if not products:
        return None
    listed = ", ".join(f"'{product}'" for product in products)
    return _cel(f"device.attributes['{DOMAIN}'].productName in [{listed}]")


def _cel(expression: str) -> dict[str, Any]:
    return {"cel": {"expression": expression}}
