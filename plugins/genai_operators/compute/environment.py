"""The variables that a workload's process finds, wherever it runs."""

from __future__ import annotations

import os
from pathlib import Path

from genai_operators.compute.contract import Attempt

#: Rows of one GPU at a time, where the claim says so.
MICRO_BATCH_VARIABLE = "GENAI_MICRO_BATCH"
#: What the store is called by those who specified the workload; in a pod it may be mounted elsewhere.
STORE_URI_VARIABLE = "GENAI_STORE_URI"
#: Never handed to the workload: it has no business with Airflow's secrets.
PRIVATE_VARIABLES = ("AIRFLOW_", "_AIRFLOW_")


def workload_environment(attempt: Attempt, *, scratch: Path, start: int = 0) -> dict[str, str]:
    """This process's variables, those of Airflow left out, and what says which attempt it is and where it may write.

    :param start: which process of the attempt it is for, where the platform starts several.
    """
    package_parent = str(Path(__file__).resolve().parents[2])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PRIVATE_VARIABLES)}
    claim = attempt.store.find_json(attempt.path("claim.json")) or {}
    micro_batch = (claim.get("resources") or {}).get("micro_batch")
    return {
        **kept,
        **({MICRO_BATCH_VARIABLE: str(micro_batch)} if micro_batch else {}),
        **({STORE_URI_VARIABLE: claim["store"]} if "store" in claim else {}),
        "GENAI_WORKLOAD_URI": attempt.store.uri_of(attempt.directory),
        "GENAI_ATTEMPT": str(attempt.number),
        "GENAI_START": str(start),
        "GENAI_SCRATCH": str(scratch),
        "PYTHONPATH": os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH")))),
        "PYTHONUNBUFFERED": "1",
    }
