"""The processes of ``compute_kubernetes.py``: a triggerer's run loops, the supervisors in the pods, and tasks.

``python benchmarks/kubernetes_roles.py ROLE FILE``; the file holds arguments as JSON:

* ``watch``: ``{"triggers": [[class path, arguments], ...], "warm_s", "measure_s", "figures": file}`` runs the triggers'
  own ``run()`` in one event loop, as the triggerer's runner process does, and writes its memory and CPU.
* ``play``: ``{"store", "directories"}`` writes what the supervisors of running attempts write: a heartbeat every 2 s
  and a line of log every 10 s, until it is killed.
* ``task``: ``{"which": "ours" | "pod", ...}`` runs a task with ``dag.test()``, several times, and prints when it was
  executed and what CPU time its operator took on the worker.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HEARTBEAT_S, LINE_S = 2.0, 10.0


def watch(arguments: dict[str, Any]) -> None:
    """Memory in bytes (resident at the end) and CPU seconds over the minute."""
    import psutil
    from airflow.sdk.module_loading import import_string

    def cpu_s() -> float:
        used = psutil.Process().cpu_times()
        return used.user + used.system

    async def run() -> dict[str, float]:
        triggers = [import_string(path)(**options) for path, options in arguments["triggers"]]
        waiting = [asyncio.create_task(_first(trigger)) for trigger in triggers]
        await asyncio.sleep(arguments["warm_s"])
        Path(arguments["figures"]).with_suffix(".warm").touch()
        began, before = time.monotonic(), cpu_s()
        await asyncio.sleep(arguments["measure_s"])
        ended = [task.result() for task in waiting if task.done()]
        return {
            "cores": (cpu_s() - before) / (time.monotonic() - began),
            "rss": psutil.Process().memory_info().rss,
            "ended": len(ended),
            "threads": psutil.Process().num_threads(),
        }

    figures = asyncio.run(_then_leave(run(), Path(arguments["figures"])))
    assert figures


async def _first(trigger: Any) -> Any:
    async for event in trigger.run():
        return event
    return None


async def _then_leave(measuring: Any, path: Path) -> bool:
    """The triggers would go on for ever."""
    path.write_text(json.dumps(await measuring))
    os._exit(0)


def pod_trigger(*, trigger_start_time: str, **options: Any) -> Any:
    """The provider's trigger, from JSON."""
    from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger

    return KubernetesPodTrigger(trigger_start_time=datetime.datetime.fromisoformat(trigger_start_time), **options)


def play(arguments: dict[str, Any]) -> None:
    """What matters to whoever watches; nothing is computed."""
    from genai_operators.compute.contract import Attempt
    from genai_operators.compute.process import ProcessIdentity
    from genai_operators.store import Store

    store = Store.open(arguments["store"])
    attempts = [Attempt(store=store, directory=directory, number=1) for directory in arguments["directories"]]
    process = ProcessIdentity.of(os.getpid()).to_json()
    for attempt in attempts:
        store.create_json(attempt.path("started.json"), {"version": 1, "process": process, "at": time.time()})
    beat = line = 0
    while True:
        began = time.monotonic()
        for attempt in attempts:
            record = {"version": 1, "beat": beat, "at": time.time(), "start": 0, "progress": {}, "ended": False}
            store.put_json(attempt.path("heartbeat.json"), record)
        if beat % (LINE_S / HEARTBEAT_S) == 0:
            for attempt in attempts:
                store.create(attempt.path(f"log/{line:06d}.txt"), f"{line + 1:06d} step {line}\n".encode())
            line += 1
        beat += 1
        time.sleep(max(0.0, HEARTBEAT_S - (time.monotonic() - began)))


def task(arguments: dict[str, Any]) -> None:
    """Run the task so many times; each prints ``EXECUTE <time>``, and at the end ``CPU <seconds>`` of its operator."""
    home = tempfile.mkdtemp(prefix="genai-bench-airflow-")
    os.environ.update(
        {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW__CORE__PLUGINS_FOLDER": f"{home}/no-plugins",
            "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parents[1] / "dags"),  # where the project is
            "AIRFLOW_CONN_GENAI_KUBERNETES": json.dumps({"conn_type": "kubernetes", "extra": arguments["connection"]}),
        }
    )
    from airflow.sdk import DAG
    from airflow.utils.db import initdb

    initdb()
    _use_empty_bundle(Path(home) / "no-dags")
    from tests.fakes.dag_runs import run_dag

    make = _ours if arguments["which"] == "ours" else _pod
    for number in range(arguments["times"]):
        before = time.thread_time()
        with DAG(f"bench_{number}", schedule=None) as dag:
            operator = make(arguments, number)  # the first one imports the operator, as parsing the DAG file does
        spent = [time.thread_time() - before] if number == 0 else []
        for name in ("execute", "resume", "trigger_reentry"):
            if hasattr(operator, name):
                _measure(operator, name, spent)
        state = str(run_dag(dag).state)
        print(f"CPU {sum(spent)} {len(spent)} {state}", flush=True)


def _use_empty_bundle(folder: Path) -> None:
    folder.mkdir()
    bundle = {
        "name": "tests",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(folder)},
    }
    os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps([bundle])


def _measure(operator: Any, name: str, spent: list[float]) -> None:
    """Of the calling thread: what the worker's process does for this task."""
    kind = type(operator)
    original: Callable[..., Any] = getattr(kind, name)

    def measured(self: Any, *args: Any, **kwargs: Any) -> Any:
        if name == "execute":
            print(f"EXECUTE {time.time()}", flush=True)
        before = time.thread_time()
        try:
            return original(self, *args, **kwargs)
        finally:
            spent.append(time.thread_time() - before)

    setattr(kind, name, measured)


def _ours(arguments: dict[str, Any], number: int) -> Any:
    from genai_operators.compute.contract import Workload
    from tests.fakes.checkpointing_operator import CheckpointingOperator

    class Ours(CheckpointingOperator):
        """One class a run, as its methods are replaced."""

        def build_workload(self, context: Any) -> Workload:
            return Workload(kind=self.workload_kind, params=dict(self.settings))

    return Ours(
        task_id="train",
        settings={"steps": 40, "step_s": 0.05, "witness": f"{arguments['witness']}-{number}"},
        store=arguments["store"],
        compute="kubernetes",
    )


def _pod(arguments: dict[str, Any], number: int) -> Any:
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    class Pod(KubernetesPodOperator):
        """Likewise."""

    return Pod(
        task_id="train",
        name=f"bench-{number}",
        namespace=arguments["namespace"],
        image=arguments["image"],
        cmds=["python", "-u", "-c", "import time; print('line of step 1'); time.sleep(2)"],
        config_file=arguments["kubeconfig"],
        kubernetes_conn_id=None,
        in_cluster=False,
        deferrable=True,
        get_logs=True,
        logging_interval=1,
        reattach_on_restart=True,
    )


if __name__ == "__main__":
    {"watch": watch, "play": play, "task": task}[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text()))
