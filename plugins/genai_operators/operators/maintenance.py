"""What nobody in a cluster looks after any more is found by its labels and removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from genai_operators.exceptions import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from genai_operators.compute.kubernetes.orphans import OrphanSearch


class RemoveOrphansOperator(BaseOperator):
    """Remove Jobs and pods of this store that belong to nothing; skipped where no cluster is configured.

    Finished Jobs go by themselves, and objects younger than ten minutes are left alone. ::

        RemoveOrphansOperator(task_id="remove_orphans")

    :param compute: settings of ``kubernetes`` compute beside the connection's, e.g. ``{"namespace": "genai"}``.
        Templated.
    :param store: URI of the object store; the connection ``genai_store`` when ``None``. Templated.
    :param dry_run: only say what would be removed.
    :raises ConfigurationError: the cluster does not allow it; the message names the permission.
    :raises ClusterUnavailable: a retry helps.
    """

    template_fields: Sequence[str] = ("compute", "store")

    def __init__(
        self,
        *,
        compute: Mapping[str, Any] | None = None,
        store: str | None = None,
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.compute = dict(compute or {})
        self.store = store
        self.only_say = dry_run

    def execute(self, context: Context) -> list[str]:
        """Look once. Returns the names of what was removed."""
        search = self._search()
        orphans = search.find()
        if not orphans:
            self.log.info("no orphans in namespace %s", search.paths.namespace)
        for orphan in orphans:
            self.log.warning("%s %s", "would remove" if self.only_say else "removing", orphan.describe())
            if not self.only_say:
                search.remove(orphan)
        return [orphan.name for orphan in orphans]

    def _search(self) -> OrphanSearch:
        from genai_operators.compute.kubernetes import clients
        from genai_operators.compute.kubernetes.backend import KubernetesCompute
        from genai_operators.compute.kubernetes.orphans import OrphanSearch
        from genai_operators.hooks import settings
        from genai_operators.store import Store

        chosen = {name: value for name, value in self.compute.items() if name != "target"}
        connection = str(chosen.get("connection", settings.KUBERNETES_CONNECTION))
        try:
            description = {**settings.kubernetes_compute(connection), **chosen}
            clients.connect(description["clients"], connection)
        except ConfigurationError as error:
            raise AirflowSkipException(f"no cluster is configured, so nothing can be left in one: {error}") from error
        backend = KubernetesCompute(**{name: value for name, value in description.items() if name != "target"})
        store = Store.open(self.store or settings.store_uri())
        return OrphanSearch(backend.api, backend.paths, store, ttl_s=backend.ttl_s)
