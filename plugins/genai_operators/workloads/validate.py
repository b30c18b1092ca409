"""The ``validate`` workload: raw files and users' feedback in, a judged and split data set out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genai_operators.decisions.verdict import Verdict
from genai_operators.exceptions import BadWorkload
from genai_operators.report import Page, new_figure
from genai_operators.report_figures import share_figure
from genai_operators.spec.data import DataFormat, OutputKind
from genai_operators.workloads.context import Context, WorkloadOutput
from genai_operators.workloads.dataset import (
    Dataset,
    assemble,
    distinct,
    enough_rows,
    save_reference,
    usable_feedback,
    usable_train,
)
from genai_operators.workloads.mapping import RowMapping, map_rows
from genai_operators.workloads.records import Message, Record, read_records
from genai_operators.workloads.sources import read_rows
from genai_operators.workloads.splitting import split
from genai_operators.workloads.traffic import TrafficWindow, read_feedback

#: Inputs with these names are files of rows, in this order; anything else has its own name.
TRAIN_INPUT = "train_"
EVALUATION_INPUT = "evaluation"
PREVIOUS_INPUT = "previous"
#: Feedback rows read for each that is wanted at most, as some will be unfit.
READ_AHEAD = 2


class DataParams(BaseModel):
    """The ``data`` section of the model file, as far as it changes the result."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: DataFormat = DataFormat.AUTO
    prompt: str = "{text}"
    answer: str = "{category}"
    system: str | None = None
    output: OutputKind = OutputKind.TEXT
    holdout: float = Field(0.1, gt=0, lt=1)
    minimum_new_rows: int = Field(100, ge=0)
    maximum_new_rows: int = Field(5000, gt=0)


class ValidateParams(BaseModel):
    """Parameters of the workload."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    data: DataParams
    suite: dict[str, Any] = Field(description="Content of the suite file.")
    feedback: TrafficWindow | None = Field(None, description="Batches of traffic whose feedback teaches.")


def validate(context: Context) -> WorkloadOutput:
    """Publish ``dataset``: train, evaluation, new_train, new_evaluation (JSONL), profile.json, stats.json.

    Inputs: ``train_0``, ``train_1``, ... and ``evaluation`` (raw files), ``previous`` (the champion's data set: what
    earlier users taught is kept). The verdict's gate is ``validation``.

    :raises BadWorkload: when the parameters are wrong.
    :raises DataError: when the data cannot be read as the model file says.
    """
    try:
        params = ValidateParams.model_validate(context.params)
    except ValidationError as error:
        raise BadWorkload(f"validate: {error}") from error
    from genai_operators.workloads.row_features import row_features
    from genai_operators.workloads.suite import Suite, judge

    suite = Suite.parse(params.suite, where=str(params.suite.get("name", "")))
    context.progress(phase="read", step=1, total=4)
    train, evaluation = _read(context, params)
    feedback = _feedback(context, params)
    context.log(f"{len(train)} rows to learn from, {len(evaluation)} to evaluate on, {len(feedback)} judged by users")
    context.stop_if_requested()

    context.progress(phase="features", step=2, total=4)
    records = [*evaluation, *train]
    table = row_features([*records, *feedback], output=params.data.output)
    first, taught = table.head(len(records)), table.tail(len(feedback))
    context.stop_if_requested()

    context.progress(phase="judge", step=3, total=4)
    checks = judge(first, suite)
    dataset = assemble(
        train=usable_train(train, first.tail(len(train)).to_dicts()),
        evaluation=distinct(evaluation),
        taught=usable_feedback(feedback, taught.to_dicts()),
        read=Counter({"train_rows_read": len(train), "feedback_rows_read": len(feedback)}),
        minimum_new_rows=params.data.minimum_new_rows,
        maximum_new_rows=params.data.maximum_new_rows,
    )
    checks.append(enough_rows(dataset))
    verdict = Verdict.of("validation", checks)

    context.progress(phase="write", step=4, total=4)
    folder = context.output / "dataset"
    dataset.save(folder)
    save_reference(dataset, folder)
    stats = {
        "version": 1,
        "model": params.model,
        "output": str(params.data.output),
        "counts": dataset.counts,
        "feedback": params.feedback.model_dump() if params.feedback else None,
    }
    (folder / "stats.json").write_text(json.dumps(stats, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return WorkloadOutput(
        verdict=verdict,
        outputs={"dataset": "dataset"},
        metrics={name: float(count) for name, count in dataset.counts.items()},
        report=_report(params, verdict=verdict, dataset=dataset, table=table),
    )


# --- reading -----------------------------------------------------------------------------------------------------


def _read(context: Context, params: ValidateParams) -> tuple[list[Record], list[Record]]:
    data = params.data
    mapping = RowMapping.of(prompt=data.prompt, answer=data.answer, system=data.system, output=data.output)

    def records(name: str, source: str) -> list[Record]:
        uri = context.inputs[name].uri
        rows = read_rows(context.fetch(name), name=uri.removeprefix("file://"), declared=data.format)
        return map_rows(rows, mapping, source=source)

    names = sorted((n for n in context.inputs if n.startswith(TRAIN_INPUT)), key=lambda n: int(n[len(TRAIN_INPUT) :]))
    if not names:
        raise BadWorkload("validate: there is no input train_0; name at least one file in data.train")
    train = [record for name in names for record in records(name, "train")]
    if EVALUATION_INPUT in context.inputs:
        evaluation = records(EVALUATION_INPUT, "evaluation")
    else:
        train, held_out = split(train, share=data.holdout, salt="evaluation")
        evaluation = [Record(record.id, record.messages, "evaluation") for record in held_out]
    if PREVIOUS_INPUT in context.inputs:
        previous = context.fetch(PREVIOUS_INPUT)
        train += _taught_before(previous / "train.jsonl") + _taught_before(previous / "new_train.jsonl")
        evaluation += _taught_before(previous / "evaluation.jsonl") + _taught_before(previous / "new_evaluation.jsonl")
    return train, evaluation


def _taught_before(path: Path) -> list[Record]:
    """Rows that users taught the champion; its other rows are in the raw files."""
    return [record for record in read_records(path) if record.source == "feedback"] if path.exists() else []


def _feedback(context: Context, params: ValidateParams) -> list[Record]:
    if params.feedback is None:
        return []
    limit = READ_AHEAD * params.data.maximum_new_rows
    judged = read_feedback(context.store, params.model, params.feedback, limit=limit)
    system = params.data.system
    records = [item.record for item in judged]
    if system is None:
        return records
    return [
        record
        if record.messages[0].role == "system"
        else Record(record.id, (Message("system", system), *record.messages), record.source)
        for record in records
    ]


# --- telling -----------------------------------------------------------------------------------------------------


def _report(params: ValidateParams, *, verdict: Verdict, dataset: Dataset, table: Any) -> Page:
    from genai_operators.workloads.suite import SHARE_OF_ROWS

    page = Page(
        f"Data of {params.model}", "Row features judged by great-expectations; no text of a row is in this page"
    )
    page.verdict(verdict)
    if shares := [check for check in verdict.checks if check.message.startswith(SHARE_OF_ROWS)]:
        page.figure(
            share_figure(shares, xlabel="share of rows that are not as expected"),
            "What each rule found, and the share that it allows (dashed).",
        )
    page.heading("Rows").table(("what", "rows"), sorted(dataset.counts.items()))
    figure = new_figure(columns=2)
    for axes, column in zip(figure.axes, ("prompt_characters", "answer_characters"), strict=True):
        for source in ("train", "feedback"):
            values = table.filter(table["source"] == source)[column].to_list()
            if values:
                axes.hist(values, bins=30, histtype="step", linewidth=1.4, label=source, density=True)
        axes.set(xlabel=column.replace("_", " "), ylabel="density")
        axes.legend(fontsize=8, frameon=False)
    page.figure(figure, "Lengths of prompts and answers, rows of the files beside rows that users taught.")
    return page
