"""Which rows a training sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from genai_operators.exceptions import DataError
from genai_operators.workloads.fine_tune import training_records
from genai_operators.workloads.records import write_records
from tests.fakes.workload_process import record

OLD = [record(f"old {n}", "a") for n in range(50)]
NEW = [record(f"new {n}", "b") for n in range(10)]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_records(tmp_path / "train.jsonl", OLD)
    write_records(tmp_path / "new_train.jsonl", NEW)
    return tmp_path


def test_from_the_beginning_everything_is_learnt(dataset: Path) -> None:
    assert training_records(dataset, rehearsal=None, seed=0) == [*OLD, *NEW]


def test_a_refresh_rehearses_as_many_old_rows_as_asked(dataset: Path) -> None:
    rows = training_records(dataset, rehearsal=2.0, seed=0)
    assert rows[:10] == NEW
    assert len(set(rows[10:])) == 20
    assert set(rows[10:]) <= set(OLD)
    assert training_records(dataset, rehearsal=2.0, seed=0) == rows
    assert training_records(dataset, rehearsal=2.0, seed=1) != rows


def test_without_new_rows_a_refresh_goes_on_with_the_old(dataset: Path) -> None:
    (dataset / "new_train.jsonl").unlink()
    assert training_records(dataset, rehearsal=1.0, seed=0) == OLD


def test_no_rows_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training rows"):
        training_records(tmp_path, rehearsal=None, seed=0)


def test_a_line_that_is_no_record_is_named(dataset: Path) -> None:
    (dataset / "train.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(DataError, match=r"train\.jsonl, line 1"):
        training_records(dataset, rehearsal=None, seed=0)
