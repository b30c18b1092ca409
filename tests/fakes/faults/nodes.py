"""Of several nodes another than the first fails: it went away, or had too little memory. The first only loses it."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from genai_operators.compute.contract import Workload
from genai_operators.compute.resources import GIB, Resources
from tests.fakes.faults.capacity import asked
from tests.fakes.faults.table import ROWS
from tests.fakes.faults.training import IMAGES, TRAINING_IMAGE
from tests.fakes.kubernetes.fixture import FakeCluster
from tests.fakes.kubernetes_run import ClusterRun
from tests.fakes.ports import free_port

Settled = dict[str, Any]


class TwoNodeRun(ClusterRun):
    """The checkpointing workload in place of a fine-tuning, as a JobSet of two pods that meet over the network."""

    patience_s = 300.0  # starts of torch on two busy cores

    def __init__(self, cluster: FakeCluster, folder: Path, **params: Any) -> None:
        super().__init__(cluster, folder, **params)
        self.compute(Workload(kind="fine_tune", params=self.params, nonce=secrets.token_hex(8)))
        self.backend["env"] = {"GENAI_EXTRA_WORKLOADS": "fine_tune=tests.fakes.checkpointing:together"}
        if not cluster.real:
            self.backend["image"] = TRAINING_IMAGE
            # Pods of the fake cluster are processes of one host, which has no names for them.
            self.backend["env"] |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port())}
        self.ladder = [Resources(nodes=2, cpu=10, memory_bytes=GIB)]  # more than half of a machine

    def further_pod(self) -> str:
        """Name of the pod that is not the first."""
        index = "batch.kubernetes.io/job-completion-index"
        names = [pod["metadata"]["name"] for pod in self.pods() if pod["metadata"]["annotations"].get(index) == "1"]
        return str(names[0])


TWO_NODES: dict[str, Any] = {"make": TwoNodeRun, "slow": True, "jobs": 2, "begun": 2, "settings": {"images": IMAGES}}
WAITS: dict[str, Any] = {"waits": True}


@ROWS.row("one of several nodes lost", "its processes die with it", params=WAITS, **TWO_NODES)
def node_lost(run: TwoNodeRun) -> Settled:
    """The first fails as it lost another. That is not the end: the JobSet restarts, or the next attempt resumes."""
    subject = run.submit()
    run.drive(subject, until=lambda: run.checkpoint() >= 5)
    node = run.node(run.further_pod())
    run.cluster.faults.lose_node(node, kill=True)
    run.drive(subject, until=lambda: len(run.witnessed("begin")) == 2)
    run.cluster.faults.heal_node(node)
    return run.finish(subject)


@ROWS.row("out of memory, host", "on another than the first node", params=WAITS, **TWO_NODES)
def host_memory(run: TwoNodeRun) -> Settled:
    subject = run.submit()
    run.drive(subject, until=lambda: run.checkpoint() >= 5)
    run.cluster.faults.out_of_memory(run.further_pod())
    run.drive(subject, until=lambda: run.began(2))
    settled = run.finish(subject)
    assert asked(run, "memory_bytes") == [GIB, 2 * GIB]
    return settled


@ROWS.row(
    "out of memory, GPU",
    "on another than the first node",
    params={"batch": 4, "trouble": {"at": 10, "kind": "gpu memory", "before": 2, "rank": 1}},
    **TWO_NODES,
)
def gpu_memory(run: TwoNodeRun) -> Settled:
    settled = run.drive(run.submit())
    assert asked(run, "micro_batch") == [None, 2]
    return settled
