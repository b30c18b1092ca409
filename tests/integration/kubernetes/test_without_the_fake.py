"""Nothing in the suite may depend on the fake: it is run as against a real cluster, of which it knows a kubeconfig.

That the cluster behind the kubeconfig is the fake one is the only difference from a real one. ``ROWS`` are a sample, as
the whole takes minutes; ``GENAI_TEST_WHOLE_SUITE=1`` runs the whole.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.kubernetes.fixture import (
    IMAGE,
    REAL_IMAGE,
    REAL_NAMESPACE,
    REAL_STORE,
    ROOT,
    fake_cluster,
    is_real,
    workload_image,
)
from tests.fakes.kubernetes.settings import Settings, cpu_node

pytestmark = [pytest.mark.slow, pytest.mark.workload_env]

FOLDER = "tests/integration/kubernetes"
TABLE = f"{FOLDER}/test_fault_table.py"
#: Beside another row of several nodes it finds their common port taken, for all nodes of the fake are one host.
ONE_HOST = "out of memory, GPU: on another than the first node"
#: Of the table of faults: those that the API alone can inject, and one that needs the fake.
ROWS = (
    "worker killed: after create",
    "Job deleted by hand: running",
    "pod deleted by hand: running",
    "two runs of one fingerprint: at once",
    "preempted: once",
)
LEAST_PASSED = 4
WHOLE = "GENAI_TEST_WHOLE_SUITE"


@pytest.mark.skipif(is_real(), reason="the suite runs against a real cluster already")
def test_the_suite_runs_where_only_a_kubeconfig_leads(tmp_path: Path, workload_python: str) -> None:
    images = {IMAGE.split("@")[0]: workload_image(workload_python)}
    nodes = tuple(cpu_node(f"cpu-{number}") for number in (1, 2, 3))
    with fake_cluster(Settings(folder="", images=images, nodes=nodes), folder=tmp_path / "cluster") as cluster:
        environment = {
            **os.environ,
            "KUBECONFIG": str(cluster.kubeconfig),
            REAL_NAMESPACE: cluster.namespace,
            REAL_IMAGE: cluster.image,
            REAL_STORE: (tmp_path / "store").as_uri(),
        }
        for name in ("PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST"):
            environment.pop(name, None)
        chosen = [FOLDER, f"--ignore={Path(__file__).relative_to(ROOT)}", f"--deselect={TABLE}::test_row[{ONE_HOST}]"]
        if not os.environ.get(WHOLE):
            chosen = [f"{TABLE}::test_row[{row}]" for row in ROWS]
        command = [sys.executable, "-m", "pytest", *chosen, "-q", "-rs", f"--basetemp={tmp_path / 'suite'}"]
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
        print(ran.stdout)
        counts = {what: int(number) for number, what in re.findall(r"(\d+) (passed|skipped)", ran.stdout)}
        assert counts["passed"] >= LEAST_PASSED, ran.stdout
