"""What can be said of a text without reading it: descriptors as polars expressions, no model and no download.

Every expression is a pure function of its row, so the same list runs eagerly, in polars' streaming engine and, batch by
batch, under Spark's ``mapInArrow``. No text leaves them: the results are numbers, and names of languages.

Splitting into words is what costs most, so :func:`describe` does it once for all of them.
``benchmarks/decisions_drift.py`` measures how many documents a second of one core describes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import polars as pl

from genai_operators.decisions.profile import Kind
from genai_operators.refusals import REFUSALS

TEXT_FEATURES: Final[dict[str, Kind]] = {
    "characters": "continuous",
    "words": "continuous",
    "word_length": "continuous",
    "upper_share": "continuous",
    "digit_share": "continuous",
    "punctuation_share": "continuous",
    "beyond_ascii": "continuous",
    "repetition": "continuous",
    "personal_data": "categorical",
    "refusal": "categorical",
    "language": "categorical",
}
"""Descriptors in the order in which they come, with the kind of profile each wants."""

OUT_OF_VOCABULARY: Final = "out_of_vocabulary"
"""The descriptor that a reference vocabulary adds; continuous."""

VOCABULARY_SIZE = 20_000
"""Words of a reference vocabulary: the most frequent ones; ties in alphabetical order."""

STOP_WORDS: Final[dict[str, str]] = {
    "en": "the|and|of|is|my|you|that|what|how|have|with|it|this|can|not|do|why|to",
    "de": "der|die|und|ich|nicht|das|ist|mein|meine|ein|eine|wie|mit|auf|sie|zu|den",
    "fr": "le|les|et|je|est|une|mon|pas|pour|vous|des|du|ma|dans|ai|que",
    "es": "el|los|es|una|por|para|con|del|las|qué|cómo|está|lo|mi|se|que",
}
"""Words so frequent that two of them tell a sentence's language; asked in this order. A proxy, no identification."""

BEYOND_LATIN = 0.5
"""Bytes beyond one a character from which on a text is in another script: Cyrillic and Arabic have 0.8, CJK 2."""

_REFUSAL: Final = "(?i)" + "|".join(REFUSALS)  # twice as fast as looking for a list of them

_EDGE = r"(?-u:\b)"  # of an ASCII word: the Unicode one leaves the regex engine's fast path

PERSONAL_DATA: Final = (
    r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z]{2,}"  # e-mail
    rf"|{_EDGE}(?:\+?[0-9]{{1,3}}[ .-])?\(?[0-9]{{3}}\)?[ .-][0-9]{{3,4}}[ .-][0-9]{{4}}{_EDGE}"  # telephone
    rf"|\+[0-9]{{1,3}}[ .-]?[0-9]{{2,4}}(?:[ .-]?[0-9]{{2,4}}){{2,3}}{_EDGE}"  # telephone, international
    rf"|{_EDGE}[0-9]{{3}}-[0-9]{{2}}-[0-9]{{4}}{_EDGE}"  # US social security
    rf"|{_EDGE}(?:[0-9]{{4}}[ -]?){{3}}[0-9]{{1,4}}{_EDGE}"  # payment card
    rf"|{_EDGE}[A-Z]{{2}}[0-9]{{2}}(?: ?[A-Z0-9]{{4}}){{3,7}}{_EDGE}"  # IBAN
    rf"|{_EDGE}(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}{_EDGE}"  # IPv4
)
"""What looks like personal data. A rate for drift, not a scanner: it does not check digits."""


def text_features(
    text: pl.Expr, *, prefix: str = "", vocabulary: Iterable[str] | None = None, words: pl.Expr | None = None
) -> list[pl.Expr]:
    """Expressions for every descriptor of a text column, named ``prefix`` + name; null where the text is null.

    :param text: a string expression, e.g. ``pl.col("prompt")``.
    :param vocabulary: words of the reference (:func:`learn_vocabulary`); adds ``out_of_vocabulary``, the share of words
        that are not among them.
    :param words: its words (:func:`words_of`), where they are a column already.
    """
    characters = text.str.len_chars()
    per_character = 1 / characters.clip(lower_bound=1)
    said = words_of(text) if words is None else words
    count = said.list.len()
    found = {
        "characters": characters,
        "words": count,
        "word_length": characters / count,
        "upper_share": text.str.count_matches("[A-Z]") * per_character,
        "digit_share": text.str.count_matches("[0-9]") * per_character,
        "punctuation_share": text.str.count_matches(r"[!-/:-@\[-`{-~]") * per_character,
        "beyond_ascii": (text.str.len_bytes() - characters) * per_character,
        "repetition": 1 - said.list.n_unique() / count,
        "personal_data": text.str.contains(PERSONAL_DATA),
        "refusal": text.str.contains(_REFUSAL),
        "language": language(text),
    }
    if vocabulary is not None:
        found[OUT_OF_VOCABULARY] = _unknown_share(said, vocabulary)
    return [expression.alias(prefix + name) for name, expression in found.items()]


def describe(texts: pl.Series, *, prefix: str = "", vocabulary: Iterable[str] | None = None) -> pl.DataFrame:
    """All descriptors of a column of texts, a row each. What several share is computed once."""
    frame = texts.alias("text").to_frame().lazy().with_columns(words=words_of(pl.col("text")))
    found = text_features(pl.col("text"), prefix=prefix, vocabulary=vocabulary, words=pl.col("words"))
    return frame.select(found).collect()


def feature_kinds(*, prefix: str = "", vocabulary: bool = False) -> dict[str, Kind]:
    """The kind of profile that each column of :func:`text_features` wants."""
    kinds: dict[str, Kind] = {prefix + name: kind for name, kind in TEXT_FEATURES.items()}
    return {**kinds, prefix + OUT_OF_VOCABULARY: "continuous"} if vocabulary else kinds


def words_of(text: pl.Expr) -> pl.Expr:
    """Lower-case words, split at blanks: a list of strings."""
    return text.str.to_lowercase().str.split(" ")


def language(text: pl.Expr) -> pl.Expr:
    """The first language of which the text has two stop words, else ``beyond_latin`` by its script, else ``other``."""
    named = pl.when(text.is_null()).then(None)
    for name, words in STOP_WORDS.items():
        two = rf"(?is){_EDGE}(?:{words}){_EDGE}.*?{_EDGE}(?:{words}){_EDGE}"
        named = named.when(text.str.contains(two)).then(pl.lit(name))
    beyond = text.str.len_bytes() > (1 + BEYOND_LATIN) * text.str.len_chars()
    return named.when(beyond).then(pl.lit("beyond_latin")).otherwise(pl.lit("other"))


def out_of_vocabulary(text: pl.Expr, vocabulary: Iterable[str]) -> pl.Expr:
    """Share of the words (0..1) that the vocabulary does not know.

    For texts that the vocabulary was not learnt from. For those it was, use :func:`reference_out_of_vocabulary`: a text
    knows its own words, and new texts of the same kind would look like drift.
    """
    return _unknown_share(words_of(text), vocabulary)


def _unknown_share(words: pl.Expr, vocabulary: Iterable[str]) -> pl.Expr:
    known = pl.Series(sorted(set(vocabulary)), dtype=pl.String)
    return 1 - words.list.eval(pl.element().is_in(known.implode())).list.mean()


def reference_out_of_vocabulary(texts: pl.Series, vocabulary: Iterable[str]) -> pl.Series:
    """``out_of_vocabulary`` of the texts that the vocabulary was learnt from, each as if it had not been among them.

    A word counts as known when the *other* texts alone would have put it into the vocabulary: it is there, and they
    hold it twice. So the reference has the distribution that new texts of the same kind have.
    """
    known = pl.Series(sorted(set(vocabulary)), dtype=pl.String)
    words = (
        pl.DataFrame({"text": texts})
        .lazy()
        .with_row_index("row")
        .select("row", word=words_of(pl.col("text")))
        .explode("word")
        .with_columns(own=pl.len().over("row", "word"), everywhere=pl.len().over("word"))
        .with_columns(
            known=pl.when(pl.col("word").is_not_null()).then(
                pl.col("word").is_in(known.implode()) & (pl.col("everywhere") - pl.col("own") > 1)
            )
        )
    )
    shares = words.group_by("row").agg(unknown=1 - pl.col("known").mean()).sort("row").collect()
    return shares["unknown"].alias(texts.name)


def learn_vocabulary(texts: pl.Series, *, size: int = VOCABULARY_SIZE) -> list[str]:
    """The ``size`` most frequent words of a reference, in alphabetical order. Words met once are left out: they are as
    likely to be personal data as language, and a current window has as many of its own."""
    words = pl.DataFrame({"text": texts}).lazy().select(word=words_of(pl.col("text")).list.explode())
    counted = words.group_by("word").len().filter((pl.col("len") > 1) & (pl.col("word") != ""))
    frequent = counted.sort(["len", "word"], descending=[True, False]).head(size).collect()
    return sorted(frequent["word"].to_list())
