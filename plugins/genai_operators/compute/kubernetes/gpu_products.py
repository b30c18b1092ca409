"""GPU types as nodes tell them: NVIDIA's product names beside the names of our catalogue."""

from __future__ import annotations

from collections.abc import Mapping

PRODUCTS: Mapping[str, tuple[str, ...]] = {
    "t4": ("Tesla T4",),
    "l4": ("NVIDIA L4",),
    "a10g": ("NVIDIA A10G",),
    "rtx4090": ("NVIDIA GeForce RTX 4090",),
    "l40s": ("NVIDIA L40S",),
    "a100-40gb": ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"),
    "a100-80gb": ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"),
    "h100": ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe"),
    "h200": ("NVIDIA H200", "NVIDIA H200 NVL"),
    "b200": ("NVIDIA B200",),
}
"""Name in the catalogue -> as ``nvidia-smi`` and the DRA driver's ``productName`` have it."""


def product_labels(gpu: str) -> list[str]:
    """Values of the label ``nvidia.com/gpu.product``: feature discovery writes ``-`` for a space."""
    return sorted(product.replace(" ", "-") for product in PRODUCTS.get(gpu, ()))


def gpu_of_label(label: str) -> str | None:
    """Name in the catalogue, also of shared GPUs and of MIG slices; ``None`` for a product that it does not have."""
    product = label.removesuffix("-SHARED").partition("-MIG-")[0]
    return next((gpu for gpu in PRODUCTS if product in product_labels(gpu)), None)
