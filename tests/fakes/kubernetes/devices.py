"""What a pod needs besides room: volumes that are claimed, and devices by claim (dynamic resource allocation)."""

from __future__ import annotations

from tests.fakes.kubernetes.deletion import is_terminal
from tests.fakes.kubernetes.kinds import CLAIM_TEMPLATES, CLAIMS, NODES, PODS, RESOURCE_CLAIMS, Object
from tests.fakes.kubernetes.storage import Store, copy_of

#: Node label that says how many devices a node offers through claims; without it a node offers its GPUs.
DEVICES_LABEL = "fake.kubernetes/devices"


class Devices:
    """Resource claims: one device each, of whatever the node offers; CEL expressions are stored, not evaluated."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def trouble(self, pod: Object) -> str | None:
        """Why the pod cannot be scheduled anywhere yet: a volume's claim or a template that does not exist."""
        for volume in pod["spec"].get("volumes") or []:
            name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if name and self._store.find(CLAIMS, pod["metadata"]["namespace"], name) is None:
                nodes = len(self._store.all(NODES))
                return f'0/{nodes} nodes are available: persistentvolumeclaim "{name}" not found.'
        for claim in pod["spec"].get("resourceClaims") or []:
            name = claim.get("resourceClaimTemplateName")
            if name and self._store.find(CLAIM_TEMPLATES, pod["metadata"]["namespace"], name) is None:
                return f'resourceclaimtemplate "{name}" not found'
        return None

    def misfit(self, pod: Object, node: Object) -> list[str]:
        """Whether the node has enough devices left."""
        asked = len(pod["spec"].get("resourceClaims") or [])
        if not asked:
            return []
        labels = node["metadata"].get("labels") or {}
        offered = int(labels.get(DEVICES_LABEL) or node["status"]["allocatable"].get("nvidia.com/gpu", "0"))
        used = sum(
            len(other["spec"].get("resourceClaims") or [])
            for other in self._store.all(PODS)
            if other["spec"].get("nodeName") == node["metadata"]["name"] and not is_terminal(other)
        )
        return [] if used + asked <= offered else ["cannot allocate all claims"]

    def allocate(self, pod: Object, node: Object) -> None:
        """Make the claims of a pod that goes onto a node; they belong to the pod and go with it."""
        meta = pod["metadata"]
        statuses = []
        for claim in pod["spec"].get("resourceClaims") or []:
            template = claim.get("resourceClaimTemplateName")
            if not template:
                continue
            found = self._store.get(CLAIM_TEMPLATES, meta["namespace"], template)
            owner = {
                "apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"], "controller": True,
                "blockOwnerDeletion": True,
            }  # fmt: skip
            generated = {"generateName": f"{meta['name']}-{claim['name']}-", "namespace": meta["namespace"]}
            made = self._store.create(
                RESOURCE_CLAIMS,
                {
                    "metadata": {**generated, "ownerReferences": [owner]},
                    "spec": copy_of(found["spec"]["spec"]),
                    "status": {"allocation": {"nodeName": node["metadata"]["name"]}},
                },
            )
            statuses.append({"name": claim["name"], "resourceClaimName": made["metadata"]["name"]})
        if statuses:

            def write(changed: Object) -> None:
                changed["status"]["resourceClaimStatuses"] = statuses

            self._store.update(PODS, meta["namespace"], meta["name"], write)
