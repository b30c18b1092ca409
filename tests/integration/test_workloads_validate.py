"""The validation in a process of its own, with great-expectations, on small files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from genai_operators.compute.contract import Artifact, Workload
from genai_operators.decisions.verdict import Outcome
from genai_operators.exceptions import DataError
from genai_operators.serving.batches import batch_path, encode
from genai_operators.spec.data import OutputKind
from genai_operators.store import Store
from genai_operators.workloads.records import read_records
from genai_operators.workloads.row_features import row_features
from genai_operators.workloads.suite import Suite, judge
from genai_operators.workloads.validate import validate
from tests.fakes.workload_process import ROOT, WorkloadProcess, context_of, dataset_input, file_input, record

SUITE = yaml.safe_load((ROOT / "include/suites/messages.yaml").read_text())
MEAN = "expect_column_mean_to_be_between"
SECRET = "please look into account zq-77-private"


def validation(tmp_path: Path, *, inputs: dict[str, Artifact], **params: Any) -> WorkloadProcess:
    data = {"output": "text", **params.pop("data", {})}
    workload = Workload(kind="validate", params={"model": "m", "suite": SUITE, "data": data, **params}, inputs=inputs)
    return WorkloadProcess(Store.open(tmp_path / "store"), workload, sys.executable, tmp_path / "scratch")


def csv_rows(tmp_path: Path, rows: list[tuple[str, str]], name: str = "rows.csv") -> Artifact:
    path = tmp_path / name
    path.write_text("text,category\n" + "".join(f'"{text}","{category}"\n' for text, category in rows))
    return file_input(path)


def without_pyarrow(tmp_path: Path) -> dict[str, str]:
    """Environment of a process without pyarrow, which MLflow's server brings here and the wheel does not."""
    folder = tmp_path / "without"
    folder.mkdir()
    (folder / "pyarrow.py").write_text("raise ModuleNotFoundError('No module named pyarrow', name='pyarrow')\n")
    return {"PYTHONPATH": f"{folder}:{ROOT / 'plugins'}:{ROOT}"}


def files_of(process: WorkloadProcess, tmp_path: Path) -> Path:
    store = process.store
    store.download_directory(store.path_of(process.output("dataset").uri), tmp_path / "got")
    return tmp_path / "got"


@pytest.mark.slow
class TestGoodRows:
    def test_files_and_feedback_become_a_data_set_without_overlap(self, tmp_path: Path) -> None:
        rows = [(f"message number {n} about a thing", f"label {n % 5}") for n in range(200)]
        train = csv_rows(tmp_path, [*rows, rows[0], rows[1]])  # two copies
        evaluation = csv_rows(tmp_path, [("something else entirely", "label 1"), rows[2]], "evaluation.csv")
        store = Store.open(tmp_path / "store")
        store.put(batch_path("m", "text", 0), encode([{"kind": "batch"}, *feedback_lines(rows)]))
        process = validation(
            tmp_path,
            inputs={"train_0": train, "evaluation": evaluation},
            data={"minimum_new_rows": 20},
            feedback={"first": 0, "last": 0},
        )
        process.environment |= without_pyarrow(tmp_path)
        code, output = process.run()
        assert code == 0, output
        assert SECRET not in output
        folder = files_of(process, tmp_path)
        learnt, examined = read_records(folder / "train.jsonl"), read_records(folder / "evaluation.jsonl")
        assert len(learnt) == 199  # without the copies and the row that is also an evaluation row
        assert len(examined) == 2
        new = read_records(folder / "new_train.jsonl") + read_records(folder / "new_evaluation.jsonl")
        assert {record.answer for record in new} == {"corrected", "its own"}
        prompts = [{r.prompt_digest for r in read_records(path)} for path in sorted(folder.glob("*.jsonl"))]
        assert len(set().union(*prompts)) == sum(len(part) for part in prompts)
        assert json.loads((folder / "stats.json").read_text())["counts"]["taught_rows"] == 40
        report = process.store.get(f"{process.workload.directory}/report.html").decode()
        assert "great-expectations" in report
        assert "What each rule found, and the share that it allows" in report
        assert SECRET not in report


def feedback_lines(rows: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """40 usable judgements; then one that repeats a training row, one with personal data, one blank, one secret."""
    said = [(f"a new question {n}", "corrected" if n % 2 else None) for n in range(40)]
    said += [(rows[3][0], rows[3][1]), (f"{SECRET}, mail me at jane@example.com", "x"), ("a blank one", "  ")]
    said += [("my key is AKIA" + "IOSFODNN7EXAMPLE", "x")]
    return [
        {
            "kind": "feedback",
            "request_id": str(n),
            "rating": "wrong" if correction else "right",
            "correction": correction,
            "messages": [{"role": "user", "content": text}],
            "answer": "its own",
        }
        for n, (text, correction) in enumerate(said)
    ]


@pytest.mark.slow
class TestBadRows:
    def test_the_gate_fails_and_says_what_is_wrong_without_the_rows(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = [(f"question {n}: {SECRET} mail jane.doe{n}@example.com", "x") for n in range(40)]
        rows += [("", "x")] * 3
        params = {"model": "m", "suite": SUITE, "data": {"output": "json", "holdout": 0.5}}
        output = validate(context_of(tmp_path, params=params, inputs={"train_0": csv_rows(tmp_path, rows)}))
        verdict, report = output.verdict, output.report
        assert verdict is not None
        assert report is not None
        failed = {check.name for check in verdict.checks if check.outcome is Outcome.FAIL}
        assert verdict.outcome is Outcome.FAIL
        assert {"rows", "answers valid", "nothing empty", "personal data"} <= failed
        everything = capsys.readouterr().out + verdict.render_text() + report.html()
        assert "zq-77" not in everything
        assert "jane.doe" not in everything

    def test_without_evaluation_rows_some_are_held_out(self, tmp_path: Path) -> None:
        train = csv_rows(tmp_path, [(f"message number {n}", "x") for n in range(300)])
        params = {"model": "m", "suite": SUITE, "data": {"holdout": 0.2}}
        metrics = validate(context_of(tmp_path, params=params, inputs={"train_0": train})).metrics
        assert metrics["train_rows"] + metrics["evaluation_rows"] == 300
        assert 35 < metrics["evaluation_rows"] < 90

    @pytest.mark.parametrize("held_out", [False, True])
    def test_what_earlier_users_taught_is_kept(self, tmp_path: Path, held_out: bool) -> None:
        train = csv_rows(tmp_path, [(f"message number {n}", "x") for n in range(100)])
        evaluation = csv_rows(tmp_path, [(f"examined {n}", "x") for n in range(20)], "evaluation.csv")
        parts = {
            "train": [record("dropped from the files since", "y")],
            "new_train": [record("taught once", "z", source="feedback")],
            "evaluation": [record("taught long ago", "z", source="feedback")],
        }
        previous = dataset_input(Store.open(tmp_path / "store"), "previous", parts)
        inputs = {"train_0": train, "evaluation": evaluation, "previous": previous}
        if held_out:
            del inputs["evaluation"]
        context = context_of(tmp_path, params={"model": "m", "suite": SUITE, "data": {}}, inputs=inputs)
        assert validate(context).metrics["taught_rows"] == 1
        kept = {part: read_records(context.output / f"dataset/{part}.jsonl") for part in ("train", "evaluation")}
        assert [r.question for r in kept["train"] if r.source == "feedback"] == ["taught once"]
        assert [r.question for r in kept["evaluation"] if r.source == "feedback"] == ["taught long ago"]
        assert len(kept["train"]) + len(kept["evaluation"]) == (102 if held_out else 122)
        assert 5 < len(kept["evaluation"]) < 25

    def test_a_file_without_the_column_of_the_template(self, tmp_path: Path) -> None:
        params = {"model": "m", "suite": SUITE, "data": {"answer": "{label}"}}
        context = context_of(tmp_path, params=params, inputs={"train_0": csv_rows(tmp_path, [("a", "b")])})
        with pytest.raises(DataError, match=r"rows\.csv, line 2: no column 'label', which data\.answer"):
            validate(context)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ({"name": "s", "expectations": []}, "suite s, expectations"),
        ({"expectations": [{"name": "e", "type": "expect_miracles"}]}, "'e'.*expect_miracles not found"),
        ({"expectations": [{"name": "e", "type": MEAN, "kwargs": {"column": "mood"}}]}, "'e'.*no column 'mood'"),
        ({"expectations": [{"name": "e", "type": MEAN, "kwargs": {"column": "words", "least": 1}}]}, "'e'.*least"),
    ],
)
def test_a_wrong_suite_is_a_clear_message(suite: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = row_features([record(f"message number {n}", "x") for n in range(3)], output=OutputKind.TEXT)
    with pytest.raises(DataError, match=said):
        judge(table, Suite.parse(suite, where=str(suite.get("name", ""))))
    assert "Traceback" not in capsys.readouterr().err
