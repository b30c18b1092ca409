"""The parts of a fake cluster, wired."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.fakes.kubernetes.admission import Admission
from tests.fakes.kubernetes.api import Api
from tests.fakes.kubernetes.controller import run_guarded
from tests.fakes.kubernetes.deletion import GarbageCollector
from tests.fakes.kubernetes.devices import Devices
from tests.fakes.kubernetes.gate import Gate, Token
from tests.fakes.kubernetes.images import Images
from tests.fakes.kubernetes.job_controller import JobController
from tests.fakes.kubernetes.jobset import JobSetController
from tests.fakes.kubernetes.kinds import NAMESPACES, NODES, SERVICE_ACCOUNTS
from tests.fakes.kubernetes.kubelet import Kubelets
from tests.fakes.kubernetes.kueue import Kueue
from tests.fakes.kubernetes.pod_collector import PodCollector
from tests.fakes.kubernetes.scheduler import Scheduler
from tests.fakes.kubernetes.settings import NodeShape, Settings
from tests.fakes.kubernetes.storage import Store, now
from tests.fakes.kubernetes.trainjob import TrainJobController
from tests.fakes.kubernetes.watch import Watches

_ALLOCATABLE = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "500Gi", "pods": "1000"}


class Cluster:
    """Store, API server and controllers of one cluster; must be made inside a running event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.without = set(settings.without)
        self.store = Store()
        self.gate = Gate({token: Token(user) for token, user in settings.tokens.items()})
        self.watches = Watches(self.store, settings.bookmark_s)
        self.images = Images(settings.images)
        self.admission = Admission(self.store)
        self.kubelets = Kubelets(self.store, settings, self.images)
        self.scheduler = Scheduler(self.store, Devices(self.store))
        self.jobs = JobController(self.store, self.admission, backoff_s=settings.job_backoff_s)
        self.kueue = Kueue(self.store, self.without)
        self.admission.mutators.append(self.kueue.suspend_new)
        self.job_sets = JobSetController(self.store, self.admission)
        self.train_jobs = TrainJobController(self.store, self.admission)
        self.pod_collector = PodCollector(self.store)
        self.collector = GarbageCollector(self.store, _soon)
        self.api = Api(
            self.store, self.gate, self.watches, self.admission, self.kubelets, self.without, settings.version
        )
        self._populate()

    def _populate(self) -> None:
        for name in dict.fromkeys(("default", "kube-system", self.settings.namespace)):
            self.store.create(NAMESPACES, {"metadata": {"name": name}, "spec": {}, "status": {"phase": "Active"}})
            self.store.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": name}})
        for shape in self.settings.nodes:
            self.add_node(shape)
        self.train_jobs.add_runtime("torch-distributed")
        self.store.created.clear()

    def add_node(self, shape: NodeShape) -> None:
        """A node joins."""
        amounts = {**_ALLOCATABLE, **shape.allocatable}
        ready = {
            "type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": now(),
            "message": "kubelet is posting ready status",
        }  # fmt: skip
        labels = {
            "kubernetes.io/hostname": shape.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            **shape.labels,
        }  # fmt: skip
        self.store.create(
            NODES,
            {
                "metadata": {"name": shape.name, "labels": labels},
                "spec": {"taints": list(shape.taints), "providerID": f"fake:///{shape.name}"},
                "status": {
                    "capacity": amounts, "allocatable": amounts, "conditions": [ready],
                    "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                    "nodeInfo": {"kubeletVersion": self.settings.version, "containerRuntimeVersion": "fake://1"},
                },
            },
        )  # fmt: skip


def _soon(work: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_soon(run_guarded, work)
