"""Airflow connections as plain records. Resolved on the worker; nothing below the operators knows Airflow.

A relative path in a connection counts from the project's root, the folder that holds ``dags/``, so that one
``airflow_settings.yaml`` serves every checkout.
"""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from genai_operators.exceptions import ConfigurationError
from genai_operators.serving.contract import GatewaySettings

STORE_CONNECTION = "genai_store"
MLFLOW_CONNECTION = "genai_mlflow"
GATEWAY_CONNECTION = "genai_gateway"
LOCAL_COMPUTE_CONNECTION = "genai_compute_local"
SIGNING_CONNECTION = "genai_signing"
KUBERNETES_CONNECTION = "genai_kubernetes"
#: What the provider itself reads from the extra of a connection of type ``kubernetes``. ``namespace`` is of both.
PROVIDER_KEYS = frozenset(
    {
        "in_cluster",
        "kube_config",
        "kube_config_path",
        "cluster_context",
        "disable_verify_ssl",
        "disable_tcp_keepalive",
        "xcom_sidecar_container_image",
        "xcom_sidecar_container_resources",
    }
)


@dataclass(frozen=True)
class LocalComputeSettings:
    """How ``local`` compute starts heavy workloads: the Python that has torch."""

    workload_python: str


@dataclass(frozen=True)
class SigningSettings:
    """The private key that signs (made on first use) and the folder of public keys that are trusted."""

    private_key: Path
    trusted_keys: Path


def project_root() -> Path:
    """The folder that holds ``dags/``, ``include/`` and ``plugins/``."""
    from airflow.configuration import conf

    return Path(conf.get("core", "dags_folder")).expanduser().resolve().parent


def store_uri() -> str:
    """URI of the object store."""
    uri = str(_extra(STORE_CONNECTION, "uri"))
    return uri if "://" in uri else _absolute(uri).as_uri()


def mlflow_uri() -> str:
    """Tracking URI of MLflow."""
    connection = _connection(MLFLOW_CONNECTION)
    if not connection.host:
        raise ConfigurationError(f"connection {MLFLOW_CONNECTION} has no host; set the MLflow server's host and port")
    scheme = connection.schema or "http"
    port = f":{connection.port}" if connection.port else ""
    return f"{scheme}://{connection.host}{port}"


def gateway() -> GatewaySettings:
    """Where the gateway answers and where its files lie."""
    extra = _connection(GATEWAY_CONNECTION).extra_dejson
    names = ("gateway_url", "admin_url", "supervisor", "directory")
    if missing := [name for name in names if not extra.get(name)]:
        raise ConfigurationError(f"connection {GATEWAY_CONNECTION}: extra lacks {', '.join(missing)}")
    return GatewaySettings(
        gateway_url=extra["gateway_url"],
        admin_url=extra["admin_url"],
        supervisor=_absolute(extra["supervisor"]),
        directory=_absolute(extra["directory"]),
        workload_python=local_compute().workload_python,
        project_root=project_root(),
    )


def local_compute() -> LocalComputeSettings:
    """The Python of the workload environment; this one where the connection names none."""
    python = _connection(LOCAL_COMPUTE_CONNECTION).extra_dejson.get("workload_python")
    if not python:
        return LocalComputeSettings(workload_python=sys.executable)
    path = Path(python)
    # Not resolved: a virtual environment's python is a link whose own place says which environment it is.
    path = path if path.is_absolute() else project_root() / path
    if not path.exists():
        raise ConfigurationError(
            f"connection {LOCAL_COMPUTE_CONNECTION}: workload_python {path} does not exist. Create the environment "
            "from docker/workload/requirements.txt (`make install` does), or name another."
        )
    return LocalComputeSettings(workload_python=str(path))


def kubernetes_compute(connection: str = KUBERNETES_CONNECTION) -> dict[str, Any]:
    """The description of ``kubernetes`` compute: what the connection's extra says of it, beside the provider's keys.

    Holds no secret: of the cluster only the connection's name.

    :raises ConfigurationError: a key that neither knows, with the nearest that one does.
    """
    from genai_operators.compute.kubernetes.settings import KubernetesSettings
    from genai_operators.hooks.kubernetes import CLIENTS

    own = {field.name for field in fields(KubernetesSettings)} - {"connection", "clients"}
    extra = {
        name: value
        for name, value in _connection(connection).extra_dejson.items()
        if name not in PROVIDER_KEYS and not name.startswith("extra__kubernetes__") and value is not None
    }
    if not extra.get("namespace", "x"):
        del extra["namespace"]  # the provider's form leaves an empty field
    if unknown := sorted(set(extra) - own):
        near = difflib.get_close_matches(unknown[0], own, n=1)
        hint = f" did you mean {near[0]!r}?" if near else ""
        raise ConfigurationError(
            f"connection {connection}: extra has {unknown[0]!r}, which nobody reads;{hint} known: "
            + ", ".join(sorted(own))
        )
    return {"target": "kubernetes", "connection": connection, "clients": CLIENTS, **extra}


def signing() -> SigningSettings:
    """Where the signing key and the trusted keys lie."""
    return SigningSettings(
        private_key=_absolute(_extra(SIGNING_CONNECTION, "private_key")),
        trusted_keys=_absolute(_extra(SIGNING_CONNECTION, "trusted_keys")),
    )


def _connection(name: str) -> Any:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        return BaseHook.get_connection(name)
    except AirflowNotFoundException as error:
        raise ConfigurationError(
            f"Airflow has no connection {name}; apply airflow_settings.yaml (`make up` does) or create it"
        ) from error


def _extra(connection: str, key: str) -> Any:
    value = _connection(connection).extra_dejson.get(key)
    if not value:
        raise ConfigurationError(f"connection {connection}: extra lacks {key!r}")
    return value


def _absolute(path: str) -> Path:
    candidate = Path(path).expanduser()
    return candidate if candidate.is_absolute() else project_root() / candidate
