"""What a cluster's machines cost, as a claim says it."""

from __future__ import annotations

from genai_operators.compute.kubernetes.backend import KubernetesCompute
from genai_operators.compute.kubernetes.usage import price_per_hour
from genai_operators.compute.resources import Resources
from genai_operators.operators.placement import gpu_prices


class TestGpuPrices:
    def test_the_project_s_own_list_prices_what_a_node_turns_out_to_be(self, project_root):
        prices = gpu_prices(project_root)
        backend = KubernetesCompute(prices=prices)
        assert backend.describe()["prices"] == prices
        planned = Resources(gpu="h100", gpu_count=2, price_per_hour=1.0)
        found = price_per_hour("a100-80gb", planned, backend.prices, spot=False)
        assert found == 2 * prices["a100-80gb"]["on_demand"]
        assert price_per_hour("unheard-of", planned, backend.prices, spot=False) == 1.0

    def test_a_project_without_a_list_has_none(self, tmp_path):
        assert gpu_prices(tmp_path) == {}
