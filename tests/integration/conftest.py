"""Servers that several integration tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.mlflow_server import mlflow_server


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server. A cold start takes up to 45 s, so there is one for all."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield uri
