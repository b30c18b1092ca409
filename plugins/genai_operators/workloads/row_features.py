"""What can be said of each record in numbers, so that a judge of the data never sees a text.

The table has one row a record; great-expectations judges it by the suite of the model file. Columns:

    source              train, evaluation or feedback
    valid_messages      roles in order: an optional system message, then user and assistant in turn, assistant last
    turns               messages without the system's
    prompt_characters, answer_characters, words
    estimated_tokens    of the whole conversation, by a rule of thumb: a word piece each 4 characters, plus punctuation
    empty               prompt or answer is blank
    valid_answer        parses to an object, when answers are JSON
    duplicate           the same conversation stands further up
    conflicting         the same prompt stands further up with another answer
    in_evaluation       a row to learn from whose prompt is also in the evaluation rows
    personal_data, secrets    how many (see ``sensitive``)
    language            ISO 639-1, of a sample of the rows; null for the others and for short texts
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from genai_operators.spec.data import OutputKind
from genai_operators.workloads.records import Message, Record
from genai_operators.workloads.scoring import is_valid
from genai_operators.workloads.sensitive import (
    SUSPECT_PERSONAL_DATA,
    SUSPECT_SECRET,
    count_personal_data,
    count_secrets,
)

LANGUAGE_SAMPLE_ROWS = 2000
SHORTEST_IDENTIFIABLE_CHARACTERS = 20
#: Languages told apart. Among all 97 that py3langid knows, short English messages are taken for Nigerian Pidgin.
LANGUAGES = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "uk", "zh")
CHARACTERS_PER_TOKEN = 4


def row_features(records: Sequence[Record], *, output: OutputKind) -> pl.DataFrame:
    """The table described above, in the order of ``records``; shape (records, 15)."""
    frame = pl.DataFrame(
        {
            "source": [record.source for record in records],
            "prompt": ["\n".join(message.content for message in record.prompt) for record in records],
            "question": [record.question for record in records],
            "answer": [record.answer for record in records],
            "prompt_digest": [record.prompt_digest for record in records],
            "digest": [record.digest for record in records],
            "turns": [sum(message.role != "system" for message in record.messages) for record in records],
            "valid_messages": [_roles_in_order(record.messages) for record in records],
            "valid_answer": [is_valid(record.answer, output=output) for record in records],
        },
        schema_overrides={"turns": pl.Int32},
    )
    text = pl.col("prompt") + "\n" + pl.col("answer")
    evaluation = frame.filter(pl.col("source") == "evaluation")["prompt_digest"]
    table = frame.lazy().select(
        "source",
        "valid_messages",
        "turns",
        pl.col("prompt").str.len_chars().alias("prompt_characters"),
        pl.col("answer").str.len_chars().alias("answer_characters"),
        text.str.count_matches(r"\S+").alias("words"),
        _estimated_tokens(text).alias("estimated_tokens"),
        ((pl.col("question").str.strip_chars() == "") | (pl.col("answer").str.strip_chars() == "")).alias("empty"),
        "valid_answer",
        (~pl.col("digest").is_first_distinct()).alias("duplicate"),
        (~pl.col("prompt_digest").is_first_distinct() & pl.col("digest").is_first_distinct()).alias("conflicting"),
        ((pl.col("source") != "evaluation") & pl.col("prompt_digest").is_in(evaluation.implode())).alias(
            "in_evaluation"
        ),
        _counted(text, suspect=SUSPECT_PERSONAL_DATA, count=count_personal_data).alias("personal_data"),
        _counted(text, suspect=SUSPECT_SECRET, count=count_secrets).alias("secrets"),
    )
    return table.collect().with_columns(_languages(frame["question"]).alias("language"))


def _roles_in_order(messages: Sequence[Message]) -> bool:
    roles = [message.role for message in messages]
    if roles and roles[0] == "system":
        roles = roles[1:]
    return len(roles) >= 2 and len(roles) % 2 == 0 and roles == ["user", "assistant"] * (len(roles) // 2)


def _estimated_tokens(text: pl.Expr) -> pl.Expr:
    return (text.str.len_chars() / CHARACTERS_PER_TOKEN).ceil().cast(pl.Int32) + text.str.count_matches(
        r"[^\w\s]"
    ).cast(pl.Int32)


def _counted(text: pl.Expr, *, suspect: str, count: Callable[[str], int]) -> pl.Expr:
    """``count`` of the texts that hold a suspect character; 0 for all others, which the costly patterns never see."""
    return (
        pl.when(text.str.contains(suspect))
        .then(pl.when(text.str.contains(suspect)).then(text).map_elements(count, return_dtype=pl.Int64))
        .otherwise(0)
    )


def _languages(texts: pl.Series) -> pl.Series:
    """Language codes of an evenly spaced sample; all null where py3langid is not installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return pl.Series([None] * len(texts), dtype=pl.String)
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages(list(LANGUAGES))
    step = max(1, -(-len(texts) // LANGUAGE_SAMPLE_ROWS))
    found: list[str | None] = [
        str(identifier.classify(text)[0])
        if index % step == 0 and len(text) >= SHORTEST_IDENTIFIABLE_CHARACTERS
        else None
        for index, text in enumerate(texts)
    ]
    return pl.Series(found, dtype=pl.String)
