"""The ``validate`` workload: raw files and users' feedback in, a judged and split data set out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping as Figures
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genai_operators.decisions.verdict import Check, Outcome, Verdict
from genai_operators.exceptions import BadWorkload, DataError
from genai_operators.report import Page, new_figure
from genai_operators.spec.data import DataFormat, OutputKind
from genai_operators.workloads.context import Context, WorkloadOutput
from genai_operators.workloads.mapping import Mapping, map_rows
from genai_operators.workloads.records import Message, Record, read_records, write_records
from genai_operators.workloads.sources import read_rows
from genai_operators.workloads.splitting import NEW_EVALUATION_SHARE, split, split_exactly
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


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The four lists of a data set, and what became of every row."""

    train: list[Record]
    evaluation: list[Record]
    new_train: list[Record] = field(default_factory=list)
    new_evaluation: list[Record] = field(default_factory=list)
    counts: dict[str, int]

    @property
    def reference(self) -> list[Record]:
        """What traffic will be compared with: the newest rows that the model learns."""
        return [*self.new_train, *self.new_evaluation] or self.train

    def save(self, folder: Path) -> None:
        """Write the files; those of new rows only when there are any."""
        folder.mkdir(parents=True, exist_ok=True)
        write_records(folder / "train.jsonl", self.train)
        write_records(folder / "evaluation.jsonl", self.evaluation)
        if self.new_train:
            write_records(folder / "new_train.jsonl", self.new_train)
            write_records(folder / "new_evaluation.jsonl", self.new_evaluation)


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
    if not evaluation:
        train, evaluation = split(train, share=params.data.holdout, salt="evaluation")
        evaluation = [Record(record.id, record.messages, "evaluation") for record in evaluation]
    records = [*evaluation, *train]
    table = row_features([*records, *feedback], output=params.data.output)
    first, taught = table.head(len(records)), table.tail(len(feedback))
    context.stop_if_requested()

    context.progress(phase="judge", step=3, total=4)
    checks = judge(first, suite)
    dataset = _assemble(
        train=_usable_train(train, first.tail(len(train)).to_dicts()),
        evaluation=_distinct(evaluation),
        taught=_usable_feedback(feedback, taught.to_dicts()),
        read=Counter({"train_rows_read": len(train), "feedback_rows_read": len(feedback)}),
        params=params,
    )
    checks.append(_enough_rows(dataset))
    verdict = Verdict.of("validation", checks)

    context.progress(phase="write", step=4, total=4)
    folder = context.output / "dataset"
    dataset.save(folder)
    _save_reference(dataset, folder)
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
    mapping = Mapping.of(prompt=data.prompt, answer=data.answer, system=data.system, output=data.output)

    def records(name: str, source: str) -> list[Record]:
        uri = context.inputs[name].uri
        rows = read_rows(context.fetch(name), name=uri.removeprefix("file://"), declared=data.format)
        return map_rows(rows, mapping, source=source)

    names = sorted((n for n in context.inputs if n.startswith(TRAIN_INPUT)), key=lambda n: int(n[len(TRAIN_INPUT) :]))
    if not names:
        raise BadWorkload("validate: there is no input train_0; name at least one file in data.train")
    train = [record for name in names for record in records(name, "train")]
    evaluation = records(EVALUATION_INPUT, "evaluation") if EVALUATION_INPUT in context.inputs else []
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


# --- choosing ----------------------------------------------------------------------------------------------------


def _usable_train(records: Sequence[Record], features: Sequence[Figures[str, Any]]) -> list[Record]:
    """Without copies, blank rows and rows of the evaluation. What else is wrong with them, the suite has judged."""
    return [
        record
        for record, row in zip(records, features, strict=True)
        if row["valid_messages"] and not (row["duplicate"] or row["empty"] or row["in_evaluation"])
    ]


def _usable_feedback(records: Sequence[Record], features: Sequence[Figures[str, Any]]) -> list[Record]:
    """What users say is nobody's to mend: a row that is unfit in any way is left out, and counted.

    Of rows that ask the same, the newest answer counts.
    """
    usable = {
        record.prompt_digest: record
        for record, row in zip(records, features, strict=True)
        if row["valid_messages"]
        and row["valid_answer"]
        and not (row["duplicate"] or row["empty"] or row["in_evaluation"] or row["personal_data"] or row["secrets"])
    }
    return list(usable.values())


def _distinct(records: Sequence[Record]) -> list[Record]:
    """Evaluation rows count once each, and ids are unique, as pairs are matched by them."""
    seen: set[str] = set()
    ids: Counter[str] = Counter()
    found = []
    for record in records:
        if record.digest not in seen:
            seen.add(record.digest)
            ids[record.id] += 1
            identity = record.id if ids[record.id] == 1 else f"{record.id}-{ids[record.id]}"
            found.append(Record(identity, record.messages, record.source))
    return found


def _assemble(
    *,
    train: list[Record],
    evaluation: list[Record],
    taught: list[Record],
    read: Counter[str],
    params: ValidateParams,
) -> Dataset:
    new = taught[-params.data.maximum_new_rows :]
    usable = len(new)
    if usable < params.data.minimum_new_rows:
        new = []
    new_train, new_evaluation = split_exactly(new, share=NEW_EVALUATION_SHARE, salt="new evaluation")
    counts = {
        **read,
        "train_rows": len(train),
        "train_rows_left_out": read["train_rows_read"] - len(train),
        "evaluation_rows": len(evaluation),
        "feedback_rows_usable": usable,
        "taught_rows": sum(record.source == "feedback" for record in train) + len(new),
        "new_train_rows": len(new_train),
        "new_evaluation_rows": len(new_evaluation),
    }
    return Dataset(
        train=train, evaluation=evaluation, new_train=new_train, new_evaluation=_distinct(new_evaluation), counts=counts
    )


def _enough_rows(dataset: Dataset) -> Check:
    smallest = min(len(dataset.train), len(dataset.evaluation))
    return Check(
        name="rows left",
        outcome=Outcome.PASS if smallest else Outcome.FAIL,
        observed=float(smallest),
        threshold=1.0,
        n=len(dataset.train) + len(dataset.evaluation),
        message="rows to learn from, or to evaluate on, whichever are fewer, once unfit rows are left out",
    )


def _save_reference(dataset: Dataset, folder: Path) -> None:
    from genai_operators.workloads.reference import Reference

    if not dataset.reference:
        raise DataError("no row is left to learn from: every one is blank, a copy, or an evaluation row")
    Reference.learn(dataset.reference).save(folder / "profile.json")


# --- telling -----------------------------------------------------------------------------------------------------


def _report(params: ValidateParams, *, verdict: Verdict, dataset: Dataset, table: Any) -> Page:
    page = Page(
        f"Data of {params.model}", "Row features judged by great-expectations; no text of a row is in this page"
    )
    page.verdict(verdict)
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
