"""Templates: a row's columns become messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from genai_operators.exceptions import DataError
from genai_operators.spec.data import OutputKind
from genai_operators.workloads.mapping import RowMapping
from genai_operators.workloads.records import Record
from genai_operators.workloads.sources import Row


def mapped(
    values: dict[str, Any],
    *,
    prompt: str = "{text}",
    answer: str = "{category}",
    system: str | None = None,
    output: OutputKind = OutputKind.TEXT,
) -> Record:
    mapping = RowMapping.of(prompt=prompt, answer=answer, system=system, output=output)
    return mapping.record(Row("rows.csv", 7, values), index=3, source="train")


class TestTemplates:
    def test_columns_take_their_places(self) -> None:
        record = mapped({"text": "hello", "category": "greeting"})
        assert [(m.role, m.content) for m in record.messages] == [("user", "hello"), ("assistant", "greeting")]
        assert record.id == "train-0000003"

    def test_text_around_columns_and_a_system_message(self) -> None:
        record = mapped({"text": "hi", "category": "x", "lang": "en"}, prompt="[{lang}] {text}", system="Sort it.")
        assert [m.content for m in record.messages] == ["Sort it.", "[en] hi", "x"]

    def test_values_in_a_json_template_are_escaped(self) -> None:
        record = mapped(
            {"text": "t", "category": 'say "no"\n'}, answer='{{"label": "{category}"}}', output=OutputKind.JSON
        )
        assert json.loads(record.answer) == {"label": 'say "no"\n'}

    def test_a_column_that_is_the_whole_json_answer_stays_as_it_is(self) -> None:
        assert json.loads(mapped({"text": "t", "category": {"a": [1]}}, output=OutputKind.JSON).answer) == {"a": [1]}
        assert mapped({"text": "t", "category": '{"a":1}'}, output=OutputKind.JSON).answer == '{"a":1}'

    def test_an_empty_value_is_an_empty_text(self) -> None:
        assert mapped({"text": None, "category": "x"}).question == ""

    def test_a_conversation_is_taken_as_it_is(self) -> None:
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        assert mapped({"id": "k", "messages": turns}).to_line() == (
            '{"id": "k", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],'
            ' "source": "train"}\n'
        )


@pytest.mark.parametrize(
    ("values", "options", "said"),
    [
        ({"texts": "a", "category": "b"}, {}, ["rows.csv, line 7", "'text'", "data.prompt", "Did you mean 'texts'?"]),
        ({"text": "a"}, {}, ["rows.csv, line 7", "'category'", "data.answer"]),
        ({"text": "a"}, {"prompt": "{text"}, ["data.prompt", "not a template"]),
        ({"text": "a"}, {"prompt": "{}"}, ["data.prompt", "{column}"]),
        ({"text": "a"}, {"prompt": "{text!r:>5}"}, ["data.prompt", "{column}"]),
        ({"messages": "a"}, {}, ["rows.csv, line 7", "messages must be a list"]),
        ({"messages": [{"role": "user"}, {}]}, {}, ["line 7", "message 1", "content"]),
        ({"messages": [{"role": "user", "content": "a"}] * 2}, {}, ["line 7", "last message", "assistant"]),
    ],
)
def test_a_row_that_does_not_fit_is_named_with_its_place(
    values: dict[str, Any], options: dict[str, str], said: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        mapped(values, **options)  # type: ignore[arg-type]
    for part in said:
        assert part in str(caught.value)
