"""A Job, a JobSet and a TrainJob, read alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genai_operators.compute.kubernetes import pods

Json = Mapping[str, Any]

COMPLETE = ("Complete", "Completed")


@dataclass(frozen=True)
class JobView:
    """What the controller says of the attempt's object.

    :param reason, message: of the end, or of the suspension. :param since: when that began.
    """

    name: str
    suspended: bool
    complete: bool
    failed: bool
    being_deleted: bool
    created: float | None
    reason: str = ""
    message: str = ""
    since: float | None = None

    @property
    def finished(self) -> bool:
        """No pod of it will be created any more."""
        return self.complete or self.failed or self.being_deleted


def view(found: Json) -> JobView:
    """Read ``batch/v1`` Job, ``jobset.x-k8s.io`` JobSet or ``trainer.kubeflow.org`` TrainJob.

    ``FailureTarget`` says that a Job will fail once its pods are gone; it creates no more.
    """
    complete = next((kind for kind in COMPLETE if pods.holds(found, kind)), None)
    failed = next((kind for kind in ("Failed", "FailureTarget") if pods.holds(found, kind)), None)
    suspended = bool((found.get("spec") or {}).get("suspend"))
    telling = pods.condition(found, complete or failed or "Suspended")
    metadata = found["metadata"]
    return JobView(
        name=metadata["name"],
        suspended=suspended,
        complete=complete is not None,
        failed=failed is not None and complete is None,
        being_deleted=metadata.get("deletionTimestamp") is not None,
        created=pods.seconds(metadata.get("creationTimestamp")),
        reason=str(telling.get("reason") or ""),
        message=str(telling.get("message") or ""),
        since=pods.seconds(telling.get("lastTransitionTime")),
    )
