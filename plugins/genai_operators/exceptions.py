"""One class per failure. ``retry_helps`` says whether running the same thing again can succeed.

The retry policy of the operators (:mod:`genai_operators.operators.retry`) reads nothing else, so a new failure needs a
class here and no other change. A message says what happened, where (file, line, field, version), and what to do.
"""

from __future__ import annotations

from typing import ClassVar


class GenaiError(Exception):
    """Base of every failure that this package raises on purpose."""

    retry_helps: ClassVar[bool] = False


# --- what a user wrote -------------------------------------------------------------------------------------------


class SpecError(GenaiError):
    """A model file is wrong. A retry does not help; edit the file at the named line."""


class ConfigurationError(GenaiError):
    """The installation is wrong: a connection, a key, an environment. A retry does not help; set what is named."""


class DataError(GenaiError):
    """The data cannot be read or is not what the model file says. A retry does not help; mend the named rows."""


# --- workloads ---------------------------------------------------------------------------------------------------


class BadWorkload(GenaiError):
    """The workload's own parameters are wrong (exit 2 or 78). A retry does not help."""


class WorkloadFailed(GenaiError):
    """The workload ended with an error that no other class describes. A retry runs it once more from its checkpoint."""

    retry_helps = True


class WorkloadCancelled(GenaiError):
    """Somebody asked the workload to stop. A retry starts the next attempt from the checkpoint."""


class WorkloadTimeout(GenaiError):
    """A phase outlasted its limit. A retry does not help; raise the limit. The checkpoint is kept."""


class Preempted(GenaiError):
    """The platform took the machine away. A retry resumes from the newest valid checkpoint at once."""

    retry_helps = True


class NodeLost(GenaiError):
    """The machine under the workload died. A retry resumes elsewhere."""

    retry_helps = True


class OutOfMemory(GenaiError):
    """Host or GPU memory ran out. The same size again does not help; a smaller micro-batch or a larger machine does."""


class ImagePullFailed(GenaiError):
    """The container image cannot be pulled. A retry does not help until the name or the credentials are right."""


class QuotaExceeded(GenaiError):
    """The queue or the namespace has no room at present. A retry later helps."""

    retry_helps = True


class NonFiniteLoss(GenaiError):
    """Training diverged (NaN or infinite loss). A retry does the same; lower the learning rate or mend the data."""


class NoProgress(GenaiError):
    """The workload was resumed several times without one more step. A retry does the same; look at its log."""


class BudgetExceeded(GenaiError):
    """The run reached its cost limit. Raising the limit helps, a retry does not; the checkpoint is kept."""


# --- store -------------------------------------------------------------------------------------------------------


class StorageFull(GenaiError):
    """No space is left where the workload writes. A retry helps only after space was freed."""


class StoreUnavailable(GenaiError):
    """The object store does not answer. A retry helps once it does."""

    retry_helps = True


class ObjectNotFound(GenaiError):
    """The store has no such object. A retry does not help."""


class ManifestMismatch(GenaiError):
    """A file is missing, extra, or not what its manifest says. A retry does not help; the copy is damaged."""


# --- release -----------------------------------------------------------------------------------------------------


class SignatureInvalid(GenaiError):
    """The model's signature does not verify against a trusted key. A retry does not help; nothing was served."""


class UnsafeWeights(GenaiError):
    """Weights are in a format that can run code when loaded. Convert them to safetensors; a retry does not help."""


class LedgerConflict(GenaiError):
    """Another promotion was written first. A retry reads the new champion and decides again."""

    retry_helps = True


class LedgerCorrupt(GenaiError):
    """The hash chain of the ledger is broken at the named entry. A retry does not help; investigate."""


class GateFailed(GenaiError):
    """A gate judged against the candidate. A retry judges the same; the report says why."""


class ReleaseAborted(GenaiError):
    """Somebody stopped the release; the champion has all traffic. The next run is a new release."""


# --- outside systems ---------------------------------------------------------------------------------------------


class ClusterUnavailable(GenaiError):
    """The Kubernetes API does not answer. A retry helps once it does; what runs there goes on, and is met again."""

    retry_helps = True


class RegistryUnavailable(GenaiError):
    """MLflow does not answer. A retry helps once it does; nothing is half-registered."""

    retry_helps = True


class GatewayUnavailable(GenaiError):
    """The gateway does not answer or does not acknowledge a route. A retry helps once it does; traffic did not move."""

    retry_helps = True


class ServingFailed(GenaiError):
    """A model server does not come up. A retry starts it once more; its last log lines are in the message."""

    retry_helps = True
