"""Is a cluster ready for our jobs? ``make kubernetes-check``, or ``python -m`` with the name of this module.

Prints a table of what is fine and what is missing, and the YAML that mends it. Exit code 1 when something that is
required is missing. Creates one short Job, and only when it is given an image and a store; removes it again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from genai_operators.compute.kubernetes import clients
from genai_operators.compute.kubernetes.api import KubernetesApi
from genai_operators.compute.kubernetes.cluster_checks import ACCOUNT, CHECKS, MAY_USE, NAMESPACE, Wanted
from genai_operators.compute.kubernetes.findings import Finding, Report, State
from genai_operators.compute.kubernetes.probe_job import IMAGE, STORE, TIMEOUT_S, ProbeJob
from genai_operators.compute.kubernetes.settings import KubernetesSettings
from genai_operators.exceptions import ConfigurationError, GenaiError
from genai_operators.store import Store

CONNECTION_FIX = """\
# Set KUBECONFIG to a file that reaches the cluster, or run this in a pod of it. In Airflow: correct the connection.
# `kubectl --kubeconfig FILE version` must answer."""


def preflight(wanted: Wanted, *, store: str | None = None, timeout_s: float = TIMEOUT_S) -> Report:
    """Look at everything that ``wanted`` needs.

    :param store: URI of the object store as Airflow sees it; with it and an image, a short Job tries both.
    :param timeout_s: of that Job, image pull included.
    """
    settings = wanted.settings
    api = KubernetesApi(connection=settings.connection, clients=settings.clients)
    findings: list[Finding] = []
    try:
        for check in CHECKS:
            findings += check(api, wanted)
    except GenaiError as error:
        fix = "" if findings else CONNECTION_FIX
        return Report([*findings, Finding(State.MISSING, "connection", str(error), fix)])
    if any(finding.state is State.MISSING and _keeps_pods_away(finding) for finding in findings):
        told = "not tried: no pod could start before the above is mended"
        findings += [Finding(State.SKIPPED, subject, told) for subject in (IMAGE, STORE)]
    else:
        findings += _image_and_store(api, settings, store, timeout_s=timeout_s)
    return Report(findings)


def _keeps_pods_away(finding: Finding) -> bool:
    """Whether the short Job would wait in vain."""
    return finding.subject in (NAMESPACE, ACCOUNT) or finding.subject.startswith(MAY_USE)


def _image_and_store(
    api: KubernetesApi, settings: KubernetesSettings, store: str | None, *, timeout_s: float
) -> list[Finding]:
    if not settings.image or store is None:
        told = "name an image and a store (IMAGE=... STORE=...) to try them in a pod"
        return [Finding(State.SKIPPED, subject, told) for subject in (IMAGE, STORE)]
    try:
        settings.require_image()
        opened = Store.open(store)
    except GenaiError as error:
        return [Finding(State.MISSING, IMAGE, str(error))]
    return ProbeJob(api, settings, opened, timeout_s).run()


def settings_of(values: Mapping[str, Any]) -> KubernetesSettings:
    """Settings from what a person wrote. :raises ConfigurationError: a name is unknown or a value cannot be."""
    known = {field.name for field in fields(KubernetesSettings)}
    if unknown := sorted(set(values) - known):
        raise ConfigurationError(f"kubernetes: {unknown[0]!r} unknown; known: {', '.join(sorted(known))}")
    return KubernetesSettings(**values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make kubernetes-check", description="Check that a cluster is ready for the workloads of this project."
    )
    parser.add_argument("--namespace", help="where jobs run (NAMESPACE=); default: genai", default="genai")
    parser.add_argument("--image", help="the workload image, by digest (IMAGE=)", default="")
    parser.add_argument("--store", help="URI of the object store as Airflow sees it (STORE=)")
    parser.add_argument("--queue", help="a Kueue LocalQueue (QUEUE=)")
    parser.add_argument("--gpu", action="store_true", help="require a node with a GPU now (GPU=1)")
    parser.add_argument("--nodes", type=int, default=1, help="nodes of the largest training (NODES=)")
    parser.add_argument("--settings", type=Path, help="YAML file with further settings of compute (SETTINGS=)")
    parser.add_argument(
        "--controller-namespace", default="airflow", help="where Airflow runs; for the role that is printed"
    )
    parser.add_argument("--connection", default="the kubeconfig", help="name of the cluster, in messages")
    parser.add_argument("--clients", default=clients.DEFAULT_SOURCE, help="module:function that makes a client")
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT_S, help="seconds for the short Job, image pull included"
    )
    return parser


def _settings(options: argparse.Namespace) -> KubernetesSettings:
    values: dict[str, Any] = {}
    if options.settings is not None:
        import yaml

        try:
            values = yaml.safe_load(options.settings.read_text(encoding="utf-8")) or {}
        except (OSError, yaml.YAMLError) as error:
            raise ConfigurationError(f"{options.settings} cannot be read: {error}") from error
    told = {"namespace": options.namespace, "connection": options.connection, "clients": options.clients}
    told |= {name: value for name in ("image", "queue") if (value := getattr(options, name))}
    return settings_of({**values, **told})


def main(arguments: Sequence[str]) -> int:
    """Command line. Returns 1 when something that is required is missing, 2 when a setting is wrong."""
    options = _parser().parse_args(arguments)
    try:
        settings = _settings(options)
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    wanted = Wanted(
        settings=settings, gpu=options.gpu, nodes=options.nodes, controller_namespace=options.controller_namespace
    )
    report = preflight(wanted, store=options.store, timeout_s=options.timeout)
    print(report.render())
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
