"""Compare the traffic with what the champion learnt, raise an alarm when it has moved, and ask for a retraining."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.exceptions import AirflowSkipException

from genai_operators.compute.contract import Result, Workload, code_digest
from genai_operators.decisions.policy_facts import Trigger
from genai_operators.decisions.verdict import Outcome
from genai_operators.exceptions import ConfigurationError
from genai_operators.operators.drift_periods import (
    PeriodRecord,
    Periods,
    PlannedCheck,
    Watch,
    comparable,
    state_before,
)
from genai_operators.operators.policy_question import feedback_of, question
from genai_operators.operators.references import champion_dataset
from genai_operators.operators.retraining_attempts import Attempts
from genai_operators.operators.traffic_window import first_batch_since
from genai_operators.operators.workload import WorkloadOperator, owner_of
from genai_operators.serving import batches
from genai_operators.spec.drift import Drift
from genai_operators.spec.policy import Policy
from genai_operators.spec.quantities import format_duration

if TYPE_CHECKING:
    from airflow.sdk import Context

    from genai_operators.compute.owners import Owner
    from genai_operators.release.ledger import LedgerEntry
    from genai_operators.store import Store

ALARM_VERSION = 1
DECISION_VERSION = 1
RETRAIN = "retrain"


class CheckDriftOperator(WorkloadOperator):
    """Has the traffic moved away from what the champion learnt, and is that a reason to retrain?

    Each check judges one period of traffic, alone and together with those before it, so that a large change is found at
    once and a small one over time; the checks of a whole year share one risk of a false alarm. Then the retraining
    policy is asked: drift is one reason, the champion's age, users' judgements and new rows are others; a cool-down, a
    budget and retrainings that did not help are brakes. If it says *retrain*, every asset alias among the outlets is
    told. Drift is no failure: the task succeeds either way, and skips itself when there is no champion, no traffic, or
    when the present period was judged already. ::

        CheckDriftOperator(
            task_id="check",
            model="support_bot",
            drift={"window": "1h", "minimum_rows": 500},
            policy={"maximum_age": "60d"},
            outlets=[AssetAlias("support_bot_drift")],
        )

    A DAG scheduled on that alias starts when the policy asks for a retraining.
    Written to the store: ``drift/<model>/periods/<number>.json``, ``drift/<model>/latest.json``,
    ``drift/<model>/alarms/<champion's epoch>-<time>.json`` and ``policy/<model>/decisions/<number>.json``.

    :param model: the model's public name.
    :param drift: rules, named as in a model file; see :class:`~genai_operators.spec.drift.Drift`.
    :param policy: when to retrain, likewise; see :class:`~genai_operators.spec.policy.Policy`.
    :param minimum_new_rows: answers that users must have judged before drift or feedback is acted on; 0 where nobody
        judges.
    """

    workload_kind = "drift"
    environment: ClassVar[Literal["airflow", "workload"]] = "airflow"
    blocking_outcomes: ClassVar[frozenset[Outcome]] = frozenset()
    template_fields: Sequence[str] = WorkloadOperator.template_fields

    def __init__(
        self,
        *,
        model: str,
        drift: Drift | Mapping[str, Any] | None = None,
        policy: Policy | Mapping[str, Any] | None = None,
        minimum_new_rows: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.drift = Drift.model_validate(drift or {})
        self.policy = Policy.model_validate(policy or {})
        self.minimum_new_rows = minimum_new_rows

    # --- what is judged ----------------------------------------------------------------------------------------

    def build_workload(self, context: Context) -> Workload:
        """Choose the reference, the period and the periods before it; a retry chooses what the first try chose.

        :raises AirflowSkipException: there is no champion, no traffic, or the present period was judged already.
        :raises ConfigurationError: the champion's ledger entry names no data set.
        """
        store, owner = self._open_store(), owner_of(context)
        periods = Periods(store, self.model)
        check = periods.planned(owner) or periods.plan(self._plan(store, periods), owner)
        records = periods.newest(before=check.number)
        earlier = comparable(records, check.watch, period=check.period)
        state = state_before(records, check.watch, last_alarm_at=self._last_alarm_at(store, before=check.at))
        return Workload(
            kind=self.workload_kind,
            params={
                "model": self.model,
                "window": {"first": check.first, "last": check.last},
                "minimum_rows": self.drift.minimum_rows,
                "minimum_effect": self.drift.minimum_effect,
                "false_discovery_rate": self.drift.false_discovery_rate,
                "features": list(check.watch.features),
                "embeddings": check.watch.embeddings,
                "watch": {
                    "period": check.period,
                    "period_s": check.watch.period_s,
                    "cool_down": math.ceil(self.drift.cooldown.total_seconds() / check.watch.period_s),
                    "state": state,
                    "history": [_on_timeline(record) for record in earlier if record.strongest is not None],
                },
                "policy": dict(check.policy),
            },
            inputs={"dataset": check.dataset, **{f"period_{record.period}": record.profile for record in earlier}},
            code_digest=code_digest(),
        )

    def _plan(self, store: Store, periods: Periods) -> PlannedCheck:
        champion = self._champion(store)
        if champion is None:
            raise AirflowSkipException(f"{self.model} has no champion yet; there is nothing to compare traffic with")
        dataset = champion_dataset(champion)
        if dataset is None:
            raise ConfigurationError(
                f"version {champion.version} of {self.model} became champion without naming its data set, so drift "
                "cannot be measured. Retrain it through its DAG; the registration then records the data set."
            )
        now, newest = time.time(), periods.newest(most=1)
        watch = Watch(
            epoch=champion.epoch,
            period_s=self.drift.window.total_seconds(),
            features=self.drift.features,
            embeddings=self.drift.embeddings,
        )
        last = newest[-1] if newest else None
        same = last if last is not None and last.watch.epoch == champion.epoch else None
        first, end = self._traffic(store, champion, now=now, watch=watch, last=last)
        feedback = feedback_of(store, champion, known=same.feedback if same else None)
        asked = question(
            store,
            self.model,
            champion=champion,
            feedback=feedback,
            last=same,
            now=now,
            policy=self.policy,
            minimum_new_rows=self.minimum_new_rows,
        )
        return PlannedCheck(
            number=periods.next_number(),
            at=now,
            watch=watch,
            period=watch.period_at(now),
            first=first,
            last=end - 1,
            dataset=dataset,
            feedback=feedback,
            policy=asked.to_json(),
        )

    def _traffic(
        self, store: Store, champion: LedgerEntry, *, now: float, watch: Watch, last: PeriodRecord | None
    ) -> tuple[int, int]:
        """The batches of the period: those that no check has judged, and no older than a period or the champion.

        :raises AirflowSkipException: there are none, or the present period was judged already.
        """
        if last is not None and last.watch == watch and last.period >= watch.period_at(now):
            again = datetime.fromtimestamp((last.period + 1) * watch.period_s, UTC)
            raise AirflowSkipException(
                f"the present period of {format_duration(self.drift.window)} was judged already; "
                f"the next begins at {again:%Y-%m-%d %H:%M:%S} UTC"
            )
        since = max(now - watch.period_s, champion.at)
        if last is not None and last.watch == watch and last.period + 1 == watch.period_at(now):
            since = champion.at  # the last check was a period ago, give or take: nothing between the two is left out
        first = first_batch_since(store, self.model, since=since)
        if last is not None:
            first = max(first, last.last + 1)
        end = batches.next_number(store, self.model)
        if first >= end:
            raise AirflowSkipException(
                f"{self.model} had no traffic within {format_duration(self.drift.window)} that was not judged"
            )
        return first, end

    # --- what follows ------------------------------------------------------------------------------------------

    def finish(self, context: Context, result: Result) -> dict[str, Any]:
        """Write down what was found, once a period; raise the alarm; tell who retrains if the policy says so.

        Each step is create-only and in this order, so a repetition after a crash goes on where the first try stopped.
        """
        store, owner = self._open_store(), owner_of(context)
        periods = Periods(store, self.model)
        check = periods.planned(owner)
        if check is None:
            raise ConfigurationError(f"{owner} planned no drift check of {self.model}; run the task again")
        found = store.get_json(f"{store.path_of(result.outputs['watch'].uri)}/watch.json")
        mine = _record(check, owner, result, found)
        stands = periods.commit(mine)
        if stands.run != mine.run:
            self.log.info("another check judged this period first; its verdict stands: %s", stands.outcome)
            return {"alarm": None, "policy": None}
        decided = {"version": DECISION_VERSION, "at": check.at, "run": owner.to_json(), **found["policy"]}
        path = f"policy/{self.model}/decisions/{check.number:010d}.json"
        store.create_json(path, decided)
        decision = decided["decision"]
        self.log.info("policy: %s", decision["reason"])
        alarm = self._alarm(store, check, owner, result) if found["raised"] else None
        store.put_json(f"drift/{self.model}/latest.json", _alarm_record(self.model, check, owner, result))
        if decision["action"] == RETRAIN:
            Attempts(store, self.model).begin(
                at=check.at, trigger=Trigger(decision["trigger"]), run=owner.key, decision=check.number
            )
            summary = result.verdict.summary if result.verdict is not None else ""
            self._tell(context, {"model": self.model, "alarm": alarm, "summary": summary, "why": decision["reason"]})
        elif alarm is not None:
            self.log.info("the alarm starts no retraining now")
        self._forget_old(store, periods)
        return {"alarm": alarm, "policy": decision["action"]}

    def _forget_old(self, store: Store, periods: Periods) -> None:
        """Bound what the checks leave; a decision to retrain is kept."""
        for number in periods.forget_old():
            path = f"policy/{self.model}/decisions/{number:010d}.json"
            decided = store.find_json(path)
            if decided is not None and decided["decision"]["action"] != RETRAIN:
                store.delete(path)

    def _champion(self, store: Store) -> LedgerEntry | None:
        from genai_operators.release.ledger import Ledger

        return Ledger(store, self.model).champion()

    def _alarm(self, store: Store, check: PlannedCheck, owner: Owner, result: Result) -> str:
        """URI of the alarm of this period; a repetition finds the one that is there."""
        began = int(check.period * check.watch.period_s)
        path = f"drift/{self.model}/alarms/{check.watch.epoch:08d}-{began:010d}.json"
        if store.create_json(path, _alarm_record(self.model, check, owner, result)):
            self.log.info("alarm: %s", path)
        return store.uri_of(path)

    def _last_alarm_at(self, store: Store, *, before: float) -> float | None:
        """When an alarm was last raised, before the present check; whoever was champion then."""
        folder = f"drift/{self.model}/alarms"
        for name in reversed(store.list_names(folder)):
            at = float(store.get_json(f"{folder}/{name}")["at"])
            if at < before:
                return at
        return None

    def _tell(self, context: Context, extra: dict[str, Any]) -> None:
        for alias in self.outlets:
            if isinstance(alias, AssetAlias):
                asset = Asset(name=f"{self.model}_drift_alarm", uri=f"x-genai://drift/{self.model}", group="drift")
                context["outlet_events"][alias].add(asset, extra=extra)
                self.log.info("retraining asked for: %s", alias.name)


def _record(check: PlannedCheck, owner: Owner, result: Result, found: Mapping[str, Any]) -> PeriodRecord:
    return PeriodRecord(
        number=check.number,
        at=check.at,
        run=owner.to_json(),
        watch=check.watch,
        period=check.period,
        first=check.first,
        last=check.last,
        profile=result.outputs["profile"],
        state=found["state"],
        outcome=str(result.verdict.outcome) if result.verdict is not None else "",
        raised=found["raised"],
        alarmed=found["alarmed"],
        strongest=found["strongest"],
        feedback=check.feedback,
        report=result.report_uri,
    )


def _on_timeline(record: PeriodRecord) -> dict[str, Any]:
    return {"period": record.period, "raised": record.raised, **(record.strongest or {})}


def _alarm_record(model: str, check: PlannedCheck, owner: Owner, result: Result) -> dict[str, Any]:
    return {
        "version": ALARM_VERSION,
        "model": model,
        "epoch": check.watch.epoch,
        "at": check.at,
        "run": owner.to_json(),
        "verdict": result.verdict.to_json() if result.verdict is not None else None,
        "report": result.report_uri,
    }
