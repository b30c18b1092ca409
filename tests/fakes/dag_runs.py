"""Run a DAG that a test builds, in-process and with Airflow's own code (``dag.test()``).

``dag.test()`` knows only DAGs of a configured bundle. A bundle of an empty folder holds what a test builds; the
project's own DAG files are not parsed for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

BUNDLE = "tests"


def use_empty_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure Airflow, for one test, to have no DAG files at all."""
    folder.mkdir()
    bundle = {
        "name": BUNDLE,
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(folder)},
    }
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))


def run_dag(dag: Any, **options: Any) -> Any:
    """Run it once, to its end; returns the DAG run. :param options: of ``dag.test()``."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

    manager = DagBundlesManager()
    manager.sync_bundles_to_db()
    folder = manager.get_bundle(BUNDLE).path
    bag = BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name=BUNDLE)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, BUNDLE, None)
    return dag.test(**options)
