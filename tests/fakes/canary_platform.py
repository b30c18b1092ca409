"""A real Airflow around canary releases, with everything real that they act on: Envoy, supervisord, ingest, MLflow.

Only the model servers are fakes (:mod:`tests.fakes.openai_server`). Each model has a version 1 in production, a version
2 in the registry, a DAG ``<model>__retrain`` that releases it, and users who never stop asking.
"""

from __future__ import annotations

import functools
import json
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from genai_operators.compute.owners import Owner
from genai_operators.hooks.registry import ModelRegistry
from genai_operators.release.journal import Event, EventType, Journal
from genai_operators.release.ledger import Action, Ledger
from genai_operators.release.plan import release_id
from genai_operators.release.verification import MODEL_FOLDER
from genai_operators.serving.contract import Deployment, ServingStatus
from tests.fakes.airflow_platform import AirflowPlatform
from tests.fakes.packages import make_keys, make_package
from tests.fakes.serving_platform import FAKE_SERVER, ServingPlatform
from tests.fakes.workload_run import wait_for

PATIENCE_S = 180.0  # Airflow, Envoy and the servers on two busy cores
LOOK_S = 0.2  # a look at Airflow's API, the journal or the traffic costs what a release needs as well
wait = functools.partial(wait_for, patience_s=PATIENCE_S, every_s=LOOK_S)
RUNTIME = "fake"
#: Seconds between two requests of a user. One alone takes minutes for the first step, all together take seconds.
PAUSE_S, SHORT_PAUSE_S = 1.0, 0.05
USERS = 4
CANARY = {
    "steps": [
        {"percent": 5, "minimum_soak": "1s", "minimum_requests": 6},
        {"percent": 25, "minimum_soak": "1s", "minimum_requests": 6},
        {"percent": 50, "minimum_soak": "1s", "minimum_requests": 6},
    ],
    "guardrails": {"errors": {"ceiling": 0.2}, "invalid_output": {"ceiling": 0.2}},
    "deadline": "30m",
    "startup_timeout": "2m",
}
COMMAND = ["{python}", str(FAKE_SERVER), "--name", "{name}", "--port", "{port}"]
SERVE = {"runtime": RUNTIME, "runtimes": {RUNTIME: {"command": COMMAND}}}
DAG_FILE = """
from datetime import timedelta

from airflow.sdk import DAG

from genai_operators.operators import CanaryReleaseOperator, ReconcileOperator

MODELS = %r
CANARY = %r
SERVE = %r

with DAG("reconcile", schedule=None):
    ReconcileOperator(task_id="reconcile")

for model, deferrable in MODELS.items():
    with DAG(f"{model}__retrain", schedule=None):
        CanaryReleaseOperator(
            task_id="release",
            model=model,
            version=2,
            canary=CANARY,
            serve=SERVE,
            poll_interval=0.3,
            deferrable=deferrable,
            retries=3,
            retry_delay=timedelta(seconds=1),
        )
"""


class Users:
    """Who ask a model all the time, each answer counted by its status: at first one, and in the end all at once."""

    def __init__(self, url: str, model: str) -> None:
        self.answers: Counter[int] = Counter()
        self._counting = threading.Lock()
        self._url, self._model = url, model
        self._all, self._stop = threading.Event(), threading.Event()
        self._users = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(USERS)]
        for user in self._users:
            user.start()

    def come_all(self) -> None:
        self._all.set()

    def leave(self) -> None:
        self._stop.set()
        self._all.set()
        for user in self._users:
            user.join()

    def _ask(self, number: int) -> None:
        body = {"model": self._model, "messages": [{"role": "user", "content": "where is it"}], "user": f"u{number}"}
        if number > 0:
            self._all.wait()
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stop.is_set():
                status = client.post("/v1/chat/completions", json=body).status_code
                with self._counting:
                    self.answers[status] += 1
                if self._all.wait(PAUSE_S):
                    self._stop.wait(SHORT_PAUSE_S)


class CanaryPlatform:
    """Serving and the registry first, then Airflow, without a triggerer.

    :param models: by name, whether the task that releases it waits in the triggerer.
    """

    def __init__(self, folder: Path, project_root: Path, *, mlflow_uri: str, models: Mapping[str, bool]) -> None:
        self.folder = folder
        self.serving = ServingPlatform()
        self.store = self.serving.store
        self.registry = ModelRegistry(mlflow_uri)
        self.keys = make_keys(folder / "keys")
        try:
            self.serving.start()
            self.airflow = AirflowPlatform(
                folder,
                project_root,
                dag_file=DAG_FILE % (dict(models), CANARY, SERVE),
                dag="reconcile",
                task="release",
                env=self._connections(),
            )
        except BaseException:
            self.serving.close()
            raise

    def _connections(self) -> dict[str, str]:
        gateway = self.serving.settings
        names = ("gateway_url", "admin_url", "supervisor", "directory")
        keys = {"private_key": str(self.keys.private_key), "trusted_keys": str(self.keys.trusted_keys)}
        records: dict[str, dict[str, Any]] = {
            "store": {"extra": {"uri": self.store.uri}},
            "mlflow": {"host": "127.0.0.1", "port": int(self.registry.rest.uri.rsplit(":", 1)[1]), "schema": "http"},
            "gateway": {"extra": {name: str(getattr(gateway, name)) for name in names}},
            "compute_local": {"extra": {}},
            "signing": {"extra": keys},
        }
        return {
            f"AIRFLOW_CONN_GENAI_{name.upper()}": json.dumps({"conn_type": "generic", **record})
            for name, record in records.items()
        }

    def end(self) -> None:
        self.airflow.end()
        self.serving.close()

    def in_production(self, model: str) -> Deployment:
        """Version 1 serves, as ledger, gateway and registry say; version 2 is registered. The candidate."""
        champion, candidate = (self._registered(model, number) for number in (1, 2))
        Ledger(self.store, model).append(
            Action.PROMOTE,
            champion.version,
            champion.digest,
            actor="a test",
            reason="first",
            evidence={"runtime": RUNTIME},
            expected_epoch=0,
        )
        serving = self.serving.serving(model)
        serving.deploy(champion, slot="champion")
        wait(lambda: serving.ready("champion"), what=champion.id)
        self.registry.set_champion(model, champion.version)
        return candidate

    def _registered(self, model: str, number: int) -> Deployment:
        package = make_package(
            self.folder / "packages" / f"{model}-{number}", keys=self.keys, content=f"{model} {number}"
        )
        registered = self.registry.register(model, package, tags={}, metrics={})
        assert registered.version == number
        return Deployment(
            model=model,
            version=number,
            digest=registered.digest,
            model_dir=str(package / MODEL_FOLDER),
            runtime=RUNTIME,
        )


class Release:
    """A run of the DAG that releases version 2 of a model, seen from outside: its journal, the ledger, the gateway."""

    def __init__(self, platform: CanaryPlatform, model: str) -> None:
        self.platform, self.airflow, self.store = platform, platform.airflow, platform.store
        self.model, self.dag = model, f"{model}__retrain"
        candidate = platform.in_production(model)
        self.serving = platform.serving.serving(model)
        self.ledger = Ledger(self.store, model)
        self.users = Users(platform.serving.settings.gateway_url, model)
        # From what the champion did, the plan knows that a request is final after seconds.
        wait(lambda: self.serving.observations(0).requests, what="traffic of the champion")
        self.run = self.airflow.trigger(self.dag)
        self.id = release_id(Owner(dag_id=self.dag, run_id=self.run, task_id="release"), candidate)
        self.directory = f"releases/{model}/{self.id}"
        self._events: list[Event] = []

    # --- looking -----------------------------------------------------------------------------------------------

    @property
    def task(self) -> dict[str, Any]:
        return self.airflow.task(self.dag, self.run)

    def log(self, try_number: int = 1) -> str:
        return self.airflow.log(self.dag, self.run, try_number)

    @property
    def has_plan(self) -> bool:
        return self.store.exists(f"{self.directory}/plan.json")

    @property
    def is_cancelled(self) -> bool:
        return self.store.exists(f"{self.directory}/cancel.json")

    def events(self) -> list[Event]:
        self._events.extend(Journal(self.store, self.directory).after(len(self._events)))
        return self._events

    def steps(self) -> list[str]:
        """What happened, without the looks at the traffic, which depend on time."""
        return [str(event.type) for event in self.events() if event.type is not EventType.OBSERVED]

    def weights(self) -> list[float]:
        return [event.data["percent"] for event in self.events() if event.type is EventType.WEIGHT_SET]

    def drivers(self) -> list[int]:
        """Processes that wrote events, in order."""
        return list(dict.fromkeys(int(event.by.rsplit(":", 1)[1]) for event in self.events()))

    def routed(self) -> list[float]:
        """Percent of the traffic that the candidate was to get, over time, as the gateway noted with each request."""
        facts = self.serving.observations(0).requests
        routes = {fact.route_version: round(100 * fact.propensity, 6) for fact in facts}
        shares = [routes[version] for version in sorted(routes)]
        return [share for number, share in enumerate(shares) if number == 0 or share != shares[number - 1]]

    def status(self) -> ServingStatus:
        return self.serving.status()

    # --- waiting -----------------------------------------------------------------------------------------------

    def wait_for_state(self, *states: str) -> None:
        found: list[str | None] = []

        def reached() -> bool:
            found[:] = [self.task["state"]]
            return found[0] in states

        try:
            wait(reached)
        except AssertionError as error:
            raise AssertionError(f"{self.dag} is {found[0]}, not {states}; {self.steps()}") from error

    def wait_until_under_way(self) -> None:
        """The candidate has its first share of the traffic, and the first requests were looked at."""
        wait(lambda: self.weights() == [5.0], what="the first step")
        wait(lambda: self.events()[-1].type is EventType.OBSERVED, what="the traffic")

    def wait_for_another_driver(self, *before: int) -> None:
        wait(lambda: set(self.drivers()) - set(before), what="another process drives")

    def wait_for_step(self, step: EventType) -> None:
        wait(lambda: str(step) in self.steps(), what=f"{step}")
