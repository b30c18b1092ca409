"""Is the cluster ready? The same check as ``make kubernetes-check``, with Airflow's own connections and rights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from genai_operators.exceptions import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from genai_operators.compute.kubernetes.cluster_checks import Wanted

CONNECTION = "genai_kubernetes"


class KubernetesCheckOperator(BaseOperator):
    """Check connection, rights, GPU labels, queue, image pull and the object store as pods see it.

    Creates one short Job and removes it. The log has the table and the YAML that mends what is missing. ::

        KubernetesCheckOperator(task_id="check", gpu=True)

    :param connection: of type ``kubernetes``; its extra holds the settings of compute, the image among them. Templated.
    :param compute: settings that differ from the connection's, as a model file's ``compute.options``; see
        :class:`~genai_operators.compute.kubernetes.settings.KubernetesSettings`. Templated.
    :param store: URI of the object store; the connection ``genai_store`` when ``None``. Templated.
    :param gpu: whether a node with a GPU must be there now. :param nodes: of the largest training.
    :param timeout_s: of the short Job, image pull included.
    :raises ConfigurationError: something that is required is missing; the message names it, the log what mends it.
    """

    template_fields: Sequence[str] = ("connection", "compute", "store")

    def __init__(
        self,
        *,
        connection: str = CONNECTION,
        compute: Mapping[str, Any] | None = None,
        store: str | None = None,
        gpu: bool = False,
        nodes: int = 1,
        timeout_s: float = 600.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.connection = connection
        self.compute = dict(compute or {})
        self.store = store
        self.gpu = gpu
        self.nodes = nodes
        self.timeout_s = timeout_s

    def execute(self, context: Context) -> dict[str, list[str]]:
        """Look at everything once. Returns the subjects by state."""
        from genai_operators.compute.kubernetes.findings import State
        from genai_operators.compute.kubernetes.preflight import preflight
        from genai_operators.hooks import settings

        report = preflight(self._wanted(), store=self.store or settings.store_uri(), timeout_s=self.timeout_s)
        for line in report.render().splitlines():
            self.log.info("%s", line)
        subjects = {
            state.value: [finding.subject for finding in report.findings if finding.state is state] for state in State
        }
        if not report.ok:
            raise ConfigurationError(
                f"the cluster lacks: {', '.join(subjects[State.MISSING])}. The log above has what mends it."
            )
        return subjects

    def _wanted(self) -> Wanted:
        from genai_operators.compute.kubernetes.cluster_checks import Wanted
        from genai_operators.compute.kubernetes.preflight import settings_of
        from genai_operators.hooks import settings

        chosen = {**settings.kubernetes_compute(self.connection), **self.compute}
        del chosen["target"]
        return Wanted(settings=settings_of(chosen), gpu=self.gpu, nodes=self.nodes)
