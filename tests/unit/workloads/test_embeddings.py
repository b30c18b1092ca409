"""Embeddings of prompts: the same everywhere, alike for alike texts, without a trace of the text."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from genai_operators.exceptions import DataError
from genai_operators.workloads.embeddings import DIMENSIONS, embed, load_sample, sample_prompts, save_sample
from genai_operators.workloads.records import Record
from tests.fakes.workload_process import ROOT, record

TEXTS = [
    "cancel my order please",
    "please cancel the order",
    "der Router stürzt ständig ab",
    "",
    "ab",
    "日本語の質問です",
]


class TestEmbed:
    def test_is_the_same_on_every_machine(self) -> None:
        rounded = np.round(embed(TEXTS).astype(np.float64) * 1e4).astype(np.int64)
        assert hashlib.sha256(rounded.tobytes()).hexdigest()[:16] == "cdab8a3606684a53"

    def test_a_text_does_not_depend_on_its_neighbours(self) -> None:
        together = embed(TEXTS)
        assert all((embed([text])[0] == row).all() for text, row in zip(TEXTS, together, strict=True))

    def test_unit_vectors_and_zeros_for_texts_without_letters_enough(self) -> None:
        norms = np.linalg.norm(embed(TEXTS), axis=1)
        assert norms[[0, 1, 2, 5]] == pytest.approx(1.0, abs=1e-6)
        assert embed([]).shape == (0, DIMENSIONS)
        assert np.linalg.norm(embed([""])) == 0

    def test_texts_that_share_words_lie_closer_than_others(self) -> None:
        first, second, other = embed(TEXTS)[:3]
        assert first @ second > 0.5 > first @ other

    def test_any_text_embeds(self) -> None:
        assert np.isfinite(embed(["\ud800 lone surrogate", "\x00" * 10, "x" * 100_000])).all()


class TestSample:
    def rows(self, count: int) -> list[Record]:
        return [record(f"question number {n} of many", "a", identity=f"r{n}") for n in range(count)]

    def test_is_bounded_and_survives_its_file(self, tmp_path: Path) -> None:
        sample = sample_prompts(self.rows(50), rows=20)
        save_sample(sample, tmp_path)
        found = load_sample(tmp_path)
        assert found is not None
        assert found.ids == sample.ids
        assert (found.points == sample.points).all()
        assert len(found) == 20
        assert found.points.dtype == np.float16

    def test_the_same_rows_give_the_same_bytes(self, tmp_path: Path) -> None:
        written = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            save_sample(sample_prompts(self.rows(30)), tmp_path / name)
            written.append((tmp_path / name / "embeddings.npz").read_bytes())
        assert written[0] == written[1]

    def test_no_text_and_no_foreign_id_is_kept_of_a_reference(self, tmp_path: Path) -> None:
        lines = (ROOT / "include/data/support_bot/first.jsonl").read_text().splitlines()[:100]
        records = [Record.from_json({**json.loads(line), "source": "train"}) for line in lines]
        named = [Record(record.question, record.messages, record.source) for record in records]
        save_sample(sample_prompts(named).anonymous(), tmp_path)
        kept = (tmp_path / "embeddings.npz").read_bytes()
        for encoding in ("utf-8", "utf-32-le"):
            assert not [r for r in records if r.question.encode(encoding) in kept]

    def test_none_where_there_is_none_or_another_version(self, tmp_path: Path) -> None:
        assert load_sample(tmp_path) is None
        np.savez(tmp_path / "embeddings.npz", version=np.array(99), ids=np.array([]), points=np.zeros((0, 2)))
        assert load_sample(tmp_path) is None

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "embeddings.npz").write_bytes(b"not an archive")
        with pytest.raises(DataError, match=r"embeddings\.npz is damaged"):
            load_sample(tmp_path)
