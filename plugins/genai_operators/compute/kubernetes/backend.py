"""``kubernetes`` compute: launch, probe, stop and usage of attempts as Jobs of a cluster. Keeps no state of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from genai_operators.compute import attempts
from genai_operators.compute.contract import GONE, Attempt, Phase, Probe
from genai_operators.compute.ending import error_class
from genai_operators.compute.kubernetes import names, pods
from genai_operators.compute.kubernetes.api import Json, KubernetesApi
from genai_operators.compute.kubernetes.manifest import job_manifest
from genai_operators.compute.kubernetes.phases import Observation, classify
from genai_operators.compute.kubernetes.pod import PodRequest
from genai_operators.compute.kubernetes.settings import DEFAULT_GRACE_S, KubernetesSettings
from genai_operators.compute.resources import Usage
from genai_operators.exceptions import ConfigurationError, WorkloadFailed


@dataclass(frozen=True, kw_only=True)
class KubernetesCompute(KubernetesSettings):
    """Runs attempts in a cluster. For its settings see :class:`.settings.KubernetesSettings`."""

    target: ClassVar[str] = "kubernetes"
    restarts: ClassVar[bool] = True

    @property
    def api(self) -> KubernetesApi:
        """Requests to the cluster."""
        return KubernetesApi(connection=self.connection, clients=self.clients)

    def describe(self) -> dict[str, Any]:
        """All settings that differ from the defaults, and those that say which cluster."""
        where = {"connection": self.connection, "namespace": self.namespace}
        return {"target": self.target, **where, **self.changed()}

    def launch(self, attempt: Attempt) -> None:
        """Create its Job. One that is there already is adopted.

        :raises ConfigurationError: no digest, no permission, a rejected manifest, or a foreign Job of that name.
        """
        manifest = job_manifest(PodRequest(attempt=attempt, settings=self, grace_s=self.grace_s or DEFAULT_GRACE_S))
        created = self.api.create(self._jobs, manifest) or self.api.find(f"{self._jobs}/{attempt.name}")
        if created is not None and not names.is_ours(created, attempt):
            raise ConfigurationError(
                f"namespace {self.namespace} has a Job {attempt.name} that is not of {attempt.store.uri}. Delete it, "
                "or use another namespace."
            )

    def probe(self, attempt: Attempt) -> Probe:
        """Look at its Job and pods."""
        probe = classify(self._observe(attempt), now=time.time())
        if probe.error is not None and probe.phase not in GONE:
            return self._end_hopeless(attempt, probe)
        return probe

    def stop(self, attempt: Attempt) -> None:
        """Delete its Job, its pods first. Those get their grace; :meth:`probe` sees them gone."""
        path = f"{self._jobs}/{attempt.name}"
        found = self.api.find(path)
        if found is not None and names.is_ours(found, attempt):
            self.api.delete(path, uid=found["metadata"]["uid"])

    def usage(self, attempt: Attempt) -> Sequence[Usage]:
        """What its pods had."""
        return ()

    # --- looking -----------------------------------------------------------------------------------------------

    @property
    def _jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    @property
    def _core(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"

    def _observe(self, attempt: Attempt) -> Observation:
        job = self.api.find(f"{self._jobs}/{attempt.name}")
        found = self.api.list(f"{self._core}/pods", labels=names.selector(attempt)).items
        started = attempt.store.find_json(attempt.path("started.json"))
        seen = Observation(
            job=job if job is not None and names.is_ours(job, attempt) else None,
            pods=found,
            begun=started is not None,
            given_up=started is not None and started["process"] is None,
        )
        pending: list[Json] = [pod for pod in seen.alive if (pod.get("status") or {}).get("phase") == "Pending"]
        if not pending:
            return seen
        events = self.api.list(f"{self._core}/events", fields=f"involvedObject.name={pods.name(pending[0])}").items
        return Observation(**{**seen.__dict__, "events": events})

    def _end_hopeless(self, attempt: Attempt, probe: Probe) -> Probe:
        """It waits for what will not come: take its right to begin, say why, and remove it."""
        error = (error_class(probe.error) or WorkloadFailed)(probe.detail)
        if not attempts.abandon(attempt, reason=probe.detail):
            return Probe(Phase.RUNNING, reason=probe.reason, detail=probe.detail)  # it has begun after all
        attempts.give_up(attempt, error)
        self.stop(attempt)
        return Probe(Phase.FAILED, reason=probe.reason, detail=probe.detail, error=probe.error, since=probe.since)
