"""``kubernetes`` compute: launch, probe, stop and usage of attempts as Jobs of a cluster. Keeps no state of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from genai_operators.compute import attempts
from genai_operators.compute.contract import GONE, Attempt, Phase, Probe
from genai_operators.compute.ending import error_class
from genai_operators.compute.kubernetes import names, pods
from genai_operators.compute.kubernetes.api import Json, KubernetesApi
from genai_operators.compute.kubernetes.grace import grace_s
from genai_operators.compute.kubernetes.last_words import with_last_words
from genai_operators.compute.kubernetes.manifest import companions, manifest
from genai_operators.compute.kubernetes.observe import Observer
from genai_operators.compute.kubernetes.paths import Paths
from genai_operators.compute.kubernetes.phases import STUCK, Observation, classify
from genai_operators.compute.kubernetes.pod import PodRequest
from genai_operators.compute.kubernetes.remembered import Remembered
from genai_operators.compute.kubernetes.removal import Removal
from genai_operators.compute.kubernetes.settings import KubernetesSettings
from genai_operators.compute.kubernetes.usage import Meter
from genai_operators.compute.resources import Usage
from genai_operators.exceptions import ConfigurationError, QuotaExceeded, WorkloadFailed

#: How long it is taken for granted that what was created is there.
CREATED_S = 60.0

_companions: Remembered[Json | None] = Remembered(seconds=CREATED_S)


@dataclass(frozen=True, kw_only=True)
class KubernetesCompute(KubernetesSettings):
    """Runs attempts in a cluster. For its settings see :class:`.settings.KubernetesSettings`.

    Every method raises ``ClusterUnavailable`` when the cluster does not answer (some seconds of tries included), and
    ``ConfigurationError`` when it refuses.
    """

    target: ClassVar[str] = "kubernetes"
    restarts: ClassVar[bool] = True

    @property
    def api(self) -> KubernetesApi:
        """Requests to the cluster."""
        return KubernetesApi(connection=self.connection, clients=self.clients)

    @property
    def paths(self) -> Paths:
        """Where its objects lie."""
        return Paths(self.namespace, self.multi_node)

    def describe(self) -> dict[str, Any]:
        """All settings that differ from the defaults, and those that say which cluster."""
        where = {"connection": self.connection, "namespace": self.namespace}
        return {"target": self.target, **where, **self.changed()}

    def launch(self, attempt: Attempt) -> None:
        """Create its object, and what belongs to that. What is there already is adopted.

        :raises ConfigurationError: no digest, no permission, a rejected manifest, or a foreign Job of that name.
        :raises QuotaExceeded: the namespace may hold no further Job.
        """
        path = self.paths.collection(attempt.resources)
        try:
            found = self.api.create(path, manifest(self._request(attempt))) or self.api.find(f"{path}/{attempt.name}")
        except QuotaExceeded:  # quota is looked at before the name is: it may be this very attempt that fills it
            if (found := self.api.find(f"{path}/{attempt.name}")) is None:
                raise
        if found is None:
            return  # somebody has just removed it: the next probe says so
        if not names.is_ours(found, attempt):
            raise ConfigurationError(
                f"namespace {self.namespace} has a {found.get('kind') or 'Job'} {attempt.name} that is not of "
                f"{attempt.store.uri}. Delete it, or use another namespace."
            )
        self._complete(attempt, found)

    def probe(self, attempt: Attempt) -> Probe:
        """Look at its object and pods. That it is gone is never said from memory: the cluster is asked once more."""
        observer = Observer(self.api, self.paths)
        seen = observer.glance(attempt)
        probe = None if seen is None else classify(seen, now=time.time())
        if seen is None or probe is None or probe.phase in GONE or probe.error is not None:
            seen = observer.look(attempt)
            probe = classify(seen, now=time.time())
        if probe.phase in (Phase.QUEUED, Phase.STARTING) and seen.job is not None and self.device_class:
            self._complete(attempt, seen.job)
        if probe.reason == STUCK:
            return self._release(attempt, seen, probe)
        if probe.error is not None and probe.phase not in GONE:
            return self._end_hopeless(attempt, probe)
        if probe.phase is Phase.FAILED and seen.pods:
            return with_last_words(probe, seen.pods[-1], attempt, api=self.api, paths=self.paths)
        return probe

    def stop(self, attempt: Attempt) -> None:
        """Delete its object, its pods first. Those get their grace; :meth:`probe` sees them gone."""
        Removal(self.api, self.paths).remove(attempt)

    def usage(self, attempt: Attempt) -> Sequence[Usage]:
        """What its pods had, from the moment that each had its node."""
        return Meter(self.api, self.paths, self.prices).usage(attempt)

    def _request(self, attempt: Attempt) -> PodRequest:
        return PodRequest(attempt=attempt, settings=self, grace_s=grace_s(attempt, self.grace_s))

    def _complete(self, attempt: Attempt, found: Json) -> None:
        """Create what belongs to the attempt's object; whoever created that may have died in between."""
        uid = found["metadata"]["uid"]
        for path, companion in companions(self._request(attempt), uid=uid, paths=self.paths):
            _companions.get((self.api, path, uid), partial(self.api.create, path, companion))

    # --- what cannot end by itself -----------------------------------------------------------------------------

    def _end_hopeless(self, attempt: Attempt, probe: Probe) -> Probe:
        """It waits for what will not come: take its right to begin, say why, and remove it."""
        if not attempts.abandon(attempt, reason=probe.detail):
            return replace(probe, error=None)  # it had begun: the limit of its phase ends it
        attempts.give_up(attempt, (error_class(probe.error) or WorkloadFailed)(probe.detail))
        self.stop(attempt)
        return Probe(Phase.FAILED, reason=probe.reason, detail=probe.detail, error=probe.error, since=probe.since)

    def _release(self, attempt: Attempt, seen: Observation, probe: Probe) -> Probe:
        """A pod that a lost node keeps would keep the Job from replacing it, for ever.

        The Job's finalizer holds even a pod that is deleted by force as long as there is the Job: so that goes as
        well, and the next attempt resumes.
        """
        removal = Removal(self.api, self.paths)
        done = "; ".join(filter(None, (removal.release_stuck(pod) for pod in seen.alive if pods.is_terminating(pod))))
        if not done:
            return probe
        removal.remove(attempt)
        return Probe(probe.phase, probe.reason, f"{probe.detail}; {done}", since=probe.since)
