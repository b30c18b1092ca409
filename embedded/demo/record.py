"""What ``demo.json`` holds. Every key is there however the demo ended; what was not measured is ``None`` or empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embedded.demo import evidence, stages
from embedded.demo.traffic import MODEL

INTERRUPTED = "interrupted"


def empty() -> dict[str, Any]:
    """Before anything happened."""
    return {
        "ok": False,
        "error": None,
        "traceback": None,
        "stages": [],
        "seconds": None,
        "airflow": None,
        "champions": {"first": None, "second": None},
        "gates": [],
        "reports": [],
        "ledger": [],
        "mlflow": None,
        "traffic": [],
        "routed": {},
        "forecast": None,
        "seconds_to_alarm": None,
        "users": {},
        "feedback": None,
        "requests_by_deployment": {},
        "exposed_requests": None,
        "gateway_counted": {},
        "evidence": {},
        "not_measured": {},
    }


def collect(run: stages.Run, record: dict[str, Any]) -> None:
    """Everything that was measured, also when a stage failed; what cannot be had any more says why.

    A platform that broke down answers few of the questions, and the failure that matters is the first one.
    """
    record["champions"] = {"first": run.seen.get("first_champion"), "second": run.seen.get("second_champion")}
    record["seconds_to_alarm"] = run.seen.get("seconds_to_alarm")
    record["gateway_counted"] = run.seen.get("gateway_counted", {})
    record["airflow"] = {"url": run.layout.airflow_url, "runs": [list(r) for r in run.runs]}
    questions: dict[str, Callable[[], dict[str, Any]]] = {
        "users": lambda: {"users": {k: v for k, v in run.users.counts().items() if isinstance(v, (int, float))}},
        "ledger": lambda: {"ledger": evidence.ledger(run.store, MODEL)},
        "traffic": lambda: {"traffic": evidence.traffic(run.store, MODEL)},
        "requests": lambda: _requests(run),
        "gates": lambda: _gates(run),
        "forecast": lambda: {"forecast": _forecast(run)},
    }
    for name, ask in questions.items():
        try:
            record.update(ask())
        except Exception as error:  # noqa: BLE001  whatever it is, it must not hide why the demo failed
            record["not_measured"][name] = f"{type(error).__name__}: {error}"


def exposed(requests: dict[str, int]) -> int:
    """Requests that met the bad release, by the gateway's access log."""
    return sum(count for deployment, count in requests.items() if deployment.endswith("-unreliable"))


def _requests(run: stages.Run) -> dict[str, Any]:
    facts = evidence.facts(run.store, MODEL)
    counts = evidence.requests_by_deployment(facts)
    return {
        "requests_by_deployment": counts,
        "exposed_requests": exposed(counts),
        "routed": evidence.routed(facts),
        "feedback": evidence.feedback(facts),
    }


def _gates(run: stages.Run) -> dict[str, Any]:
    gates = evidence.gates(run.api, run.store, MODEL, run.runs)
    return {"gates": gates, "reports": [gate["report"] for gate in gates if gate["report"]]}


def _forecast(run: stages.Run) -> str | None:
    retraining = run.seen.get("retraining")
    return None if retraining is None else evidence.forecast(run.api, stages.RETRAIN, retraining)
