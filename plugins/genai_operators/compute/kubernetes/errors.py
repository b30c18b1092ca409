"""What a cluster's refusal means to us, by its status, its reason and its message."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from genai_operators.exceptions import ClusterUnavailable, ConfigurationError, GenaiError, QuotaExceeded

LONGEST_MESSAGE = 600
#: API groups that are no part of Kubernetes itself, and what brings them.
ADD_ONS = {
    "jobset.x-k8s.io": "JobSet",
    "trainer.kubeflow.org": "Kubeflow Trainer",
    "kueue.x-k8s.io": "Kueue",
    "resource.k8s.io": "Kubernetes 1.34 or newer (dynamic resource allocation)",
}


@dataclass(frozen=True)
class Failure:
    """A request that the cluster answered with an error.

    :param verb: as RBAC calls it. :param data: the answer's body.
    """

    verb: str
    path: str
    status: int
    data: bytes

    @property
    def body(self) -> dict[str, Any]:
        """The ``Status`` object; empty where the answer is none (a proxy's page)."""
        try:
            body = json.loads(self.data)
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}

    @property
    def conflict(self) -> bool:
        """Somebody changed something at the same moment: the request may pass now. (A taken name is no conflict.)"""
        return self.status == 409 and self.verb == "create" and self.body.get("reason") == "Conflict"

    @property
    def message(self) -> str:
        """In the cluster's own words."""
        told = self.body.get("message") or self.data.decode("utf-8", errors="replace")
        return str(told).strip()[:LONGEST_MESSAGE]

    @property
    def group(self) -> str:
        """API group; empty for the core's."""
        parts = self.path.split("/")
        return parts[2] if parts[1] == "apis" else ""

    @property
    def resource(self) -> str:
        """Like ``jobs.batch``, or ``pods/log``."""
        parts = self.path.strip("/").split("/")
        rest = parts[3:] if parts[0] == "apis" else parts[2:]
        if len(rest) > 2 and rest[0] == "namespaces":
            rest = rest[2:]
        name = "/".join(rest[::2])
        return f"{name}.{self.group}" if self.group else name


def translate(failure: Failure, *, connection: str) -> GenaiError:
    """The exception to raise. :param connection: the name that the message gives the cluster."""
    where, told = f"connection {connection}", f"{failure.verb} {failure.resource}"
    if failure.status == 403 and "exceeded quota" in failure.message:
        return QuotaExceeded(f"{where}: the namespace has no room: {failure.message}")
    if failure.status == 403:
        return ConfigurationError(
            f"{where}: not allowed to {told}: {failure.message}. `make kubernetes-check` lists what is missing and "
            "prints the role that grants it."
        )
    if failure.status == 401:
        return ConfigurationError(f"{where}: the cluster refuses the credentials, fresh ones too: {failure.message}")
    if failure.status == 404:
        add_on = ADD_ONS.get(failure.group)
        advice = f"Install {add_on}." if add_on else "Is the namespace right?"
        return ConfigurationError(f"{where}: cannot {told}: {failure.message}. {advice} See `make kubernetes-check`.")
    if failure.status in (400, 409, 413, 415, 422):
        return ConfigurationError(f"{where}: the cluster rejects {told}: {failure.message}")
    return ClusterUnavailable(f"{where}: cannot {told}: status {failure.status}: {failure.message}")
