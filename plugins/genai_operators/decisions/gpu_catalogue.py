"""GPU types: what their data sheets say. Prices are not here; they change (``include/prices.yaml``)."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from genai_operators.exceptions import ConfigurationError

MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One type of GPU.

    :param memory: bytes that ``nvidia-smi`` shows as total.
    :param teraflops: dense half-precision tensor throughput, 10^12 per second, without sparsity.
    :param fp32_teraflops: the same outside of the tensor cores, which PyTorch uses for fp32 unless TF32 is allowed.
    :param bandwidth: of its memory, bytes per second. :param link: to the next GPU of its machine, bytes per second in
        one direction (NVLink, else PCIe). :param bf16: whether it computes bfloat16.
    """

    name: str
    memory: float
    teraflops: float
    fp32_teraflops: float
    bandwidth: float
    link: float
    bf16: bool = True
    most_per_node: int = 8


_PCIE_3, _PCIE_4 = 16e9, 32e9
CATALOGUE = {
    gpu.name: gpu
    for gpu in (
        Gpu(name="t4", memory=15360 * MIB, teraflops=65, fp32_teraflops=8.1, bandwidth=320e9, link=_PCIE_3, bf16=False),
        Gpu(name="l4", memory=23034 * MIB, teraflops=60.5, fp32_teraflops=30.3, bandwidth=300e9, link=_PCIE_4),
        Gpu(name="a10g", memory=23028 * MIB, teraflops=70, fp32_teraflops=31.2, bandwidth=600e9, link=_PCIE_4),
        Gpu(name="rtx4090", memory=24564 * MIB, teraflops=165, fp32_teraflops=82.6, bandwidth=1008e9, link=_PCIE_4),
        Gpu(name="l40s", memory=46068 * MIB, teraflops=362, fp32_teraflops=91.6, bandwidth=864e9, link=_PCIE_4),
        Gpu(name="a100-40gb", memory=40960 * MIB, teraflops=312, fp32_teraflops=19.5, bandwidth=1555e9, link=300e9),
        Gpu(name="a100-80gb", memory=81920 * MIB, teraflops=312, fp32_teraflops=19.5, bandwidth=2039e9, link=300e9),
        Gpu(name="h100", memory=81559 * MIB, teraflops=989, fp32_teraflops=67, bandwidth=3350e9, link=450e9),
        Gpu(name="h200", memory=143771 * MIB, teraflops=989, fp32_teraflops=67, bandwidth=4800e9, link=450e9),
        Gpu(name="b200", memory=183359 * MIB, teraflops=2250, fp32_teraflops=80, bandwidth=8000e9, link=900e9),
    )
}
"""By name. Source: NVIDIA's data sheets; ``memory`` as drivers report it."""


def gpu_named(name: str) -> Gpu:
    """:raises ConfigurationError: unknown; the message has the nearest names."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    near = difflib.get_close_matches(name.lower(), CATALOGUE, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigurationError(f"GPU type {name!r} is unknown; {hint}known: {', '.join(CATALOGUE)}")
