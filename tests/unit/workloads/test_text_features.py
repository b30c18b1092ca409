"""Descriptors of text: right on examples, null where there is no text, and blind to what they learnt from."""

from __future__ import annotations

import polars as pl
import pytest

from genai_operators.decisions.drift import DriftSettings, compare
from genai_operators.workloads.frame_profile import profile_frame
from genai_operators.workloads.text_features import (
    OUT_OF_VOCABULARY,
    TEXT_FEATURES,
    describe,
    feature_kinds,
    learn_vocabulary,
    reference_out_of_vocabulary,
    text_features,
)


def of(text: str | None) -> dict[str, object]:
    return describe(pl.Series([text], dtype=pl.String)).row(0, named=True)


class TestDescriptors:
    def test_lengths_and_character_classes(self):
        found = of("Order 42, PLEASE!")
        assert found["characters"] == 17
        assert found["words"] == 3
        assert found["word_length"] == pytest.approx(17 / 3)
        assert found["upper_share"] == pytest.approx(7 / 17)
        assert found["digit_share"] == pytest.approx(2 / 17)
        assert found["punctuation_share"] == pytest.approx(2 / 17)
        assert found["beyond_ascii"] == 0

    def test_repetition_is_the_share_of_words_said_before(self):
        assert of("no no no no")["repetition"] == pytest.approx(0.75)
        assert of("No no, NO no")["repetition"] == pytest.approx(0.5)
        assert of("one two three")["repetition"] == 0

    @pytest.mark.parametrize(
        ("text", "language"),
        [
            ("What is the status of my order?", "en"),
            ("Ich habe meine Karte verloren und der Code ist weg", "de"),
            ("Je ne trouve pas le code et ma carte est perdue", "fr"),
            ("No encuentro el código para mi tarjeta, por favor", "es"),
            ("Где моя карта", "beyond_latin"),
            ("私のカードはどこですか", "beyond_latin"),
            ("xyzzy plugh", "other"),
            ("", "other"),
        ],
    )
    def test_language(self, text, language):
        assert of(text)["language"] == language

    @pytest.mark.parametrize(
        "text",
        [
            "write to jane.doe+x@example.org please",
            "call 555-123-4567 now",
            "call (555) 123-4567 now",
            "call +49 30 1234 5678",
            "ssn 123-45-6789",
            "card 4111 1111 1111 1111",
            "iban DE89 3704 0044 0532 0130 00",
            "from 192.168.10.12 today",
        ],
    )
    def test_personal_data_is_seen(self, text):
        assert of(text)["personal_data"] is True

    @pytest.mark.parametrize(
        "text", ["version 2.11.3", "order 123456", "at 10:30 on 2024-05-06", "a @ b", "costs 1,299.00"]
    )
    def test_other_numbers_are_not_personal_data(self, text):
        assert of(text)["personal_data"] is False

    @pytest.mark.parametrize(
        ("text", "refused"),
        [
            ("I'm sorry, but I can't help.", True),
            ("As an AI, no.", True),
            ("I can’t help.", True),
            ("I can help you.", False),
        ],
    )
    def test_refusals(self, text, refused):
        assert of(text)["refusal"] is refused

    def test_no_text_has_no_descriptors(self):
        assert set(of(None).values()) == {None}

    def test_names_and_kinds_match_the_columns(self):
        texts = pl.Series(["a b", "c"])
        assert list(describe(texts, prefix="p.", vocabulary=["a"]).columns) == list(
            feature_kinds(prefix="p.", vocabulary=True)
        )
        assert list(TEXT_FEATURES) == describe(texts).columns

    def test_expressions_run_in_the_streaming_engine(self):
        frame = pl.LazyFrame({"text": ["the cat is", None, "zwei"]})
        lazy = frame.select(text_features(pl.col("text"), vocabulary=["the"]))
        assert lazy.collect(engine="streaming").equals(lazy.collect())


class TestVocabulary:
    TEXTS = pl.Series(["my card is lost", "my card is blocked", "jane doe", None, "My phone"])

    def test_holds_what_was_said_twice(self):
        assert learn_vocabulary(self.TEXTS) == ["card", "is", "my"]

    def test_is_cut_at_the_most_frequent(self):
        assert learn_vocabulary(self.TEXTS, size=1) == ["my"]

    def test_share_of_unknown_words(self):
        found = describe(pl.Series(["my new card", "", None]), vocabulary=["my", "card"])[OUT_OF_VOCABULARY]
        assert found.to_list() == [pytest.approx(1 / 3), 1.0, None]

    def test_a_reference_text_does_not_vouch_for_its_own_words(self):
        texts = pl.Series(["a a b", "b c", "b", None])
        vocabulary = learn_vocabulary(texts)
        assert vocabulary == ["a", "b"]
        assert reference_out_of_vocabulary(texts, vocabulary).to_list() == [pytest.approx(2 / 3), 0.5, 0.0, None]

    def test_new_texts_of_the_same_kind_are_no_drift(self):
        texts = sentences(2_600)
        reference, current = texts[:600], texts[600:1_600]
        vocabulary = learn_vocabulary(reference)
        kinds = {OUT_OF_VOCABULARY: "continuous"}
        then = profile_frame(
            reference_out_of_vocabulary(reference, vocabulary).alias(OUT_OF_VOCABULARY).to_frame(), kinds
        )
        naive = profile_frame(describe(reference, vocabulary=vocabulary), kinds)
        now = profile_frame(describe(current, vocabulary=vocabulary), kinds)
        assert compare(then, now, DriftSettings(minimum_effect=0.05)).drifted == []
        assert compare(naive, now, DriftSettings(minimum_effect=0.05)).drifted != []


def sentences(count: int) -> pl.Series:
    """Texts whose words follow Zipf's law, as language does: many are rare."""
    import numpy as np

    random = np.random.default_rng(5)
    ranks = np.arange(1, 6_001)
    drawn = random.choice(ranks, size=(count, 9), p=(1 / ranks) / (1 / ranks).sum())
    return pl.Series([" ".join(f"w{rank}" for rank in row) for row in drawn])
