"""The ``drift`` workload: is the traffic of the newest periods still like what the champion learnt?

It reads the rows of one period and publishes their profile. Earlier periods come as the profiles that earlier checks
published, so nothing is read twice, and what is judged follows from the inputs alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genai_operators.decisions.alpha_spending import SpendingPlan
from genai_operators.decisions.drift import DriftSettings
from genai_operators.decisions.drift_clusters import COLUMN, cluster_sides, shifted_clusters
from genai_operators.decisions.drift_watch import (
    Segments,
    WatchReport,
    WatchSettings,
    WatchState,
    watch,
)
from genai_operators.decisions.embedding_drift_clusters import ClusterShift
from genai_operators.decisions.embedding_sample import EmbeddingSample, merge_samples
from genai_operators.decisions.policy import decide
from genai_operators.decisions.policy_facts import (
    attempt_from_json,
    facts_from_json,
    settings_from_json,
    to_json,
)
from genai_operators.decisions.policy_standing import standings
from genai_operators.decisions.profile import Profile
from genai_operators.exceptions import BadWorkload, DataError
from genai_operators.workloads.context import Context, WorkloadOutput
from genai_operators.workloads.drift_report import AskedPolicy, PastPeriod, drift_page, strongest
from genai_operators.workloads.embeddings import load_sample, sample_prompts, save_sample
from genai_operators.workloads.reference import Reference, profile_prompts
from genai_operators.workloads.traffic import TrafficWindow, read_requests

WINDOWS = (1, 2, 4, 8, 16, 32, 64)
YEAR_S = 365 * 86_400.0
#: Inputs with these names, and a period's number, are what earlier checks published as ``profile``.
PERIOD_INPUT = "period_"
PROFILE_FILE, WATCH_FILE = "profile.json", "watch.json"
FOUND_VERSION = 1


class WatchParams(BaseModel):
    """Where this check stands in the schedule of checks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    period: int = Field(default=0, ge=0, description="Number of the period to judge, counted from any fixed time.")
    period_s: float = Field(default=3600.0, gt=0, description="Its length in seconds.")
    cool_down: int = Field(default=0, ge=0, description="Periods after an alarm in which no other is raised.")
    state: dict[str, Any] | None = Field(default=None, description="What the check before left; none for the first.")
    history: tuple[PastPeriod, ...] = Field(default=(), description="Earlier periods, for the report's timeline.")


class PolicyParams(BaseModel):
    """What the policy is asked with; the drift of its facts is filled in here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    facts: dict[str, Any]
    history: tuple[dict[str, Any], ...] = ()
    settings: dict[str, Any]


class DriftParams(BaseModel):
    """Parameters of the workload; the ``drift`` section of the model file, and what is to be judged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    window: TrafficWindow
    minimum_rows: int = Field(default=200, gt=1)
    minimum_effect: float = Field(default=0.1, ge=0, lt=1)
    false_discovery_rate: float = Field(default=0.01, gt=0, lt=1)
    features: tuple[str, ...] = Field(default=(), description="Features to compare; none means all.")
    embeddings: bool = True
    watch: WatchParams = WatchParams()
    policy: PolicyParams | None = None

    def watch_settings(self) -> WatchSettings:
        """Windows no longer than a year, and each look's share of the year's risk."""
        periods = max(1, math.ceil(YEAR_S / self.watch.period_s))
        return WatchSettings(
            drift=DriftSettings(minimum_rows=self.minimum_rows, minimum_effect=self.minimum_effect),
            plan=SpendingPlan(
                yearly_level=self.false_discovery_rate,
                windows=tuple(window for window in WINDOWS if window <= periods),
                periods_per_year=periods,
            ),
            cool_down=self.watch.cool_down,
        )


def drift(context: Context) -> WorkloadOutput:
    """Publish ``profile`` (of the period, mergeable) and ``watch`` (what was found, the watch's next state, and what
    the policy says). The verdict's gate is ``drift``: FAIL means drift was found.

    Inputs: ``dataset``, the champion's, whose ``profile.json`` is the reference; ``period_<number>``, the ``profile``
    of each earlier period within the longest window.

    :raises BadWorkload: when the parameters are wrong.
    :raises DataError: when the reference is missing, or a feature is unknown.
    """
    params = _params(context)
    learnt, period = context.fetch("dataset"), params.watch.period
    reference = Reference.load(learnt / PROFILE_FILE)
    current, published = _profile_traffic(context, params, vocabulary=reference.vocabulary)
    folders = {**_earlier_periods(context), period: published}
    clusters = _Clusters(load_sample(learnt) if params.embeddings else None, folders, seed=period)
    if params.embeddings and not clusters.possible:
        context.log("the champion's data set holds no embeddings, so only columns are compared; the next one will")
    before = Profile(
        columns={name: column for name, column in reference.profile.columns.items() if name in current.columns},
        rows=reference.profile.rows,
    )
    state, report = watch(
        WatchState.from_json(params.watch.state) if params.watch.state else WatchState(),
        {number: _load_profile(folder) for number, folder in folders.items()},
        before,
        period=period,
        settings=params.watch_settings(),
        more=clusters.sides,
    )
    moved = clusters.moved(report)
    decision, asked = _decide(params.policy, drift=report.alarmed)
    context.log("no policy was asked" if asked is None else asked.reason)
    found = {
        "version": FOUND_VERSION,
        "period": period,
        "state": state.to_json(),
        "raised": report.raised,
        "alarmed": report.alarmed,
        "strongest": strongest(report),
        "clusters": [shift.cluster for shift in moved],
        "policy": decision,
    }
    _write(context, "watch", WATCH_FILE, found)
    page = drift_page(
        f"Drift of {params.model}",
        f"{current.rows} requests in batches {params.window.first} to {params.window.last}",
        report=report,
        period=period,
        period_s=params.watch.period_s,
        minimum_effect=params.minimum_effect,
        history=params.watch.history,
        sides=(before, current),
        moved=moved,
        asked=asked,
    )
    return WorkloadOutput(
        verdict=report.verdict,
        outputs={"profile": "profile", "watch": "watch"},
        metrics=_metrics(report, requests=current.rows),
        report=page,
    )


def _params(context: Context) -> DriftParams:
    try:
        return DriftParams.model_validate(context.params)
    except ValidationError as error:
        raise BadWorkload(f"drift: {error}") from error


def _profile_traffic(context: Context, params: DriftParams, *, vocabulary: Sequence[str]) -> tuple[Profile, Path]:
    """The period's profile, and the folder that publishes it with the sample of embeddings."""
    requests = read_requests(context.store, params.model, params.window)
    context.log(f"{len(requests)} answered requests in batches {params.window.first} to {params.window.last}")
    context.stop_if_requested()
    current = profile_prompts(requests, vocabulary=vocabulary, features=params.features)
    folder = _write(context, "profile", PROFILE_FILE, current.to_json())
    if params.embeddings:
        save_sample(sample_prompts(requests), folder)
    return current, folder


def _metrics(report: WatchReport, *, requests: int) -> dict[str, float]:
    drifted = len(report.looks[0].result.drifted) if report.looks else 0
    return {
        "requests": float(requests),
        "features_drifted": float(drifted),
        "windows": float(len(report.looks)),
    }


class _Clusters:
    """The clusters of prompts of any window, and which of them moved."""

    def __init__(self, reference: EmbeddingSample | None, folders: Mapping[int, Path], *, seed: int) -> None:
        self._reference = reference if reference is not None and len(reference) else None
        self._samples = {number: load_sample(folder) for number, folder in folders.items()}
        self._seed = seed
        self._known: dict[tuple[int, ...], Segments] = {}

    @property
    def possible(self) -> bool:
        return self._reference is not None

    def sides(self, periods: Sequence[int]) -> Segments:
        """For :func:`~genai_operators.decisions.drift_watch.watch`; a window's pool is clustered once."""
        key = tuple(periods)
        if key not in self._known:
            current = self._merged(periods)
            if self._reference is None or current is None:
                return {}, {}
            found = cluster_sides(self._reference, current, seed=self._seed)
            self._known[key] = found.reference, found.current
        return self._known[key]

    def moved(self, report: WatchReport) -> tuple[ClusterShift, ...]:
        """Of the shortest window in which the clusters drifted."""
        for look in report.looks:
            if any(feature.drifted and feature.name == COLUMN for feature in look.result.features):
                last = max(self._samples)
                current = self._merged([n for n in self._samples if n > last - look.window])
                assert self._reference is not None
                assert current is not None
                return shifted_clusters(self._reference, current, seed=self._seed, level=look.level)
        return ()

    def _merged(self, periods: Sequence[int]) -> EmbeddingSample | None:
        samples = [sample for number in sorted(periods) if (sample := self._samples[number]) is not None]
        merged = merge_samples(samples) if samples else None
        return merged if merged is not None and len(merged) else None


def _earlier_periods(context: Context) -> dict[int, Path]:
    names = [name for name in context.inputs if name.startswith(PERIOD_INPUT)]
    return {int(name.removeprefix(PERIOD_INPUT)): context.fetch(name) for name in names}


def _load_profile(folder: Path) -> Profile:
    try:
        return Profile.from_json(json.loads((folder / PROFILE_FILE).read_bytes()))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"the profile of an earlier period cannot be read: {error!r}") from error


def _decide(policy: PolicyParams | None, *, drift: bool) -> tuple[dict[str, Any] | None, AskedPolicy | None]:
    """The policy's decision with everything that it was taken from, as it is stored and as it is shown."""
    if policy is None:
        return None, None
    facts = replace(facts_from_json(policy.facts), drift=drift)
    history = [attempt_from_json(attempt) for attempt in policy.history]
    settings = settings_from_json(policy.settings)
    decided = decide(facts, history, settings)
    record = {
        "facts": to_json(facts),
        "history": [to_json(attempt) for attempt in history],
        "settings": to_json(settings),
        "decision": decided.to_json(),
    }
    shown = AskedPolicy(reason=decided.reason, standings=standings(facts, history, settings), attempts=history)
    return record, shown


def _write(context: Context, folder: str, name: str, record: Mapping[str, Any]) -> Path:
    path = context.output / folder
    path.mkdir(parents=True)
    (path / name).write_text(json.dumps(record, sort_keys=True), encoding="utf-8")
    return path
