"""Where tests get clients of clusters from: the connection's name is the path of a kubeconfig file."""

from __future__ import annotations

from kubernetes import config
from kubernetes.client import ApiClient

#: As a backend's description names it.
SOURCE = f"{__name__}:from_kubeconfig_path"


def from_kubeconfig_path(connection: str) -> ApiClient:
    """Reads the file anew each time, so that a token that was written since is used."""
    return config.new_client_from_config(config_file=connection, persist_config=False)
