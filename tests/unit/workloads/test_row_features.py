"""The table that great-expectations judges."""

from __future__ import annotations

from genai_operators.spec.data import OutputKind
from genai_operators.workloads.records import Message, Record
from genai_operators.workloads.row_features import row_features
from tests.fakes.workload_process import record


def test_each_column_says_what_it_should() -> None:
    table = row_features(
        [
            record("where is my order", "x", identity="e", source="evaluation"),
            record("Where is  my ORDER", "y"),  # also in the evaluation, and with another answer
            record("my mail is jane@example.com", "x"),
            record("my mail is jane@example.com", "x"),  # a copy
            record("   ", "x"),
            Record("odd", (Message("user", "a"), Message("user", "b"), Message("assistant", "c")), "train"),
            Record("even", (Message("system", "s"), Message("user", "a"), Message("assistant", "b")), "train"),
        ],
        output=OutputKind.TEXT,
    )
    assert table["in_evaluation"].to_list() == [False, True, False, False, False, False, False]
    assert table["conflicting"].to_list() == [False, True, False, False, False, False, False]
    assert table["duplicate"].to_list() == [False, False, False, True, False, False, False]
    assert table["personal_data"].to_list() == [0, 0, 1, 1, 0, 0, 0]
    assert table["empty"].to_list() == [False, False, False, False, True, False, False]
    assert table["valid_messages"].to_list() == [True, True, True, True, True, False, True]
    assert table["turns"].to_list() == [2, 2, 2, 2, 2, 3, 2]


def test_an_answer_that_should_be_json_and_is_not() -> None:
    table = row_features([record("a", '{"b": 1}'), record("c", "[1]"), record("d", "{")], output=OutputKind.JSON)
    assert table["valid_answer"].to_list() == [True, False, False]


def test_languages_of_messages_that_are_long_enough() -> None:
    texts = ["i want my money back for the laptop", "wo bleibt denn meine Bestellung", "hi"]
    table = row_features([record(text, "x") for text in texts], output=OutputKind.TEXT)
    assert table["language"].to_list() == ["en", "de", None]


def test_no_text_is_in_the_table() -> None:
    table = row_features([record("a very private question", "a very private answer")], output=OutputKind.TEXT)
    texts = [value for row in table.rows() for value in row if isinstance(value, str)]
    assert set(texts) == {"train", "en"}
