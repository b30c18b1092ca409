"""Taking an attempt out of a cluster: its pods first, then what would make more of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genai_operators.compute.contract import Attempt
from genai_operators.compute.kubernetes import names, pods
from genai_operators.compute.kubernetes.api import KubernetesApi
from genai_operators.compute.kubernetes.paths import NODES, Paths
from genai_operators.compute.kubernetes.phases import STUCK_AFTER_S
from genai_operators.exceptions import ConfigurationError

Json = Mapping[str, Any]

#: A node that has not been ready for this long is taken for gone; its supervisors' leases have then run out, too.
NODE_LOST_AFTER_S = 120.0


@dataclass(frozen=True)
class Removal:
    """Deletes objects, each with its uid as precondition, so that a namesake that came later is never hit."""

    api: KubernetesApi
    paths: Paths

    def remove(self, attempt: Attempt) -> None:
        """Delete the attempt's object; pods that have none any more; and pods that a lost node keeps. Idempotent."""
        path = f"{self.paths.collection(attempt.resources)}/{attempt.name}"
        found = self.api.find(path)
        if found is not None and names.is_ours(found, attempt):
            self.api.delete(path, uid=found["metadata"]["uid"])
        for pod in self.api.list(self.paths.pods, labels=names.selector(attempt)).items:
            if pods.is_terminal(pod):
                continue
            if found is None and not pods.is_terminating(pod):
                self._delete_pod(pod)
            self.release_stuck(pod)

    def release_stuck(self, pod: Json) -> str:
        """Take a pod off a node that is gone, where nobody can say that it has ended.

        Only when it should have been gone for a while and its node does not answer: by then its supervisor, cut off
        from the store, has ended the workload.

        :returns: what was done and why; empty when nothing was.
        """
        due = pods.seconds(pod["metadata"].get("deletionTimestamp"))
        if due is None or time.time() - due < STUCK_AFTER_S:
            return ""
        lost = self._node_lost(pods.node(pod))
        if not lost:
            return ""
        self._delete_pod(pod, grace_s=0)
        return f"removed pod {pods.name(pod)} by force: {lost}"

    def _delete_pod(self, pod: Json, *, grace_s: int | None = None) -> None:
        path = f"{self.paths.pods}/{pods.name(pod)}"
        self.api.delete(path, uid=pod["metadata"]["uid"], propagation="Background", grace_s=grace_s)

    def _node_lost(self, name: str) -> str:
        """Why a node is taken for gone; empty while it is there, or when we may not look."""
        try:
            node = self.api.find(f"{NODES}/{name}") if name else None
        except ConfigurationError:
            return ""
        if node is None:
            return f"node {name or '(none)'} does not exist"
        ready = pods.condition(node, "Ready")
        since = pods.seconds(ready.get("lastTransitionTime"))
        if ready.get("status") == "True" or since is None or time.time() - since < NODE_LOST_AFTER_S:
            return ""
        return f"node {name} has not been ready for {time.time() - since:.0f} s ({ready.get('reason')})"
