"""What no living process noticed: workloads and releases without a task, aliases and traffic off the ledger, edits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from genai_operators.exceptions import GenaiError

if TYPE_CHECKING:
    from airflow.sdk import Context


class ReconcileOperator(BaseOperator):
    """Make workloads, releases, the registry's alias and the gateway follow their owners and the ledger.

    The retention of captured texts follows the model files. Does nothing, and says nothing, where all is well. A part
    that cannot be reached does not keep the others from their turn. ::

        ReconcileOperator(task_id="reconcile")

    :param store: URI of the object store; the connection ``genai_store`` when ``None``. Templated.
    :raises GenaiError: the first part that failed; the next minute tries again.
    """

    template_fields: Sequence[str] = ("store",)

    def __init__(self, *, store: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.store = store

    def execute(self, context: Context) -> None:
        """Look at everything once."""
        failures: list[GenaiError] = []
        for part in (self._workloads, self._releases, self._retentions):
            try:
                for line in part():
                    self.log.warning("%s", line)
            except GenaiError as error:
                self.log.error("%s: %s", type(error).__name__, error)
                failures.append(error)
        if failures:
            raise failures[0]

    def _workloads(self) -> list[str]:
        from genai_operators.compute.reconcile import reconcile_workloads
        from genai_operators.hooks import settings
        from genai_operators.store import Store
        from genai_operators.triggers import task_state

        return reconcile_workloads(Store.open(self.store or settings.store_uri()), task_state)

    def _releases(self) -> list[str]:
        from genai_operators.hooks.release_parts import LocalSurroundings, describe_parts
        from genai_operators.release.reconcile import reconcile_releases
        from genai_operators.store import Store
        from genai_operators.triggers import task_state

        parts = describe_parts(store=self.store or None)
        return reconcile_releases(Store.open(parts["settings"]["store"]), task_state, LocalSurroundings(parts))

    def _retentions(self) -> list[str]:
        from genai_operators.hooks import settings
        from genai_operators.serving.retention import follow_retention
        from genai_operators.serving.state import StateDirectory
        from genai_operators.spec.loader import model_files, read_model

        root, directory = settings.project_root(), settings.gateway().directory
        served = {state.model for state in StateDirectory(directory).read_all()}
        models = [read_model(path, root=root) for path in model_files(root) if path.stem in served]
        wanted = {model.name: model.spec.serve.capture.retention for model in models if model.spec is not None}
        return follow_retention(directory, wanted={name: kept.total_seconds() for name, kept in wanted.items()})
