"""Raw files: what can be read, and the one message for what cannot."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from genai_operators.exceptions import DataError
from genai_operators.spec.data import DataFormat
from genai_operators.workloads.sources import read_rows


def read(path: Path, declared: DataFormat = DataFormat.AUTO) -> list[dict[str, object]]:
    return [row.values for row in read_rows(path, name=path.name, declared=declared)]


class TestReadableFiles:
    def test_csv_keeps_quotes_commas_and_line_breaks(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.csv"
        path.write_bytes(b'\xef\xbb\xbftext,label\r\n"a ""quoted"", text\nin two lines",x\r\nplain,y\r\n')
        assert read(path) == [{"text": 'a "quoted", text\nin two lines', "label": "x"}, {"text": "plain", "label": "y"}]

    def test_a_row_knows_the_line_where_it_begins(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.csv"
        path.write_text('text\n"two\nlines"\nthird\n')
        assert [row.line for row in read_rows(path, name="rows.csv", declared=DataFormat.AUTO)] == [2, 4]

    def test_jsonl_with_blank_lines(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text('{"text": "a\\u2028b"}\n\n{"text": "c"}\n', encoding="utf-8")
        assert read(path) == [{"text": "a\u2028b"}, {"text": "c"}]

    def test_parquet(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.parquet"
        pl.DataFrame({"text": ["a", "b"], "label": [1, None]}).write_parquet(path)
        assert read(path) == [{"text": "a", "label": 1}, {"text": "b", "label": None}]

    def test_the_declared_format_wins_over_the_ending(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.txt"
        path.write_text('{"text": "a"}\n')
        assert read(path, DataFormat.JSONL) == [{"text": "a"}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.jsonl", b'{"text": "a"}\n{"text": \n', ["rows.jsonl, line 2", "not JSON", "mend or delete"]),
        ("rows.jsonl", b'{"text": "a"}\n["b"]\n', ["rows.jsonl, line 2", "JSON list", "object"]),
        ("rows.jsonl", b"", ["rows.jsonl", "holds no rows"]),
        ("rows.jsonl", b'{"text": "\xff"}\n', ["rows.jsonl, about line 1", "UTF-8"]),
        ("rows.csv", b"text,label\n", ["rows.csv", "holds no rows"]),
        ("rows.csv", b"text,label\na,b,c\n", ["rows.csv, line 2", "3 fields where the header has 2", "quotes"]),
        ("rows.csv", b'text,label\nfine,x\n"open,y\nmore,z\n', ["rows.csv, line 3", "wrong CSV quoting", "line 4"]),
        ("rows.csv", b'text,label\n"bad" quote,y\n', ["rows.csv, line 2", "wrong CSV quoting"]),
        ("rows.csv", b"text;label\na;b\n", ["rows.csv, line 1", "one column", "commas"]),
        ("rows.csv", b"text,text\na,b\n", ["rows.csv, line 1", "'text' stands twice"]),
        ("rows.parquet", b"not parquet at all", ["rows.parquet", "not a readable Parquet file"]),
        ("rows.xlsx", b"PK", ["rows.xlsx", ".csv", "data.format"]),
        ("rows", b"{}", ["rows", "(none)", "data.format"]),
    ],
)
def test_an_unreadable_file_ends_in_one_message_with_place_and_remedy(
    tmp_path: Path, name: str, content: bytes, said: list[str]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(path)
    for part in said:
        assert part in str(caught.value)


def test_no_message_holds_the_content_of_a_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "my card is 4111" oops}\n')
    with pytest.raises(DataError) as caught:
        read(path)
    assert "4111" not in str(caught.value)
