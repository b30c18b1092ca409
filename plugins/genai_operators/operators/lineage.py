"""What an operator read and wrote, for OpenLineage. Without its provider there is none; nothing else changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from genai_operators.compute.contract import Artifact


def operator_lineage(*, inputs: Iterable[Artifact], outputs: Iterable[Artifact]) -> Any:
    """An ``OperatorLineage``; ``None`` where the OpenLineage provider is not installed."""
    try:
        from airflow.providers.openlineage.extractors import OperatorLineage
    except ImportError:
        return None
    return OperatorLineage(inputs=[dataset(a) for a in inputs], outputs=[dataset(a) for a in outputs])


def dataset(artifact: Artifact) -> Any:
    """An artifact as an OpenLineage data set; its digest is its version."""
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import dataset_version_dataset, datasource_dataset

    namespace, name = dataset_name(artifact.uri)
    return Dataset(
        namespace=namespace,
        name=name,
        facets={
            "version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=artifact.digest),
            "dataSource": datasource_dataset.DatasourceDatasetFacet(name=namespace, uri=artifact.uri),
        },
    )


def dataset_name(uri: str) -> tuple[str, str]:
    """Namespace and name by OpenLineage's naming: ``file`` and the path, or ``s3://bucket`` and the key."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return "file", parts.path
    return f"{parts.scheme}://{parts.netloc}", parts.path.lstrip("/")
