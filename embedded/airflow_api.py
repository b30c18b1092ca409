"""A small client of Airflow's public REST API (v2). Source: https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx

REQUEST_TIMEOUT_S = 30.0
#: The API server can be busy for a while on two cores; a request is repeated this often before it counts as failed.
ATTEMPTS = 5
RETRY_PAUSE_S = 1.0
FINISHED = frozenset({"success", "failed"})


class AirflowApi:
    """One authenticated session."""

    def __init__(self, url: str, *, user: str, password: str) -> None:
        self._credentials = {"username": user, "password": password}
        self._client = httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT_S)

    def __enter__(self) -> AirflowApi:
        self._log_in()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def trigger(self, dag: str, *, conf: dict[str, Any]) -> str:
        """Start a run and return its id. One whose answer was lost is found again, not started twice."""
        run_id = f"manual__{datetime.now(tz=UTC).isoformat()}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        response = self._send("POST", f"/api/v2/dags/{dag}/dagRuns", json=body)
        if response.status_code != httpx.codes.CONFLICT:  # it was received the first time
            _require_success(response)
        return run_id

    def dag_exists(self, dag: str) -> bool:
        """Whether the dag processor has parsed it."""
        return self._send("GET", f"/api/v2/dags/{dag}").status_code == httpx.codes.OK

    def run(self, dag: str, run_id: str) -> dict[str, Any]:
        """State and times of a run."""
        return self._request("GET", f"/api/v2/dags/{dag}/dagRuns/{run_id}")

    def runs(self, dag: str) -> list[dict[str, Any]]:
        """The runs of a DAG, newest first."""
        found = self._request("GET", f"/api/v2/dags/{dag}/dagRuns", params={"order_by": "-run_after", "limit": 50})
        return list(found["dag_runs"])

    def tasks(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a run."""
        return list(self._request("GET", f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances")["task_instances"])

    def result(self, dag: str, run_id: str, task: str) -> Any | None:
        """What a task returned, ``None`` if it returned nothing."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances/{task}/xcomEntries/return_value"
        response = self._send("GET", path, params={"deserialize": False})
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        response.raise_for_status()
        value = response.json()["value"]
        if isinstance(value, str):
            import json

            try:
                return json.loads(value)
            except ValueError:
                return value
        return value

    def xcoms(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        """Every XCom of a run, with its value."""
        run = f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances"
        listed: list[dict[str, Any]] = []
        while page := self._request("GET", f"{run}/~/xcomEntries", params={"offset": len(listed)})["xcom_entries"]:
            listed += page
        return [self._request("GET", f"{run}/{x['task_id']}/xcomEntries/{x['key']}") for x in listed]

    def log(self, dag: str, run_id: str, task: str, *, try_number: int = 1) -> str:
        """The log of a task, one line an event."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances/{task}/logs/{try_number}"
        events = self._request("GET", path, params={"full_content": True})["content"]
        return "\n".join(str(event.get("event", event)) if isinstance(event, dict) else str(event) for event in events)

    def asset_events(self) -> list[dict[str, Any]]:
        """Every asset event, newest first."""
        found = self._request("GET", "/api/v2/assets/events", params={"order_by": "-timestamp", "limit": 100})
        return list(found["asset_events"])

    def import_errors(self) -> list[dict[str, Any]]:
        """Files that did not parse."""
        return list(self._request("GET", "/api/v2/importErrors")["import_errors"])

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}

    def _log_in(self) -> None:
        response = self._patient("POST", "/auth/token", json=self._credentials)
        response.raise_for_status()
        self._token = str(response.json()["access_token"])

    def _request(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        response = self._send(method, path, **arguments)
        _require_success(response)
        return dict(response.json())

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        response = self._patient(method, path, headers=self._headers, **arguments)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self._log_in()
            response = self._patient(method, path, headers=self._headers, **arguments)
        return response

    def _patient(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Every request here may arrive twice."""
        for pause in _pauses():
            try:
                response = self._client.request(method, path, **arguments)
            except httpx.TransportError:
                if pause is None:
                    raise
            else:
                if response.status_code < httpx.codes.INTERNAL_SERVER_ERROR or pause is None:
                    return response
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


def _require_success(response: httpx.Response) -> None:
    if response.is_error:
        request = response.request
        raise httpx.HTTPStatusError(
            f"{request.method} {request.url.path}: {response.status_code} {response.text[:300]}",
            request=request,
            response=response,
        )


def _pauses() -> Iterator[float | None]:
    """A pause after each attempt, ``None`` after the last."""
    yield from [RETRY_PAUSE_S] * (ATTEMPTS - 1)
    yield None
