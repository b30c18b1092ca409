"""Compare the traffic with what the champion learnt, and raise an alarm when it has moved."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.exceptions import AirflowSkipException

from genai_operators.compute.contract import Result, Workload, code_digest
from genai_operators.decisions.verdict import Outcome
from genai_operators.exceptions import ConfigurationError
from genai_operators.operators.references import champion_dataset
from genai_operators.operators.traffic_window import recent_window
from genai_operators.operators.workload import WorkloadOperator, owner_of
from genai_operators.spec.drift import Drift

if TYPE_CHECKING:
    from airflow.sdk import Context

    from genai_operators.release.ledger import LedgerEntry
    from genai_operators.store import Store

ALARM_VERSION = 1


class CheckDriftOperator(WorkloadOperator):
    """Has the traffic moved away from what the champion learnt? On an alarm, tell every asset alias among the outlets.

    Drift is no failure: the task succeeds either way, and skips itself when there is no champion or no traffic yet.
    An alarm needs an effect worth acting on and evidence that it is no accident, and comes at most once within the
    cool-down. ::

        CheckDriftOperator(
            task_id="check",
            model="support_bot",
            drift={"window": "1h", "minimum_rows": 500},
            outlets=[AssetAlias("support_bot_drift")],
        )

    A DAG scheduled on that alias starts when the alarm is raised.
    Written to the store: ``drift/<model>/latest.json`` and ``drift/<model>/alarms/<champion's epoch>-<number>.json``.

    :param model: the model's public name.
    :param drift: rules, named as in a model file; see :class:`~genai_operators.spec.drift.Drift`.
    """

    workload_kind = "drift"
    environment: ClassVar[Literal["airflow", "workload"]] = "airflow"
    blocking_outcomes: ClassVar[frozenset[Outcome]] = frozenset()
    template_fields: Sequence[str] = WorkloadOperator.template_fields

    def __init__(self, *, model: str, drift: Drift | Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.drift = Drift.model_validate(drift or {})

    def build_workload(self, context: Context) -> Workload:
        """Choose the reference and the window.

        :raises AirflowSkipException: there is no champion, or no traffic in the window.
        :raises ConfigurationError: the champion's ledger entry names no data set.
        """
        store = self._open_store()
        champion = self._champion(store)
        if champion is None:
            raise AirflowSkipException(f"{self.model} has no champion yet; there is nothing to compare traffic with")
        dataset = champion_dataset(champion)
        if dataset is None:
            raise ConfigurationError(
                f"version {champion.version} of {self.model} became champion without naming its data set, so drift "
                "cannot be measured. Retrain it through its DAG; the registration then records the data set."
            )
        since = time.time() - self.drift.window.total_seconds()
        window = recent_window(store, self.model, since=since, owner=owner_of(context).key)
        if window is None:
            raise AirflowSkipException(f"{self.model} had no traffic within {self.drift.window}")
        return Workload(
            kind=self.workload_kind,
            params={
                "model": self.model,
                "window": window.model_dump(),
                "minimum_rows": self.drift.minimum_rows,
                "minimum_effect": self.drift.minimum_effect,
                "false_discovery_rate": self.drift.false_discovery_rate,
                "features": list(self.drift.features),
            },
            inputs={"dataset": dataset},
            code_digest=code_digest(),
        )

    def finish(self, context: Context, result: Result) -> dict[str, Any]:
        """Note the verdict, and raise the alarm once within the cool-down."""
        store, verdict = self._open_store(), result.verdict
        champion = self._champion(store)
        epoch = champion.epoch if champion is not None else 0
        record = {
            "version": ALARM_VERSION,
            "model": self.model,
            "epoch": epoch,
            "at": time.time(),
            "run": owner_of(context).to_json(),
            "verdict": verdict.to_json() if verdict is not None else None,
            "report": result.report_uri,
        }
        store.put_json(f"drift/{self.model}/latest.json", record)
        if verdict is None or verdict.outcome is not Outcome.FAIL:
            return {"alarm": None}
        path = self._alarm(store, record, epoch=epoch)
        if path is None:
            self.log.info("drift, but an alarm was raised within the last %s; no new one", self.drift.cooldown)
            return {"alarm": None}
        self._tell(context, {"model": self.model, "alarm": store.uri_of(path), "summary": verdict.summary})
        return {"alarm": store.uri_of(path)}

    def _champion(self, store: Store) -> LedgerEntry | None:
        from genai_operators.release.ledger import Ledger

        return Ledger(store, self.model).champion()

    def _alarm(self, store: Store, record: dict[str, Any], *, epoch: int) -> str | None:
        """Path of the alarm that this run raised, now or in an earlier try; ``None`` during the cool-down.

        The cool-down counts from the last alarm whoever was champion then: it is the brake of a loop that retrains by
        itself, and a loop that oscillates changes champions.
        """
        folder = f"drift/{self.model}/alarms"
        names = store.list_names(folder)
        if names:
            latest = store.get_json(f"{folder}/{names[-1]}")
            if latest["run"] == record["run"]:
                return f"{folder}/{names[-1]}"
            if record["at"] - latest["at"] < self.drift.cooldown.total_seconds():
                return None
        path = f"{folder}/{epoch:08d}-{len(names) + 1:04d}.json"
        return path if store.create_json(path, record) else None

    def _tell(self, context: Context, extra: dict[str, Any]) -> None:
        for alias in self.outlets:
            if isinstance(alias, AssetAlias):
                asset = Asset(name=f"{self.model}_drift_alarm", uri=f"x-genai://drift/{self.model}", group="drift")
                context["outlet_events"][alias].add(asset, extra=extra)
                self.log.info("alarm: %s", alias.name)
