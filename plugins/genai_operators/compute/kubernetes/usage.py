"""What an attempt's pods really had, for how long, and what that costs, by the labels of their nodes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genai_operators.compute.contract import Attempt
from genai_operators.compute.kubernetes import names, placement, pods
from genai_operators.compute.kubernetes.api import KubernetesApi
from genai_operators.compute.kubernetes.paths import NODES, Paths
from genai_operators.compute.kubernetes.remembered import Remembered
from genai_operators.compute.kubernetes.watch import shared_watch
from genai_operators.compute.resources import Resources, Usage
from genai_operators.exceptions import ConfigurationError

Json = Mapping[str, Any]
Prices = Mapping[str, Mapping[str, float]]

#: What stands on a node does not change while a pod of ours is on it.
NODE_AGE_S = 600.0

_labels: Remembered[Mapping[str, str] | None] = Remembered(seconds=NODE_AGE_S)


@dataclass(frozen=True)
class Meter:
    """Reads what pods of one namespace used."""

    api: KubernetesApi
    paths: Paths
    prices: Prices

    def usage(self, attempt: Attempt) -> list[Usage]:
        """A record for each pod that had a node, those included that a watch of this process saw leave."""
        watch = shared_watch(self.api, self.paths.namespace)
        sight = watch.look(attempt.name) if watch is not None else None
        found: Sequence[Json]
        if sight is not None:
            found = [*sight.pods, *sight.departed]
        else:
            found = self.api.list(self.paths.pods, labels=names.selector(attempt)).items
        held = {pod["metadata"]["uid"]: pod for pod in found if pods.node(pod)}
        gone = set() if sight is None else {pod["metadata"]["uid"] for pod in sight.departed}
        now = time.time()
        return [
            pod_usage(pod, self._node_labels(pods.node(pod)), attempt.resources, self.prices, now=now, gone=uid in gone)
            for uid, pod in held.items()
        ]

    def _node_labels(self, name: str) -> Mapping[str, str] | None:
        """``None`` where the node is gone, or we may not look: the plan's figures are used then."""
        return _labels.get((self.api, name), lambda: self._read_labels(name))

    def _read_labels(self, name: str) -> Mapping[str, str] | None:
        try:
            node = self.api.find(f"{NODES}/{name}")
        except ConfigurationError:
            return None
        return None if node is None else (node["metadata"].get("labels") or {})


def pod_usage(
    pod: Json, labels: Mapping[str, str] | None, resources: Resources, prices: Prices, *, now: float, gone: bool = False
) -> Usage:
    """What one pod had. The machine is paid from the moment that the pod is bound to it, image pull included.

    :param labels: of its node; ``None`` where nobody knows. :param gone: it was removed from the cluster.
    """
    bound = pods.seconds(pods.condition(pod, "PodScheduled").get("lastTransitionTime"))
    started = bound or pods.seconds((pod.get("status") or {}).get("startTime")) or pods.started_at(pod) or now
    ended = pods.is_terminal(pod) or gone
    until = (pods.ended_at(pod) or now) if ended else now
    gpu = resources.gpu if labels is None else placement.gpu_of_node(labels)
    spot = resources.spot if labels is None else placement.is_spot(labels)
    return Usage(
        pod=pod["metadata"]["uid"],
        node=pods.node(pod),
        machine="" if labels is None else placement.machine_of_node(labels),
        gpu=gpu if resources.gpu_count else None,
        gpu_count=resources.gpu_count,
        spot=spot,
        started=started,
        seconds=max(0.0, min(until, now) - started),
        ended=ended,
        price_per_hour=price_per_hour(gpu, resources, prices, spot=spot),
    )


def price_per_hour(gpu: str | None, resources: Resources, prices: Prices, *, spot: bool) -> float | None:
    """Of one pod: its GPUs by the price list; the plan's price of a node where the list has none."""
    planned = None if resources.price_per_hour is None else resources.price_per_hour / resources.nodes
    if gpu is None or not resources.gpu_count:
        return planned
    price = prices.get(gpu, {}).get("spot" if spot else "on_demand")
    return planned if price is None else price * resources.gpu_count
