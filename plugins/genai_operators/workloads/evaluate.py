"""The ``evaluate`` workload: does the candidate answer as it should, and not worse than the champion?

Both answer the same held-out items; differences are judged in pairs. Every critical check must pass, so "not worse"
needs no correction for being one of several (intersection-union); claims of "better" are adjusted together (Holm). What
trainers report about themselves counts for nothing here.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genai_operators.decisions.paired import (
    PairedResult,
    benjamini_hochberg,
    holm,
    mcnemar_exact,
    non_inferiority,
    superiority,
    wilson,
)
from genai_operators.decisions.verdict import Check, Outcome, Verdict
from genai_operators.exceptions import BadWorkload, DataError
from genai_operators.report import COLOURS, Page, new_figure
from genai_operators.report_figures import Difference, difference_figure
from genai_operators.spec.data import OutputKind
from genai_operators.spec.evaluate import NewDataRule
from genai_operators.workloads.context import Context, WorkloadOutput
from genai_operators.workloads.records import Record, read_records
from genai_operators.workloads.scoring import is_exact_match, is_valid

#: A JSON model whose answers do not parse is no candidate, champion or not: lower bound of the share that parses.
LOWEST_VALIDITY = 0.9
OLD, NEW = "old", "new"
BETTER_THAN_CONSTANT = "better than the most frequent answer"


class EvaluateParams(BaseModel):
    """Parameters of the workload; the ``evaluate`` section of the model file and what else changes the result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    output: OutputKind = OutputKind.TEXT
    margin: float = Field(0.05, gt=0, lt=1)
    confidence: float = Field(0.95, gt=0.5, lt=1)
    rule_on_new: NewDataRule = NewDataRule.NON_INFERIOR
    minimum_items: int = Field(30, gt=0)
    maximum_items: int = Field(500, gt=0)
    max_new_tokens: int = Field(64, gt=0)
    minimum_exact_match: float | None = Field(None, ge=0, le=1)


@dataclass(frozen=True)
class Item:
    """One item, answered by both models where there are two. ``part`` is ``old`` or ``new``."""

    id: str
    part: str
    right: bool
    valid: bool
    champion_right: bool | None
    champion_valid: bool | None
    constant_right: bool


def evaluate(context: Context) -> WorkloadOutput:
    """Publish ``items`` (``items.jsonl``: ids and marks, no text). The verdict's gate is ``evaluation``.

    Inputs: ``dataset`` (of the validation), ``candidate`` and, if there is one, ``champion`` (Hugging Face
    directories).

    :raises BadWorkload: when the parameters are wrong.
    :raises DataError: when there is nothing to evaluate on.
    :raises UnsafeWeights: when a model is a pickle.
    """
    try:
        params = EvaluateParams.model_validate(context.params)
    except ValidationError as error:
        raise BadWorkload(f"evaluate: {error}") from error
    dataset = context.fetch("dataset")
    parts = {OLD: _items_of(dataset / "evaluation.jsonl", limit=params.maximum_items)}
    parts[NEW] = _items_of(dataset / "new_evaluation.jsonl", limit=params.maximum_items)
    if not parts[OLD]:
        raise DataError("the data set has no evaluation rows; name data.evaluation, or raise data.holdout")
    items = _answer(context, parts, params, constant=_most_frequent_answer(dataset / "train.jsonl"))
    checks = _checks(items, params)
    verdict = Verdict.of("evaluation", checks)
    folder = context.output / "items"
    folder.mkdir(parents=True)
    with (folder / "items.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(vars(item)) + "\n" for item in items)
    return WorkloadOutput(
        verdict=verdict,
        outputs={"items": "items"},
        metrics=_metrics(items),
        report=_report(params, verdict=verdict, items=items),
    )


def _items_of(path: Path, *, limit: int) -> list[Record]:
    """At most ``limit`` records, the same ones on every call: those whose ids have the smallest hashes."""
    records = read_records(path) if path.exists() else []
    chosen = sorted(records, key=lambda record: hashlib.sha256(record.id.encode()).digest())[:limit]
    return sorted(chosen, key=lambda record: record.id)


def _most_frequent_answer(path: Path) -> str:
    counts = Counter(record.answer for record in read_records(path)) if path.exists() else Counter[str]()
    return min(counts, key=lambda answer: (-counts[answer], answer), default="")


# --- answering ---------------------------------------------------------------------------------------------------


def _answer(context: Context, parts: dict[str, list[Record]], params: EvaluateParams, *, constant: str) -> list[Item]:
    records = [record for part in parts.values() for record in part]
    candidate = _answers(context, "candidate", records, max_new_tokens=params.max_new_tokens)
    champion: Sequence[str | None] = [None] * len(records)
    if "champion" in context.inputs:
        champion = _answers(context, "champion", records, max_new_tokens=params.max_new_tokens)
    names = [name for name, part in parts.items() for _ in part]

    def item(name: str, record: Record, answer: str, other: str | None) -> Item:
        return Item(
            id=record.id,
            part=name,
            right=is_exact_match(answer, record.answer, output=params.output),
            valid=is_valid(answer, output=params.output),
            champion_right=None if other is None else is_exact_match(other, record.answer, output=params.output),
            champion_valid=None if other is None else is_valid(other, output=params.output),
            constant_right=is_exact_match(constant, record.answer, output=params.output),
        )

    return [item(*fields) for fields in zip(names, records, candidate, champion, strict=True)]


def _answers(context: Context, name: str, records: Sequence[Record], *, max_new_tokens: int) -> list[str]:
    from genai_operators.workloads.base_model import pretrained_model, refuse_pickles

    directory = context.fetch(name)
    refuse_pickles(directory)
    from genai_operators.workloads.batching import asked_micro_batch
    from genai_operators.workloads.generation import BATCH_SIZE, generate_answers

    batch_size = min(BATCH_SIZE, asked_micro_batch() or BATCH_SIZE)
    # Should memory run out, a smaller batch is chosen by what stands here.
    context.progress(phase=name, step=0, total=len(records), batch=batch_size)
    model, tokenizer = pretrained_model(directory)

    def on_batch(done: int) -> None:
        context.stop_if_requested()
        context.progress(phase=name, step=done, total=len(records))

    prompts = [record.prompt for record in records]
    return generate_answers(
        model, tokenizer, prompts, max_new_tokens=max_new_tokens, on_batch=on_batch, batch_size=batch_size
    )


# --- judging -----------------------------------------------------------------------------------------------------


def _checks(items: Sequence[Item], params: EvaluateParams) -> list[Check]:
    checks, compared = [], _compared(items, params)
    for part in (OLD, NEW):
        chosen = [item for item in items if item.part == part]
        if not chosen:
            continue
        checks.append(_exact_match(part, chosen, params))
        if params.output is OutputKind.JSON:
            checks.append(_validity(part, chosen, params))
        if (name := _against(part)) in compared:
            checks.append(compared[name].check(name))
    check = compared[BETTER_THAN_CONSTANT].check(BETTER_THAN_CONSTANT, severity="warning")
    checks.append(check if check.outcome is Outcome.PASS else replace(check, outcome=Outcome.WARN))
    return checks


def _against(part: str) -> str:
    return f"exact match against the champion, {part} rows"


def _compared(items: Sequence[Item], params: EvaluateParams) -> dict[str, PairedResult]:
    """Every comparison in pairs, by the name of its check."""
    found = {}
    for part in (OLD, NEW):
        chosen = [item for item in items if item.part == part]
        if chosen and chosen[0].champion_right is not None:
            found[_against(part)] = _against_champion(part, chosen, params)
    old = [item for item in items if item.part == OLD]
    found[BETTER_THAN_CONSTANT] = superiority(
        [item.right for item in old],
        [item.constant_right for item in old],
        confidence=params.confidence,
        minimum_items=params.minimum_items,
    )
    return _jointly(found)


def _jointly(compared: dict[str, PairedResult]) -> dict[str, PairedResult]:
    """Claims of superiority that hold together: the risk that any of them is false is the risk of one (Holm)."""
    claims = [name for name, result in compared.items() if result.hypothesis == "superiority"]
    held = dict(compared)
    for name, adjusted in zip(claims, holm([compared[name].p_value for name in claims]), strict=True):
        result = compared[name]
        lost = result.outcome is Outcome.PASS and adjusted > 1 - result.confidence
        method = result.method if len(claims) == 1 else f"{result.method}, adjusted for {len(claims)} claims"
        held[name] = replace(
            result,
            p_value=float(adjusted),
            outcome=Outcome.INCONCLUSIVE if lost else result.outcome,
            method=method,
        )
    return held


def _against_champion(part: str, items: Sequence[Item], params: EvaluateParams) -> PairedResult:
    right, champion = [item.right for item in items], [bool(item.champion_right) for item in items]
    if part == NEW and params.rule_on_new is NewDataRule.SUPERIOR:
        return superiority(right, champion, confidence=params.confidence, minimum_items=params.minimum_items)
    return non_inferiority(
        right, champion, margin=params.margin, confidence=params.confidence, minimum_items=params.minimum_items
    )


def _exact_match(part: str, items: Sequence[Item], params: EvaluateParams) -> Check:
    """Informs, unless the model file sets a floor, which the old rows must then clear."""
    floor = params.minimum_exact_match if part == OLD else None
    return _rate(
        f"exact match, {part} rows", [item.right for item in items], floor=floor, params=params, unit="share right"
    )


def _validity(part: str, items: Sequence[Item], params: EvaluateParams) -> Check:
    return _rate(
        f"valid JSON, {part} rows",
        [item.valid for item in items],
        floor=LOWEST_VALIDITY,
        params=params,
        unit="share of answers that parse to an object",
    )


def _rate(name: str, marks: Sequence[bool], *, floor: float | None, params: EvaluateParams, unit: str) -> Check:
    """A rate with its Wilson interval; each end is a one-sided bound at the wished confidence."""
    successes, n = sum(marks), len(marks)
    lower, upper = wilson(successes, n=n, confidence=2 * params.confidence - 1)
    outcome, message = Outcome.PASS, unit
    if floor is not None and n < params.minimum_items:
        outcome, message = Outcome.INCONCLUSIVE, f"{unit}; {n} items, {params.minimum_items} needed"
    elif floor is not None and lower < floor:
        outcome = Outcome.FAIL if upper < floor else Outcome.INCONCLUSIVE
        message = f"{unit}; its lower bound must reach the threshold"
    return Check(
        name=name,
        outcome=outcome,
        observed=successes / n,
        interval=(lower, upper),
        threshold=floor,
        n=n,
        severity="info" if floor is None else "critical",
        message=message,
    )


# --- telling -----------------------------------------------------------------------------------------------------


def _metrics(items: Sequence[Item]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for part in (OLD, NEW):
        chosen = [item for item in items if item.part == part]
        if chosen:
            metrics[f"items_{part}"] = float(len(chosen))
            metrics[f"exact_match_{part}"] = sum(item.right for item in chosen) / len(chosen)
            metrics[f"valid_{part}"] = sum(item.valid for item in chosen) / len(chosen)
            if chosen[0].champion_right is not None:
                metrics[f"champion_exact_match_{part}"] = sum(bool(i.champion_right) for i in chosen) / len(chosen)
                metrics[f"champion_valid_{part}"] = sum(bool(i.champion_valid) for i in chosen) / len(chosen)
    return metrics


def _report(params: EvaluateParams, *, verdict: Verdict, items: Sequence[Item]) -> Page:
    page = Page(f"Evaluation of {params.model}", "Greedy answers to held-out items; no text of an item is in this page")
    page.verdict(verdict)
    bars: list[tuple[str, list[bool], str]] = []
    for part in (OLD, NEW):
        chosen = [item for item in items if item.part == part]
        if chosen and chosen[0].champion_right is not None:
            bars.append((f"champion, {part} rows", [bool(item.champion_right) for item in chosen], COLOURS[1]))
        if chosen:
            bars.append((f"candidate, {part} rows", [item.right for item in chosen], COLOURS[0]))
    figure = new_figure(height=0.6 + 0.45 * len(bars))
    axes = figure.axes[0]
    for row, (_, marks, colour) in enumerate(reversed(bars)):
        rate = sum(marks) / len(marks)
        lower, upper = wilson(sum(marks), n=len(marks), confidence=2 * params.confidence - 1)
        axes.barh(row, rate, color=colour, height=0.55, alpha=0.85)
        axes.plot((lower, upper), (row, row), color="#24292f", linewidth=1.4)
    axes.set_yticks(range(len(bars)), [name for name, _, _ in reversed(bars)])
    axes.set(xlim=(0, 1), xlabel="exact match")
    page.figure(figure, "Share of items answered exactly right, with Wilson intervals.")
    if differences := _differences(items, params):
        page.figure(
            difference_figure(differences, xlabel="candidate minus champion, share of items"),
            "Differences on the same items with their intervals. Green: proved; a dashed line: what the whole interval "
            "must stay right of. Grey: shown only.",
        )
    if rows := _changes(items):
        page.heading("Pairs").table(
            ("rows", "metric", "items", "only the candidate", "only the champion", "q, no difference"), rows
        )
    return page


def _differences(items: Sequence[Item], params: EvaluateParams) -> list[Difference]:
    """Each part's exact match as the gate judges it, and the validity of answers beside it."""
    found, compared = [], _compared(items, params)
    for part in (OLD, NEW):
        chosen = [item for item in items if item.part == part and item.champion_right is not None]
        if not chosen:
            continue
        judged = compared[_against(part)]
        valid = non_inferiority(
            [item.valid for item in chosen],
            [bool(item.champion_valid) for item in chosen],
            margin=params.margin,
            confidence=params.confidence,
        )
        found.append(
            Difference(
                name=f"exact match, {part} rows",
                value=judged.difference,
                interval=judged.interval,
                threshold=judged.threshold,
                outcome=judged.outcome,
            )
        )
        found.append(Difference(name=f"valid answers, {part} rows", value=valid.difference, interval=valid.interval))
    return found


def _changes(items: Sequence[Item]) -> list[tuple[object, ...]]:
    """What changed on the same items, for every slice and metric; ``q`` keeps the share of false names in the table."""
    found: list[tuple[str, str, int, int, int]] = []
    for part in (OLD, NEW):
        chosen = [item for item in items if item.part == part and item.champion_right is not None]
        exact = [(item.right, bool(item.champion_right)) for item in chosen]
        valid = [(item.valid, bool(item.champion_valid)) for item in chosen]
        for metric, marks in (("exact match", exact), ("valid answers", valid)):
            gained = sum(candidate and not champion for candidate, champion in marks)
            lost = sum(champion and not candidate for candidate, champion in marks)
            if marks:
                found.append((part, metric, len(marks), gained, lost))
    q_values = benjamini_hochberg([mcnemar_exact(gained=gained, lost=lost) for *_, gained, lost in found])
    return [(*row, f"{q:.2g}") for row, q in zip(found, q_values, strict=True)]
