"""The values of Airflow's Helm chart that we set, as models that refuse unknown names.

Helm takes a misspelt value without a word. Names and types from the chart's parameters reference (1.22:
https://airflow.apache.org/docs/helm-chart/1.22.0/parameters-ref.html); only what we use.
"""

# ruff: noqa: N815  (the names are the chart's)

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tests.unit.deployment.strict_models import Name, Quantity, Strict


class Switch(Strict):
    enabled: bool


class Image(Strict):
    repository: str
    tag: str | None = None
    digest: str | None = None
    pullPolicy: Literal["Always", "IfNotPresent", "Never"]


class Images(Strict):
    airflow: Image
    useDefaultImageForMigration: bool


class SeccompProfile(Strict):
    type: Literal["RuntimeDefault"]


class PodSecurity(Strict):
    runAsNonRoot: bool
    runAsUser: int
    runAsGroup: int
    fsGroup: int
    fsGroupChangePolicy: Literal["Always", "OnRootMismatch"]
    seccompProfile: SeccompProfile


class Capabilities(Strict):
    drop: list[str]


class ContainerSecurity(Strict):
    allowPrivilegeEscalation: bool
    capabilities: Capabilities


class SecurityContexts(Strict):
    pod: PodSecurity
    containers: ContainerSecurity


class ServiceAccount(Strict):
    create: bool
    name: Name


class Amounts(Strict):
    cpu: Quantity | None = None
    memory: Quantity | None = None


class Needs(Strict):
    requests: Amounts
    limits: Amounts


class Claim(Strict):
    claimName: Name


class Volume(Strict):
    name: Name
    persistentVolumeClaim: Claim


class Mount(Strict):
    name: Name
    mountPath: str


class ApiServer(Strict):
    resources: Needs


class DagProcessor(ApiServer):
    enabled: bool


class Triggerer(ApiServer):
    serviceAccount: ServiceAccount


class Scheduler(Triggerer):
    extraVolumes: list[Volume]
    extraVolumeMounts: list[Mount]


class Data(Strict):
    metadataSecretName: Name


class Dags(Strict):
    persistence: Switch
    gitSync: Switch


class LogsVolume(Switch):
    size: Quantity


class Logs(Strict):
    persistence: LogsVolume


#: A number or a truth would reach airflow.cfg in YAML's spelling, not in Airflow's.
Options = dict[Annotated[str, Field(pattern=r"^[a-z_]+$")], str]


class ChartValues(Strict):
    airflowVersion: str
    defaultAirflowRepository: str
    images: Images
    executor: Literal["LocalExecutor"]
    uid: int
    gid: int
    securityContexts: SecurityContexts
    allowPodLaunching: bool
    scheduler: Scheduler
    triggerer: Triggerer
    dagProcessor: DagProcessor
    apiServer: ApiServer
    postgresql: Switch
    data: Data
    fernetKeySecretName: Name
    apiSecretKeySecretName: Name
    jwtSecretName: Name
    createUserJob: Switch
    redis: Switch
    statsd: Switch
    dags: Dags
    logs: Logs
    config: dict[Literal["core", "api", "triggerer"], Options]
    extraEnvFrom: str
    networkPolicies: Switch


def misspelt(values: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """The same with one name changed, at any depth."""
    return {
        new if name == old else name: misspelt(value, old, new) if isinstance(value, dict) else value
        for name, value in values.items()
    }
