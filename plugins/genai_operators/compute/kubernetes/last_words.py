"""Why a pod died before its supervisor could write anything: the one case in which a container's log is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from genai_operators.compute.contract import Attempt, Probe
from genai_operators.compute.kubernetes import pods
from genai_operators.compute.kubernetes.api import KubernetesApi
from genai_operators.compute.kubernetes.names import CONTAINER
from genai_operators.compute.kubernetes.paths import Paths
from genai_operators.exceptions import ConfigurationError

Json = Mapping[str, Any]

LINES = 8
LONGEST = 600


def with_last_words(probe: Probe, pod: Json, attempt: Attempt, *, api: KubernetesApi, paths: Paths) -> Probe:
    """The probe with the pod's last lines in its detail, where nothing else tells them.

    A supervisor that has begun writes the log itself; of a failed container the kubelet keeps the last lines.
    """
    _, told = pods.container_state(pod)
    if pods.last_words(told) or not told.get("startedAt") or attempt.store.exists(attempt.path("started.json")):
        return probe
    query = {"container": CONTAINER, "tailLines": LINES, "sinceTime": told["startedAt"]}
    try:
        said = api.text(f"{paths.pods}/{pods.name(pod)}/log", **query).strip()[-LONGEST:]
    except ConfigurationError:
        return probe  # not allowed to read logs: it says less
    detail = f"{probe.detail}: {said}" if said else probe.detail
    return replace(probe, detail=detail)
