"""Clusters of Airflow connections: what :mod:`genai_operators.compute.kubernetes` asks for when it needs a client.

The provider makes the client (in-cluster, kubeconfig, cloud plugins); nothing else of it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from genai_operators.exceptions import ConfigurationError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

#: The dotted path by which a backend's description names :func:`api_client`.
CLIENTS = f"{__name__}:api_client"


def api_client(connection: str) -> ApiClient:
    """A client of the cluster of an Airflow connection of type ``kubernetes``, with credentials as they are now.

    :raises ConfigurationError: there is no such connection, its provider is not installed, or it names no cluster.
    """
    from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
    from kubernetes.client import Configuration
    from kubernetes.config.config_exception import ConfigException

    try:
        from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
    except ImportError as error:
        raise ConfigurationError(
            f"connection {connection}: the provider apache-airflow-providers-cncf-kubernetes is not installed"
        ) from error
    try:
        # A configuration of its own: without one the provider sets that of the whole process, for every connection.
        client: ApiClient = KubernetesHook(conn_id=connection, client_configuration=Configuration()).get_conn()
    except AirflowNotFoundException as error:
        raise ConfigurationError(
            f"Airflow has no connection {connection}; create one of type kubernetes, the workload image in its extra"
        ) from error
    except (AirflowException, ConfigException, OSError) as error:
        raise ConfigurationError(f"connection {connection} does not lead to a cluster: {error}") from error
    return client
