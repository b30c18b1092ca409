"""What a cluster's user may choose: where jobs go and what their pods get. Plain JSON; holds no secret."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from genai_operators.compute.kubernetes import clients
from genai_operators.compute.resources import GIB
from genai_operators.exceptions import ConfigurationError
from genai_operators.spec.credentials import looks_like_credential

CONNECTION = "genai_kubernetes"
#: A checkpoint whose duration nobody has measured gets this long.
DEFAULT_GRACE_S = 120.0
#: A writable folder has room for this much, where nobody sets it and no plan knows the model.
DEFAULT_SCRATCH_BYTES = 20 * GIB
DAY_S = 24 * 3600
MULTI_NODE = ("jobset", "trainjob")
TOPOLOGY = ("required", "preferred", "unconstrained")

_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SECRET_KEY = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[-._a-zA-Z0-9]+")


@dataclass(frozen=True, kw_only=True)
class KubernetesSettings:
    """Settings of ``kubernetes`` compute; each has a default but ``image``.

    Secrets are only ever named here: ``env_from_secrets`` are Secrets of the namespace whose keys become variables;
    ``secret_env`` maps one variable to ``secret/key``. Better still is a service account with workload identity.
    ``env`` stands in claims, manifests and arguments of triggers, so that a credential in it is refused.

    :param connection: name of the cluster's connection. :param clients: ``module:function`` that makes its client.
    :param image: ``repository@sha256:...``; a tag only with ``allow_tag`` (for a development cluster).
    :param service_account: of the pods; ``mount_token`` mounts its token, which a workload does not need.
    :param store_in_pod: the object store's URI as pods see it, where that differs from the controller's.
    :param volume_claims: PersistentVolumeClaim -> where it is mounted, e.g. for a store on a shared file system.
    :param queue: a Kueue LocalQueue of the namespace; ``workload_priority`` a Kueue WorkloadPriorityClass.
    :param priority_class: of the pods.
    :param topology: for Kueue: ``required``, ``preferred`` or ``unconstrained`` -> level (a node label).
    :param max_execution_s: the platform ends it after this long; ``None``: never.
    :param spot_only: a rung that asks for spot takes nothing else; by default it prefers spot.
    :param mig_profile: a slice instead of whole GPUs, e.g. ``1g.10gb`` (strategy "mixed").
    :param device_class: claim GPUs by dynamic resource allocation from this DeviceClass, e.g. ``gpu.nvidia.com``.
    :param grace_s: from SIGTERM to SIGKILL; ``None``: twice the longest checkpoint so far, at least 120 s.
    :param scratch_bytes: most that the one writable folder may hold; ``None``: what the plan says that the model needs,
        at least 20 GiB. :param ttl_s: how long a finished job can be looked at.
    :param multi_node: what runs several nodes. :param training_runtime: of a TrainJob.
    :param prices: GPU in the catalogue -> {"on_demand", "spot"}: of one GPU and hour. A rung's own price otherwise.
    """

    connection: str = CONNECTION
    clients: str = clients.DEFAULT_SOURCE
    namespace: str = "default"
    image: str = ""
    allow_tag: bool = False
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: Sequence[str] = ()
    python: str = "python"
    service_account: str = "genai-workload"
    mount_token: bool = False
    run_as_user: int | None = None
    store_in_pod: str | None = None
    volume_claims: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    env_from_secrets: Sequence[str] = ()
    secret_env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    queue: str | None = None
    workload_priority: str | None = None
    priority_class: str | None = None
    topology: Mapping[str, str] = field(default_factory=dict)
    max_execution_s: int | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    spot_only: bool = False
    runtime_class: str | None = None
    gpu_resource: str = "nvidia.com/gpu"
    mig_profile: str | None = None
    device_class: str | None = None
    grace_s: float | None = None
    scratch_bytes: int | None = None
    ttl_s: int = DAY_S
    multi_node: str = "jobset"
    training_runtime: str = "torch-distributed"
    prices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """:raises ConfigurationError: a setting cannot be; it is named."""
        if not _DNS_LABEL.fullmatch(self.namespace):
            raise ConfigurationError(f"kubernetes: namespace {self.namespace!r} is no name of a namespace")
        if self.multi_node not in MULTI_NODE:
            raise ConfigurationError(f"kubernetes: multi_node {self.multi_node!r}; known: {', '.join(MULTI_NODE)}")
        if unknown := sorted(set(self.topology) - set(TOPOLOGY)):
            raise ConfigurationError(f"kubernetes: topology {unknown[0]!r}; known: {', '.join(TOPOLOGY)}")
        if wrong := sorted(value for value in self.secret_env.values() if not _SECRET_KEY.fullmatch(value)):
            raise ConfigurationError(f"kubernetes: secret_env {wrong[0]!r}: name a Secret and its key as secret/key")
        if exposed := sorted(name for name, value in self.env.items() if looks_like_credential(name, str(value))):
            raise ConfigurationError(
                f"kubernetes: env {exposed[0]!r} looks like a credential, and env is stored and logged. Put it into a "
                "Secret of the namespace and name that: secret_env maps a variable to secret/key, env_from_secrets "
                "takes all keys of a Secret."
            )
        if self.mig_profile and self.device_class:
            raise ConfigurationError("kubernetes: mig_profile and device_class exclude each other")
        if self.device_class and self.multi_node == "trainjob":
            raise ConfigurationError(
                "kubernetes: device_class does not go with multi_node: trainjob, as a TrainJob cannot give its pods "
                "resource claims. Use multi_node: jobset, or leave device_class out."
            )

    def require_image(self) -> str:
        """The image. :raises ConfigurationError: none, or one that a tag names."""
        if not self.image:
            raise ConfigurationError("kubernetes: no image is set: the workload image, by digest")
        if not (_DIGEST.fullmatch(self.image) or self.allow_tag):
            raise ConfigurationError(
                f"kubernetes: image {self.image!r} is named by a tag, which may be another image tomorrow. Name it by "
                "digest (repository@sha256:...; `docker buildx imagetools inspect IMAGE` prints it), or set allow_tag "
                "for a development cluster."
            )
        return self.image

    def changed(self) -> dict[str, Any]:
        """Plain JSON of what differs from the defaults."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        default = _DEFAULTS
        return {name: _plain(value) for name, value in values.items() if value != default[name]}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value


_DEFAULTS: Mapping[str, Any] = {
    each.name: getattr(KubernetesSettings(), each.name) for each in fields(KubernetesSettings)
}
