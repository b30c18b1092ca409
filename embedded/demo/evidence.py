"""What the outside systems say happened: MLflow, the ledger, the gateway's own statistics, Airflow's API.

Nothing here asks our operators what they did. Each function returns plain records for ``demo.json``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import httpx

from embedded.airflow_api import AirflowApi
from embedded.layout import Layout
from genai_operators.release.journal import EventType, Journal, Turns
from genai_operators.release.ledger import Ledger
from genai_operators.store import Store, locate

HTTP_TIMEOUT_S = 20.0
#: Tasks that judge, in the order in which a run meets them.
GATES = ("validate", "evaluate", "release")
FORECAST_LINE = "a good canary is certified after"


def ledger(store: Store, model: str) -> list[dict[str, Any]]:
    """Every promotion, after its hash chain was followed."""
    return [
        {"epoch": e.epoch, "action": str(e.action), "version": e.version, "actor": e.actor, "reason": e.reason}
        for e in Ledger(store, model).verify()
    ]


def registry(layout: Layout, model: str) -> dict[str, Any]:
    """MLflow's versions of the model with their tags, and where its alias ``champion`` points."""
    base = f"{layout.mlflow_url}/api/2.0/mlflow"
    with httpx.Client(timeout=HTTP_TIMEOUT_S) as client:
        registered = client.get(f"{base}/registered-models/get", params={"name": model}).raise_for_status().json()
        found = client.get(f"{base}/model-versions/search", params={"filter": f"name='{model}'"}).raise_for_status()
    aliases = {a["alias"]: int(a["version"]) for a in registered["registered_model"].get("aliases", [])}
    versions = {
        int(v["version"]): {tag["key"]: tag.get("value", "") for tag in v.get("tags", [])}
        for v in found.json().get("model_versions", [])
    }
    return {"champion": aliases.get("champion"), "versions": dict(sorted(versions.items()))}


def gateway_requests(layout: Layout) -> dict[str, int]:
    """Requests that Envoy itself counted, by upstream cluster: one for each deployment that it still knows."""
    query = {"format": "json", "filter": r"^cluster\..*\.upstream_rq_total$"}
    with httpx.Client(timeout=HTTP_TIMEOUT_S) as client:
        stats = client.get(f"{layout.gateway_admin_url}/stats", params=query).raise_for_status().json()["stats"]
    return {stat["name"].split(".")[1]: int(stat["value"]) for stat in stats if "name" in stat}


def facts(store: Store, model: str) -> list[dict[str, Any]]:
    """What the gateway noted of each request and each judgement, from its access log, without text."""
    from genai_operators.serving.batches import read_batch

    found: list[dict[str, Any]] = []
    number = 0
    while (records := read_batch(store, model, "facts", number)) is not None:
        found += records
        number += 1
    return found


def requests_by_deployment(facts: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Requests of the gateway's access log, by the deployment that answered."""
    return dict(Counter(str(f["deployment"]) for f in facts if f["kind"] == "request" and f.get("deployment")))


def routed(facts: Iterable[dict[str, Any]]) -> dict[str, list[float]]:
    """By deployment, the shares in percent at which it answered as a canary, over time, as the gateway drew them."""
    shares: dict[str, dict[int, float]] = {}
    for fact in facts:
        if fact["kind"] == "request" and fact["variant"] == "canary" and fact["assigned"]:
            percent = round(100 * fact["propensity"], 6)
            shares.setdefault(fact["deployment"], {})[fact["route_version"]] = percent
    return {name: _changes(seen[version] for version in sorted(seen)) for name, seen in shares.items()}


def _changes(values: Iterable[float]) -> list[float]:
    changes: list[float] = []
    for value in values:
        if changes[-1:] != [value]:
            changes.append(value)
    return changes


def feedback(facts: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Judgements of users, and how many of them met the request that they are about."""
    requests, judged = set(), []
    for fact in facts:
        if fact["kind"] == "request":
            requests.add(fact["request_id"])
        elif fact["kind"] == "feedback":
            judged.append(fact["request_id"])
    return {"judgements": len(judged), "joined": sum(request in requests for request in judged)}


def evaluation(uri: str) -> dict[str, dict[str, Any]]:
    """The checks of an evaluation, by name.

    :param uri: of its ``result.json``, as MLflow's tags name it.
    """
    store, name = locate(uri)
    return {check["name"]: check for check in store.get_json(name)["verdict"]["checks"]}


def forecast(api: AirflowApi, dag: str, run_id: str) -> str | None:
    """What the planner said of the canary before it began, from the log of the run's plan task."""
    lines = api.log(dag, run_id, "plan").splitlines()
    return next((line.strip() for line in lines if FORECAST_LINE in line), None)


def traffic(store: Store, model: str) -> list[dict[str, Any]]:
    """When the gateway acknowledged which split, in each release."""
    rows = []
    for release in Turns(store, model).all():
        for event in Journal(store, f"releases/{model}/{release}").after(0):
            if event.type is EventType.WEIGHT_SET:
                rows.append({"release": release, "at": event.at, "canary_percent": event.data["percent"]})
            elif event.type in (EventType.PROMOTED, EventType.ROLLED_BACK):
                rows.append({"release": release, "at": event.at, "canary_percent": 0.0, "event": str(event.type)})
    return rows


def releases(store: Store, model: str) -> dict[str, dict[str, str]]:
    """How each release ended by its journal, by the run that made it. A task that failed returns no reference."""
    ended = {}
    for release in Turns(store, model).all():
        directory = f"releases/{model}/{release}"
        events = list(Journal(store, directory).after(0))
        causes = [f" ({event.data['cause']})" for event in events if event.type is EventType.ROLLING_BACK]
        verdict = str(events[-1].type) + (causes[-1] if causes else "")
        owner = store.get_json(f"{directory}/plan.json")["owner"]
        ended[owner["run_id"]] = {"verdict": verdict, "report": store.uri_of(f"{directory}/report.html")}
    return ended


def gates(api: AirflowApi, store: Store, model: str, runs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """The verdict of every gate of the given runs (DAG, run), with its report."""
    released = releases(store, model)
    rows = []
    for dag, run_id in runs:
        states = {task["task_id"]: task["state"] for task in api.tasks(dag, run_id)}
        for task in (t for t in ("check", *GATES) if t in states):
            reference = api.result(dag, run_id, task) or (released.get(run_id) if task == "release" else None) or {}
            rows.append(
                {
                    "dag": dag,
                    "run": run_id,
                    "gate": task,
                    "task_state": states[task],
                    "verdict": reference.get("verdict") or reference.get("outcome"),
                    "report": reference.get("report"),
                }
            )
    return rows
