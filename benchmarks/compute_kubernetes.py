"""What jobs on Kubernetes cost Airflow: a triggerer that watches 200, the way to the first line of log, a worker's CPU.

``python benchmarks/compute_kubernetes.py [--full] [--json FILE]`` measures against the provider's
``KubernetesPodOperator(deferrable=True)`` with the same image on the same fake cluster (``tests/fakes/kubernetes``), in
one run. *Watching* is done by the triggers' own run loops in one process, as in a triggerer's runner; the 200 pods are
no processes, but another process writes what their supervisors write (a heartbeat every 2 s, a line every 10 s).
*Submitting* is done by tasks under ``dag.test()`` in a warm process. Memory includes Airflow itself.
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]

from benchmarks.decisions_figures import Collected, Figure, Report, main  # noqa: E402

JOBS = 200
MEASURE_S = 60.0
#: Until everything is watched and the run loops have found their pace.
WARM_S = {True: 90.0, False: 30.0}
TASKS = 6
ROLES = ROOT / "benchmarks" / "kubernetes_roles.py"
MIB = 2**20
#: What a connection's extra does not have.
NO_EXTRA = ("target", "connection", "clients")


def measure(*, full: bool, report: Report | None = None) -> list[Figure]:
    """All figures; ``full`` gives the triggers longer to find their pace."""
    collected = Collected(report)
    with tempfile.TemporaryDirectory(prefix="genai-bench-") as folder:
        watching(Path(folder), collected, warm_s=WARM_S[full])
        submitting(Path(folder), collected)
    return collected.figures


# --- watching --------------------------------------------------------------------------------------------------------


def watching(folder: Path, collected: Collected, *, warm_s: float) -> None:
    """200 jobs under one event loop."""
    from tests.fakes.kubernetes.fixture import fake_cluster
    from tests.fakes.kubernetes.settings import NodeShape, Settings

    room = NodeShape("large", allocatable={"cpu": "1000", "memory": "4000Gi"})
    settings = Settings(folder="", simulate_s=3600.0, nodes=(room,))
    with fake_cluster(settings, folder=folder / "ours") as cluster:
        directories, triggers = submit_ours(cluster, folder)
        with player(folder, directories):
            ours = watched(cluster, triggers, folder / "ours.json", warm_s)
    with fake_cluster(settings, folder=folder / "theirs") as cluster:
        theirs = watched(cluster, submit_pods(cluster), folder / "theirs.json", warm_s)
    assert ours["ended"] == theirs["ended"] == 0, (ours, theirs)
    name = f"{JOBS} jobs watched by one triggerer"
    collected.add(f"{name}: memory", ours["rss"] / MIB, "MiB", baseline=theirs["rss"] / MIB, target=300e6 / MIB)
    collected.add(f"{name}: CPU", ours["cores"], "cores", baseline=theirs["cores"], target=0.2)
    collected.add(f"{name}: requests", ours["requests"], "a minute", baseline=theirs["requests"], target=JOBS)


def submit_ours(cluster: Any, folder: Path) -> tuple[list[str], list[Any]]:
    """Launch 200 attempts; their triggers."""
    from genai_operators.compute import attempts
    from genai_operators.compute.contract import Workload
    from genai_operators.compute.owners import Owner
    from genai_operators.compute.watch import WorkloadSubject
    from genai_operators.store import Store

    store = Store.open(folder / "store")
    directories, triggers = [], []
    for number in range(JOBS):
        owner = Owner(dag_id="bench", run_id=f"run-{number}", task_id="train")
        joined = attempts.join(store, Workload(kind="checkpointing", params={"number": number}), owner)
        arguments = {
            "store": store.uri,
            "directory": joined.directory,
            "backend": backend(cluster),
            "owner": owner.to_json(),
            "after": 0,
            "limits": {},
        }
        WorkloadSubject(**arguments).start()
        directories.append(joined.directory)
        subject = f"{WorkloadSubject.__module__}.{WorkloadSubject.__qualname__}"
        options = {"subject_class": subject, "subject_kwargs": arguments, "owner": owner.to_json()}
        triggers.append(["genai_operators.triggers.SettleTrigger", options])
    return directories, triggers


def backend(cluster: Any) -> dict[str, Any]:
    """The fake cluster, as a description of ours."""
    from tests.fakes import checkpointing, kubernetes_clients

    return {
        "target": "kubernetes",
        "connection": str(cluster.kubeconfig),
        "clients": kubernetes_clients.SOURCE,
        "namespace": cluster.namespace,
        "image": cluster.image,
        "service_account": "",
        "env": {"GENAI_EXTRA_WORKLOADS": checkpointing.EXTRA_WORKLOADS},
    }


def submit_pods(cluster: Any) -> list[Any]:
    """200 pods, and the triggers that the operator would have made."""
    from kubernetes import client

    core = client.CoreV1Api(cluster.api_client())
    config = json.loads(cluster.kubeconfig.read_text())
    now = datetime.datetime.now(tz=datetime.UTC)
    triggers = []
    for number in range(JOBS):
        container = {"name": "base", "image": cluster.image, "command": ["python"]}
        spec = {"restartPolicy": "Never", "containers": [container]}
        core.create_namespaced_pod(cluster.namespace, {"metadata": {"name": f"pod-{number}"}, "spec": spec})
        options = {
            "pod_name": f"pod-{number}",
            "pod_namespace": cluster.namespace,
            "trigger_start_time": now.isoformat(),
            "base_container_name": "base",
            "config_dict": config,
            "in_cluster": False,
        }
        triggers.append(["kubernetes_roles.pod_trigger", options])
    return triggers


def watched(cluster: Any, triggers: list[Any], figures: Path, warm_s: float) -> dict[str, float]:
    """Run the triggers in a process of their own; what that took, and how many requests it sent in the minute."""
    arguments = {"triggers": triggers, "warm_s": warm_s, "measure_s": MEASURE_S, "figures": str(figures)}
    with (figures.with_suffix(".log")).open("wb") as log:
        process = subprocess.Popen(command("watch", arguments, figures), stdout=log, stderr=log, env=environment())
        try:
            wait_for(figures.with_suffix(".warm"), process)
            before = cluster.control.requests()
            wait_for(figures, process)
        finally:
            process.kill()
            process.wait()
    return {**json.loads(figures.read_text()), "requests": cluster.control.requests() - before}


@contextmanager
def player(folder: Path, directories: list[str]) -> Iterator[None]:
    """The supervisors of the 200 pods."""
    arguments = {"store": (folder / "store").as_uri(), "directories": directories}
    process = subprocess.Popen(command("play", arguments, folder / "play.json"), env=environment())
    try:
        yield
    finally:
        process.kill()
        process.wait()


# --- submitting ------------------------------------------------------------------------------------------------------


def submitting(folder: Path, collected: Collected) -> None:
    """From the operator's ``execute`` to the first line that the workload said, and the CPU time of the operator."""
    from tests.fakes.kubernetes.fixture import fake_cluster

    with fake_cluster(folder=folder / "submit") as cluster:
        alone = statistics.median(bare(cluster, number) for number in range(TASKS))
        settings = {name: value for name, value in backend(cluster).items() if name not in NO_EXTRA}
        shared = {
            "times": TASKS,
            "connection": {**settings, "kube_config_path": str(cluster.kubeconfig)},
            "namespace": cluster.namespace,
            "image": cluster.image,
            "kubeconfig": str(cluster.kubeconfig),
            "store": (folder / "submit-store").as_uri(),
            "witness": str(folder / "witness"),
        }
        ours = tasks({**shared, "which": "ours"}, folder)
        theirs = tasks({**shared, "which": "pod"}, folder)
    first = "submit to first line, beyond what the API and the pod take"
    collected.add("a bare pod: create to its first line", alone, "s")
    collected.add(first, ours[0] - alone, "s", baseline=theirs[0] - alone, target=1.0)
    collected.add("operator's CPU on a worker, a job", 1000 * ours[1], "ms", baseline=1000 * theirs[1], target=50.0)
    name = "the same in a fresh process, which imports operator and client"
    collected.add(name, 1000 * ours[2], "ms", baseline=1000 * theirs[2])


def bare(cluster: Any, number: int) -> float:
    """Seconds from asking for a pod to the first line in its log, with nobody between."""
    from kubernetes import client

    core = client.CoreV1Api(cluster.api_client())
    container = {"name": "base", "image": cluster.image, "command": ["python", "-u", "-c", "print('line of step 1')"]}
    began = time.time()
    pod = core.create_namespaced_pod(
        cluster.namespace,
        {"metadata": {"name": f"bare-{number}"}, "spec": {"restartPolicy": "Never", "containers": [container]}},
    )
    while not (said := cluster.control.container_log(pod.metadata.uid) if _runs(cluster, number) else ""):
        time.sleep(0.005)
    at = datetime.datetime.fromisoformat(said.split(" ", 1)[0][:26] + "+00:00")
    return at.timestamp() - began


def _runs(cluster: Any, number: int) -> bool:
    pods = cluster.control.objects("pods")
    mine = next(pod for pod in pods if pod["metadata"]["name"] == f"bare-{number}")
    return mine["status"]["phase"] in ("Running", "Succeeded")


def tasks(arguments: dict[str, Any], folder: Path) -> tuple[float, float, float]:
    """Median seconds to the first line, and median CPU seconds, without the first task: that imports. And its own."""
    process = subprocess.Popen(
        command("task", arguments, folder / f"{arguments['which']}-task.json"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    latencies: list[float] = []
    spent: list[float] = []
    began: float | None = None
    said: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if line.startswith("EXECUTE"):
            began = began or float(line.split()[1])
        elif "line of step 1" in line and "print(" not in line and began is not None:
            latencies.append(time.time() - began)
            began = None
        elif line.startswith("CPU"):
            _, seconds, _, state = line.split()
            assert state == "success", "".join(said[-60:])
            spent.append(float(seconds))
            began = None
    if process.wait() != 0 or len(latencies) != TASKS:
        raise SystemExit("".join(said[-80:]))
    return statistics.median(latencies[1:]), statistics.median(spent[1:]), spent[0]


# --- processes -------------------------------------------------------------------------------------------------------


def command(role: str, arguments: dict[str, Any], path: Path) -> list[str]:
    """Of a role; arguments go by a file, as 200 triggers are too many for a command line."""
    file = path.with_suffix(".arguments")
    file.write_text(json.dumps(arguments))
    return [sys.executable, str(ROLES), role, str(file)]


def environment() -> dict[str, str]:
    """Nothing of Airflow's is this user's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    paths = (ROOT / "plugins", ROOT, ROOT / "benchmarks")
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "AIRFLOW_HOME": tempfile.gettempdir() + "/genai-bench-airflow",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "OMP_NUM_THREADS": "1",
    }


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the file is there. :raises SystemExit: its writer ended before."""
    while not path.exists():
        if process.poll() is not None and not path.exists():
            raise SystemExit(path.with_suffix(".log").read_text()[-3000:])
        time.sleep(0.05)


if __name__ == "__main__":
    main(measure, str(__doc__))
