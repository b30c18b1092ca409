"""The ``drift`` workload: is the traffic of a window still like what the champion learnt?"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genai_operators.decisions.drift import DriftResult, DriftSettings, compare
from genai_operators.decisions.profile import CategoricalProfile, ColumnProfile, ContinuousProfile, Profile
from genai_operators.exceptions import BadWorkload
from genai_operators.report import Page, new_figure
from genai_operators.workloads.context import Context, WorkloadOutput
from genai_operators.workloads.reference import Reference, profile_prompts
from genai_operators.workloads.traffic import TrafficWindow, read_requests

SHOWN_FEATURES = 6
SHOWN_CATEGORIES = 12
_QUANTILES = tuple(share / 100 for share in range(0, 101, 2))


class DriftParams(BaseModel):
    """Parameters of the workload; the ``drift`` section of the model file and the window."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    window: TrafficWindow
    minimum_rows: int = Field(200, gt=1)
    minimum_effect: float = Field(0.1, ge=0, lt=1)
    false_discovery_rate: float = Field(0.01, gt=0, lt=1)
    features: tuple[str, ...] = Field((), description="Features to compare; none means all.")


def drift(context: Context) -> WorkloadOutput:
    """Publish ``profile`` (of the window, mergeable). The verdict's gate is ``drift``: FAIL means drift was found.

    Input: ``dataset``, the champion's, whose ``profile.json`` is the reference.

    :raises BadWorkload: when the parameters are wrong.
    :raises DataError: when the reference is missing, or a feature is unknown.
    """
    try:
        params = DriftParams.model_validate(context.params)
    except ValidationError as error:
        raise BadWorkload(f"drift: {error}") from error
    reference = Reference.load(context.fetch("dataset") / "profile.json")
    requests = read_requests(context.store, params.model, params.window)
    context.log(f"{len(requests)} answered requests in batches {params.window.first} to {params.window.last}")
    context.stop_if_requested()
    current = profile_prompts(requests, vocabulary=reference.vocabulary, features=params.features)
    chosen = {name: column for name, column in reference.profile.columns.items() if name in current.columns}
    before = Profile(columns=chosen, rows=reference.profile.rows)
    result = compare(
        before,
        current,
        DriftSettings(
            minimum_rows=params.minimum_rows,
            minimum_effect=params.minimum_effect,
            false_discovery_rate=params.false_discovery_rate,
        ),
    )
    folder = context.output / "profile"
    folder.mkdir(parents=True)
    (folder / "profile.json").write_text(json.dumps(current.to_json(), sort_keys=True), encoding="utf-8")
    metrics = {"requests": float(len(requests)), "features_drifted": float(len(result.drifted))}
    return WorkloadOutput(
        verdict=result.verdict,
        outputs={"profile": "profile"},
        metrics=metrics,
        report=_report(params, result=result, before=before, current=current),
    )


def _report(params: DriftParams, *, result: DriftResult, before: Profile, current: Profile) -> Page:
    window = params.window
    page = Page(f"Drift of {params.model}", f"{current.rows} requests in batches {window.first} to {window.last}")
    page.verdict(result.verdict)
    shown = [feature.name for feature in result.features if feature.name in current.columns][:SHOWN_FEATURES]
    if not shown or not current.rows:
        return page
    page.heading("Side by side")
    for name in shown:
        figure = new_figure()
        _draw(figure.axes[0], before.columns[name], current.columns[name])
        figure.axes[0].legend(fontsize=8, frameon=False)
        page.figure(figure, f"{name}: what the champion learnt, and what users ask now.")
    return page


def _draw(axes: object, before: ColumnProfile, current: ColumnProfile) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    if isinstance(before, ContinuousProfile) and isinstance(current, ContinuousProfile):
        for side, label in ((before, "learnt"), (current, "traffic")):
            axes.plot(side.quantiles(_QUANTILES), _QUANTILES, label=label, linewidth=1.4, drawstyle="steps-post")
        axes.set(xlabel=before.name, ylabel="share of rows at most", ylim=(0, 1.02))
        return
    assert isinstance(before, CategoricalProfile)
    assert isinstance(current, CategoricalProfile)
    names = _largest_categories(before, current)
    for offset, (profile, label) in enumerate(((before, "learnt"), (current, "traffic"))):
        shares = [profile.counts.get(name, 0) / max(1, profile.present) for name in names]
        axes.bar([position + 0.4 * offset for position in range(len(names))], shares, width=0.38, label=label)
    axes.set_xticks([position + 0.2 for position in range(len(names))], names)
    axes.set(xlabel=before.name, ylabel="share of rows")


def _largest_categories(before: CategoricalProfile, current: CategoricalProfile) -> Sequence[str]:
    together = {
        name: before.counts.get(name, 0) + current.counts.get(name, 0) for name in {*before.counts, *current.counts}
    }
    return sorted(together, key=lambda name: (-together[name], name))[:SHOWN_CATEGORIES]
