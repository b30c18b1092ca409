"""A model with a champion and traffic in a store of its own, and drift checks of it at any time, computed for real."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, AssetAlias

from genai_operators.compute.contract import Result, Workload
from genai_operators.operators import drift as drift_module
from genai_operators.operators.drift import CheckDriftOperator
from genai_operators.operators.drift_periods import PeriodRecord, Periods
from genai_operators.release.ledger import Ledger, LedgerEntry
from genai_operators.serving.batches import batch_path, encode, next_number
from genai_operators.store import Store
from genai_operators.workloads.dataset import Dataset, save_reference
from genai_operators.workloads.main import load_kind, open_context, publish
from genai_operators.workloads.records import Record
from tests.fakes.workload_process import ROOT

MODEL = "m"
HOUR, DAY = 3_600.0, 86_400.0
MONDAY = 1_750_032_000.0
"""A midnight, as seconds since the epoch."""


def example(name: str) -> list[Record]:
    """Rows of the example model: ``first`` was learnt, ``usual`` is like it, ``later`` is not."""
    lines = (ROOT / "include/data/support_bot" / f"{name}.jsonl").read_text().splitlines()
    return [Record.from_json({**json.loads(line), "source": "train"}) for line in lines]


class DriftLoop:
    """:param drift: rules of the check. :param options: of the operator."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, drift: Any = None, **options: Any) -> None:
        self.store = Store.open(tmp_path / "store")
        self.now = MONDAY
        self.events: list[dict[str, Any]] = []
        self.periods = Periods(self.store, MODEL)
        self._scratch = tmp_path / "scratch"
        self._dice = random.Random(7)
        self._drift = {"window": "1d", "minimum_rows": 150, **(drift or {})}
        self._options = options
        monkeypatch.setattr(drift_module, "time", SimpleNamespace(time=lambda: self.now))

    # --- the world ---------------------------------------------------------------------------------------------

    def crown(self, records: Sequence[Record], *, version: int = 1, learnt_through: int | None = None) -> LedgerEntry:
        """Make a champion that learnt these rows."""
        folder = self._scratch / f"dataset-{version}"
        folder.mkdir(parents=True)
        save_reference(Dataset(train=list(records), evaluation=[], counts={}), folder)
        feedback = None if learnt_through is None else {"first": 0, "last": learnt_through}
        (folder / "stats.json").write_text(json.dumps({"feedback": feedback, "counts": {"taught_rows": 0}}))
        self.store.upload_directory(folder, f"datasets/{version}")
        ledger = Ledger(self.store, MODEL, clock=lambda: self.now)
        evidence = {"dataset": self.store.uri_of(f"datasets/{version}")}
        return ledger.append(
            "promote", version, "digest", actor="a", reason="r", evidence=evidence, expected_epoch=ledger.epoch()
        )

    def serve(self, records: Sequence[Record], rows: int, *, judged: int = 0, wrong: int = 0) -> None:
        """One batch of traffic now, drawn from these rows; of its answers some were judged, some of those wrong."""
        number = next_number(self.store, MODEL)
        asked, facts = [], []
        for row in range(rows):
            identity = f"r{number}-{row}"
            record = self._dice.choice(records)
            prompt = [message.as_dict() for message in record.prompt]
            asked.append(
                {"kind": "request", "request_id": identity, "status": 200, "messages": prompt, "answer": record.answer}
            )
            facts.append({"kind": "request", "request_id": identity, "arrived_at": self.now})
        for row in range(judged):
            rating = "wrong" if row < wrong else "right"
            facts.append(
                {
                    "kind": "feedback",
                    "request_id": f"r{number}-{row}",
                    "at": self.now,
                    "rating": rating,
                    "corrected": True,
                }
            )
        self.store.put(batch_path(MODEL, "text", number), encode([{"kind": "batch"}, *asked]))
        self.store.put(batch_path(MODEL, "facts", number), encode([{"kind": "batch"}, *facts]))

    # --- a check -----------------------------------------------------------------------------------------------

    def operator(self) -> CheckDriftOperator:
        with DAG("dag"):
            return CheckDriftOperator(
                task_id="check",
                model=MODEL,
                drift=self._drift,
                store=self.store.uri,
                outlets=[AssetAlias("m_drift")],
                **self._options,
            )

    def context(self, run: str) -> Any:
        alias = SimpleNamespace(add=lambda asset, extra: self.events.append(extra))
        instance = SimpleNamespace(dag_id="dag", run_id=run, task_id="check", map_index=-1)
        return {"ti": instance, "run_id": run, "outlet_events": {AssetAlias("m_drift"): alias}}

    def build(self, run: str) -> Workload:
        return self.operator().build_workload(self.context(run))

    def compute(self, workload: Workload) -> Result:
        """What the process of an attempt does, in this one."""
        self.store.create_json(f"{workload.directory}/spec.json", workload.to_json())
        scratch = self._scratch / workload.fingerprint[:12]
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        environment = {
            "GENAI_WORKLOAD_URI": self.store.uri_of(workload.directory),
            "GENAI_ATTEMPT": "1",
            "GENAI_SCRATCH": str(scratch),
        }
        context, kind = open_context(environment, scratch=scratch)
        publish(context, kind=kind, output=load_kind(kind, {})(context), seconds=0.0)
        shutil.rmtree(scratch)
        return self.result(workload)

    def result(self, workload: Workload) -> Result:
        return Result.from_json(self.store.get_json(f"{workload.directory}/result.json"))

    def finish(self, run: str, result: Result) -> dict[str, Any]:
        return self.operator().finish(self.context(run), result)

    def check(self, run: str = "") -> dict[str, Any]:
        """A whole check now."""
        run = run or f"scheduled__{self.now:.0f}"
        return self.finish(run, self.compute(self.build(run)))

    def record(self) -> PeriodRecord:
        """The newest period's."""
        return self.periods.newest(most=1)[0]

    def decision(self, number: int | None = None) -> dict[str, Any]:
        """A stored decision, with what it was taken from; the newest by default."""
        folder = f"policy/{MODEL}/decisions"
        name = self.store.list_names(folder)[-1] if number is None else f"{number:010d}.json"
        found: dict[str, Any] = self.store.get_json(f"{folder}/{name}")
        return found
