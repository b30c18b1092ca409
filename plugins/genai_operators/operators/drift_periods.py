"""The periods of a model's drift watch, in the store: what each check set out to judge, and what it found.

    drift/<model>/checks/<run>.json        what a run judges, fixed by its first try: a retry meets the same workload
    drift/<model>/periods/<number>.json    what was found; create-only, so the number is the compare-and-swap

Records are numbered without gaps, each made from those before it. Two checks at once both write the next number; one
succeeds, and its verdict stands. A record names the profile of its period, which later checks take as an input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from genai_operators.compute.contract import Artifact
from genai_operators.compute.owners import Owner
from genai_operators.store import Store

RECORD_VERSION = 1
LONGEST_WINDOW = 64
"""Periods; the longest window that a check looks at."""

KEPT = 4 * LONGEST_WINDOW
"""Records that are kept; older ones go, with the profiles of their periods. Alarms, decisions and reports stay."""

_DIGITS = 10


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What makes periods comparable; another one begins anew.

    :param epoch: of the champion in the ledger.
    :param period_s: length of a period in seconds.
    :param features: compared, none for all. :param embeddings: compared too?
    """

    epoch: int
    period_s: float
    features: tuple[str, ...] = ()
    embeddings: bool = True

    def period_at(self, moment: float) -> int:
        """Number of the period that a time (seconds since the epoch) lies in."""
        return int(moment // self.period_s)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "features": list(self.features)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Watch:
        return cls(**{**record, "features": tuple(record["features"])})


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """What users said since the champion's training.

    :param through: number of the last batch that is counted in.
    :param labelled: judgements that teach (right, or corrected), of batches that the champion has not learnt from.
    :param rated: judgements since the champion's promotion. :param wrong: of those, how many say wrong.
    """

    through: int
    labelled: int = 0
    rated: int = 0
    wrong: int = 0


@dataclass(frozen=True, kw_only=True)
class PlannedCheck:
    """What one run judges. Everything that could be different at a retry is in here.

    :param number: of the record that it will write.
    :param at: when its first try began, seconds since the epoch.
    :param first: number of its first batch of traffic. :param last: of its last one.
    :param dataset: the champion's.
    :param policy: facts, history and settings as the workload takes them.
    """

    number: int
    at: float
    watch: Watch
    period: int
    first: int
    last: int
    dataset: Artifact
    feedback: Feedback
    policy: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        record = {**asdict(self), "watch": self.watch.to_json(), "dataset": self.dataset.to_json()}
        return {"version": RECORD_VERSION, **record, "policy": dict(self.policy)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PlannedCheck:
        values = {name: value for name, value in record.items() if name != "version"}
        values["watch"] = Watch.from_json(record["watch"])
        values["dataset"] = Artifact.from_json(record["dataset"])
        values["feedback"] = Feedback(**record["feedback"])
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class PeriodRecord:
    """What one check found.

    :param run: the task run that wrote it, as :class:`~genai_operators.compute.owners.Owner` in JSON.
    :param profile: of the period's rows. :param state: the watch's, after this period.
    :param outcome: of the verdict.
    :param strongest: the period's most moved feature with its effect and interval, ``None`` with too few rows.
    :param report: URI of the page.
    """

    number: int
    at: float
    run: Mapping[str, Any]
    watch: Watch
    period: int
    first: int
    last: int
    profile: Artifact
    state: Mapping[str, Any]
    outcome: str
    raised: bool
    alarmed: bool
    strongest: Mapping[str, Any] | None
    feedback: Feedback
    report: str | None = None
    version: int = field(default=RECORD_VERSION)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "watch": self.watch.to_json(), "profile": self.profile.to_json()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PeriodRecord:
        values = dict(record)
        values["watch"] = Watch.from_json(record["watch"])
        values["profile"] = Artifact.from_json(record["profile"])
        values["feedback"] = Feedback(**record["feedback"])
        return cls(**values)


class Periods:
    """The records of one model."""

    def __init__(self, store: Store, model: str) -> None:
        self._store = store
        self._folder = f"drift/{model}/periods"
        self._checks = f"drift/{model}/checks"

    def newest(self, *, before: int | None = None, most: int = LONGEST_WINDOW) -> list[PeriodRecord]:
        """The newest records, oldest first; those with a number below ``before``."""
        names = self._store.list_names(self._folder)
        if before is not None:
            names = [name for name in names if name < _name(before)]
        found = (self._store.find_json(f"{self._folder}/{name}") for name in names[-most:])
        return [PeriodRecord.from_json(record) for record in found if record is not None]

    def next_number(self) -> int:
        """The number that the next record will have."""
        names = self._store.list_names(self._folder)
        return int(names[-1].partition(".")[0]) + 1 if names else 0

    def planned(self, owner: Owner) -> PlannedCheck | None:
        """What this run set out to judge; ``None`` before its first try did."""
        record = self._store.find_json(self._check_path(owner))
        return None if record is None else PlannedCheck.from_json(record)

    def plan(self, check: PlannedCheck, owner: Owner) -> PlannedCheck:
        """Fix what this run judges; what an earlier try fixed stands."""
        self._store.create_json(self._check_path(owner), check.to_json())
        return self.planned(owner) or check

    def commit(self, record: PeriodRecord) -> PeriodRecord:
        """Write the next record, and return the one that stands under its number: it may be another run's."""
        path = f"{self._folder}/{_name(record.number)}"
        self._store.create_json(path, record.to_json())
        return PeriodRecord.from_json(self._store.get_json(path))

    def forget_old(self) -> list[int]:
        """Delete what no later check can ask for: records beyond ``KEPT``, their profiles, and what their runs planned.

        The record goes last, so that a crash leaves it to the next check. Returns the numbers that are gone.
        """
        gone = []
        for name in list(self._store.list_names(self._folder))[:-KEPT]:
            record = PeriodRecord.from_json(self._store.get_json(f"{self._folder}/{name}"))
            for info in self._store.list(self._store.path_of(record.profile.uri)):
                self._store.delete(info.path)
            self._store.delete(self._check_path(Owner.from_json(record.run)))
            self._store.delete(f"{self._folder}/{name}")
            gone.append(record.number)
        return gone

    def _check_path(self, owner: Owner) -> str:
        return f"{self._checks}/{owner.key}.json"


def comparable(records: Sequence[PeriodRecord], watch: Watch, *, period: int) -> list[PeriodRecord]:
    """The records of this watch that a window ending with ``period`` can reach."""
    return [record for record in records if record.watch == watch and 0 < period - record.period < LONGEST_WINDOW]


def state_before(records: Sequence[PeriodRecord], watch: Watch, *, last_alarm_at: float | None) -> dict[str, Any]:
    """The watch's state before a check: what its newest record left, or a new one that knows only the last alarm.

    The cool-down counts whoever is champion: it is the brake of a loop that retrains by itself, and a loop that
    oscillates changes champions.
    """
    from genai_operators.decisions.drift_watch import WatchState

    if records and records[-1].watch == watch:
        return dict(records[-1].state)
    last_alarm = None if last_alarm_at is None else watch.period_at(last_alarm_at)
    return replace(WatchState(), last_alarm=last_alarm).to_json()


def _name(number: int) -> str:
    return f"{number:0{_DIGITS}d}.json"
