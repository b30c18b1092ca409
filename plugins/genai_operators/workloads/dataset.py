"""A data set: which rows are fit to be learnt, which examine, and the files that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genai_operators.decisions.verdict import Check, Outcome
from genai_operators.exceptions import DataError
from genai_operators.workloads.records import Record, write_records
from genai_operators.workloads.splitting import NEW_EVALUATION_SHARE, split_exactly


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


def usable_train(records: Sequence[Record], features: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Without copies, blank rows and rows of the evaluation. What else is wrong with them, the suite has judged."""
    return [
        record
        for record, row in zip(records, features, strict=True)
        if row["valid_messages"] and not (row["duplicate"] or row["empty"] or row["in_evaluation"])
    ]


def usable_feedback(records: Sequence[Record], features: Sequence[Mapping[str, Any]]) -> list[Record]:
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


def distinct(records: Sequence[Record]) -> list[Record]:
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


def assemble(
    *,
    train: list[Record],
    evaluation: list[Record],
    taught: list[Record],
    read: Counter[str],
    minimum_new_rows: int,
    maximum_new_rows: int,
) -> Dataset:
    """Choose the new rows (the newest, if they are enough), split them, and count what became of every row.

    :param read: how many rows of each source were read.
    """
    new = taught[-maximum_new_rows:] if len(taught) >= minimum_new_rows else []
    new_train, new_evaluation = split_exactly(new, share=NEW_EVALUATION_SHARE, salt="new evaluation")
    counts = {
        **read,
        "train_rows": len(train),
        "train_rows_left_out": read["train_rows_read"] - len(train),
        "evaluation_rows": len(evaluation),
        "feedback_rows_usable": len(taught),
        "taught_rows": sum(record.source == "feedback" for record in train) + len(new),
        "new_train_rows": len(new_train),
        "new_evaluation_rows": len(new_evaluation),
    }
    return Dataset(
        train=train, evaluation=evaluation, new_train=new_train, new_evaluation=distinct(new_evaluation), counts=counts
    )


def enough_rows(dataset: Dataset) -> Check:
    smallest = min(len(dataset.train), len(dataset.evaluation))
    return Check(
        name="rows left",
        outcome=Outcome.PASS if smallest else Outcome.FAIL,
        observed=float(smallest),
        threshold=1.0,
        n=len(dataset.train) + len(dataset.evaluation),
        message="rows to learn from, or to evaluate on, whichever are fewer, once unfit rows are left out",
    )


def save_reference(dataset: Dataset, folder: Path) -> None:
    """What a drift check compares traffic with: ``profile.json``, and a sample of embeddings without any text."""
    from genai_operators.workloads.embeddings import sample_prompts, save_sample
    from genai_operators.workloads.reference import Reference

    if not dataset.reference:
        raise DataError("no row is left to learn from: every one is blank, a copy, or an evaluation row")
    Reference.learn(dataset.reference).save(folder / "profile.json")
    save_sample(sample_prompts(dataset.reference).anonymous(), folder)
