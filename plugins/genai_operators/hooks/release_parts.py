"""What a release works with: gateway, registry, trusted keys. Plain JSON on the way, opened where it is driven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genai_operators.hooks.registry import ModelRegistry
from genai_operators.release.ledger import LedgerEntry
from genai_operators.release.parts import Parts
from genai_operators.release.plan import serve_options_from_json
from genai_operators.release.verification import verify_package
from genai_operators.serving.contract import Deployment, GatewaySettings, ServeOptions, Serving
from genai_operators.store import Store

PACKAGES_FOLDER = "packages"


def describe_parts(*, store: str | None = None) -> dict[str, Any]:
    """From Airflow's connections; on the worker. No secret is part of it.

    :param store: URI of the object store; the connection ``genai_store`` when ``None``.
    """
    from genai_operators.hooks import settings

    gateway = settings.gateway()
    return {
        "factory": f"{__name__}:open_parts",
        "settings": {
            "store": store or settings.store_uri(),
            "mlflow": settings.mlflow_uri(),
            "gateway": {name: str(value) for name, value in asdict(gateway).items()},
            "trusted_keys": str(settings.signing().trusted_keys),
            "packages": str(gateway.directory / PACKAGES_FOLDER),
        },
    }


def open_parts(settings: Mapping[str, Any], model: str, serve: Mapping[str, Any]) -> Parts:
    """What :func:`genai_operators.release.subject.open_parts` calls, wherever the release is driven."""
    trusted_keys = Path(settings["trusted_keys"])

    def verify(deployment: Deployment) -> None:
        package = Path(deployment.model_dir).parent
        verify_package(package, trusted_keys=trusted_keys, digest=deployment.digest)

    return Parts(
        store=Store.open(settings["store"]),
        serving=open_serving(settings, model, serve_options_from_json(serve)),
        aliases=open_registry(settings),
        verify=verify,
    )


def open_serving(settings: Mapping[str, Any], model: str, options: ServeOptions) -> Serving:
    """The serving target of a model."""
    from genai_operators.serving.local import LocalServing

    record = settings["gateway"]
    gateway = GatewaySettings(
        gateway_url=record["gateway_url"],
        admin_url=record["admin_url"],
        supervisor=Path(record["supervisor"]),
        directory=Path(record["directory"]),
        workload_python=record["workload_python"],
        project_root=Path(record["project_root"]),
    )
    return LocalServing(model, settings=gateway, store=Store.open(settings["store"]), options=options)


def open_registry(settings: Mapping[str, Any]) -> ModelRegistry:
    """The registry, which also keeps the alias ``champion``."""
    return ModelRegistry(settings["mlflow"])


def fetch_deployment(
    settings: Mapping[str, Any], *, model: str, version: int, runtime: str, digest: str = ""
) -> Deployment:
    """A version on this machine, downloaded once and verified now.

    :param digest: what it must be: from the ledger, or the version's own tag if not given.
    :raises ManifestMismatch: its files are gone, damaged or another model's.
    :raises SignatureInvalid: no trusted key signed it.
    """
    verified = open_registry(settings).fetch(
        model,
        version,
        cache=Path(settings["packages"]),
        trusted_keys=Path(settings["trusted_keys"]),
        digest=digest,
    )
    return Deployment(
        model=model,
        version=version,
        digest=verified.manifest.digest,
        model_dir=str(verified.directory),
        runtime=runtime,
    )


class LocalSurroundings:
    """Implements :class:`genai_operators.release.reconcile.Surroundings` for the connections of this Airflow."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        """:param description: from :func:`describe_parts`."""
        self._settings = description["settings"]

    def parts(self, model: str, serve: Mapping[str, Any]) -> Parts:
        """What a controller of this model works with."""
        return open_parts(self._settings, model, serve)

    def deployment(self, entry: LedgerEntry, *, runtime: str) -> Deployment:
        """The verified files of a ledger entry's version, on this machine."""
        return fetch_deployment(
            self._settings, model=entry.model, version=entry.version, runtime=runtime, digest=entry.digest
        )
