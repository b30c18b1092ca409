"""What a fake cluster is made of; written as JSON by the fixture and read by the server."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

GIB = 1024**3


@dataclass(frozen=True)
class Image:
    """What an image name stands for: the environment in which a container's command is looked up and run."""

    #: Folders in front of ``PATH``; the first ``python`` in them is the image's.
    path: tuple[str, ...]
    #: ``PYTHONPATH`` of the container.
    pythonpath: tuple[str, ...] = ()
    #: Further variables (``ENV`` lines of the image); the pod's own win.
    environment: dict[str, str] = field(default_factory=dict)
    #: The image's entry point, for containers that name no command.
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodeShape:
    """One node."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[dict[str, str], ...] = ()
    #: As in ``status.allocatable``; cpu, memory, pods and ephemeral-storage have defaults.
    allocatable: dict[str, str] = field(default_factory=dict)


def cpu_node(name: str = "cpu-1") -> NodeShape:
    """An ordinary node."""
    return NodeShape(name, {"node.kubernetes.io/instance-type": "m7i.4xlarge"})


def gpu_node(
    name: str,
    *,
    product: str = "NVIDIA-H100-80GB-HBM3",
    memory_mib: int = 81559,
    count: int = 8,
    instance_type: str = "p5.48xlarge",
    spot: bool = False,
) -> NodeShape:
    """A node with GPUs, labelled by NVIDIA's feature discovery and tainted as clouds do."""
    labels = {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.memory": str(memory_mib),
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.family": "hopper",
        "node.kubernetes.io/instance-type": instance_type,
        "karpenter.sh/capacity-type": "spot" if spot else "on-demand",
    }
    taints = ({"key": "nvidia.com/gpu", "effect": "NoSchedule"},)
    allocatable = {"nvidia.com/gpu": str(count), "cpu": "190", "memory": "2000Gi"}
    return NodeShape(name, labels, taints, allocatable)


@dataclass(frozen=True)
class Settings:
    """Everything the server is told at its start; faults come later, through control."""

    folder: str
    namespace: str = "genai"
    #: Image reference, with or without tag and digest -> what it stands for. Unknown images cannot be pulled.
    images: dict[str, Image] = field(default_factory=dict)
    nodes: tuple[NodeShape, ...] = (NodeShape("cpu-1"),)
    #: Optional API groups that this cluster lacks (see ``kinds.OPTIONAL_GROUPS``).
    without: tuple[str, ...] = ()
    #: Pods are no processes: each runs for so many seconds in the fake only, then succeeds.
    simulate_s: float | None = None
    #: Delay of the Job controller before a pod replaces a failed one. The real one takes 10 s, doubling.
    job_backoff_s: float = 0.05
    #: From scheduling to a pulled image.
    pull_s: float = 0.0
    #: Between two tries to pull a refused image. The real one takes 10 s, doubling to 300.
    pull_backoff_s: float = 1.0
    #: Before a container is started again (restart policy OnFailure). The real one takes 10 s, doubling.
    restart_backoff_s: float = 0.5
    #: Paths of this machine that a container sees as they are, even below a mount path (a store in /tmp).
    keep_paths: tuple[str, ...] = ()
    #: How often watches that ask for bookmarks get one. The real one sends them about once a minute.
    bookmark_s: float = 5.0
    #: Bearer tokens of the start -> user name.
    tokens: dict[str, str] = field(default_factory=lambda: {"fake-token": "system:serviceaccount:genai:airflow"})
    version: str = "v1.35.2"

    def dump(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read what :meth:`dump` wrote."""
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        raw["images"] = {
            name: Image(tuple(one["path"]), tuple(one["pythonpath"]), one["environment"], tuple(one["command"]))
            for name, one in raw["images"].items()
        }
        raw["nodes"] = tuple(
            NodeShape(one["name"], one["labels"], tuple(one["taints"]), one["allocatable"]) for one in raw["nodes"]
        )
        raw |= {name: tuple(raw[name]) for name in ("without", "keep_paths")}
        return cls(**raw)
