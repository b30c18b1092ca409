"""What a pod is charged: from the moment that it has its machine until it left."""

from __future__ import annotations

import pytest

from genai_operators.compute.kubernetes.usage import pod_usage
from genai_operators.compute.resources import Resources
from tests.unit.compute.kubernetes.clusters import NOW, condition, pod, running, terminated

PLANNED = Resources(gpu="h100", gpu_count=4, nodes=2, price_per_hour=32.0, spot=True)
PRICES = {"h100": {"on_demand": 4.0, "spot": 2.0}, "l4": {"on_demand": 0.8}}
BOUND = condition("PodScheduled", since=-3600)
H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "node.kubernetes.io/instance-type": "p5.48xlarge"}


class TestTime:
    def test_image_pull_is_paid_for(self):
        used = pod_usage(pod("Running", BOUND, state=running(-60)), H100, PLANNED, PRICES, now=NOW)
        assert used.seconds == 3600
        assert not used.ended

    def test_it_ends_with_its_container(self):
        used = pod_usage(pod("Failed", BOUND, state=terminated(1, finished=-600)), H100, PLANNED, PRICES, now=NOW)
        assert (used.seconds, used.ended) == (3000, True)

    def test_one_that_was_removed_while_it_ran_ends_when_it_was_to_be_gone(self):
        left = pod("Running", BOUND, state=running(), deleted=-1800)
        used = pod_usage(left, H100, PLANNED, PRICES, now=NOW, gone=True)
        assert (used.seconds, used.ended) == (1800, True)


class TestPrice:
    @pytest.mark.parametrize(
        ("labels", "gpu", "price"),
        [
            (H100, "h100", 16.0),
            ({**H100, "cloud.google.com/gke-spot": "true"}, "h100", 8.0),
            ({"nvidia.com/gpu.product": "NVIDIA-L4"}, "l4", 3.2),
            ({"nvidia.com/gpu.product": "NVIDIA-L4", "cloud.google.com/gke-spot": "true"}, "l4", 16.0),  # not offered
            ({"nvidia.com/gpu.product": "NVIDIA-Z900"}, None, 16.0),
            (None, "h100", 8.0),
        ],
    )
    def test_the_machine_that_it_got_is_what_counts_and_the_plan_where_nobody_knows_it(self, labels, gpu, price):
        used = pod_usage(pod("Running", BOUND, state=running()), labels, PLANNED, PRICES, now=NOW)
        assert (used.gpu, used.price_per_hour) == (gpu, price)
        assert used.cost == pytest.approx(price)
        assert used.gpu_hours == pytest.approx(4.0)
