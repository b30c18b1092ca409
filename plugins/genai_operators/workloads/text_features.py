"""What can be said of a text without reading it: descriptors as polars expressions, no model and no download.

Every expression is a pure function of its row, so the same list runs eagerly, in polars' streaming engine and, batch by
batch, under Spark's ``mapInArrow``. No text leaves them: the results are numbers, and names of languages.

Cost on one core, documents of 180 characters: about 4 us a document for all descriptors without a vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import polars as pl

from genai_operators.decisions.profile import Kind

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

STOP_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "en": ("the", "and", "of", "to", "is", "my", "you", "that", "for", "have", "with", "it"),
    "de": ("der", "die", "und", "ich", "nicht", "das", "ist", "mein", "meine", "ein", "eine", "wie", "mit"),
    "fr": ("le", "les", "et", "je", "est", "une", "mon", "que", "pas", "pour", "vous", "des", "du"),
    "es": ("el", "los", "y", "es", "una", "mi", "que", "por", "para", "con", "no", "se", "del"),
}
"""Words so frequent that their share tells the language of a sentence; a proxy, not an identification."""

REFUSALS: Final[tuple[str, ...]] = (
    "i can't help",
    "i cannot help",
    "i can't assist",
    "i cannot assist",
    "i'm unable to",
    "i am unable to",
    "i'm not able to",
    "i am not able to",
    "as an ai",
    "as a language model",
    "i'm sorry, but i",
    "i am sorry, but i",
    "i can't provide",
    "i cannot provide",
    "i must decline",
    "against my guidelines",
)
"""Phrases by which an assistant declines, in lower case."""

PERSONAL_DATA: Final = (
    r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z]{2,}"  # e-mail
    r"|\b(?:\+?[0-9]{1,3}[ .-])?\(?[0-9]{3}\)?[ .-][0-9]{3,4}[ .-][0-9]{4}\b"  # telephone, North American
    r"|\+[0-9]{1,3}[ .-]?[0-9]{2,4}(?:[ .-]?[0-9]{2,4}){2,3}\b"  # telephone, international
    r"|\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b"  # US social security
    r"|\b(?:[0-9]{4}[ -]?){3}[0-9]{1,4}\b"  # payment card
    r"|\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){3,7}\b"  # IBAN
    r"|\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b"  # IPv4
)
"""What looks like personal data. A rate for drift, not a scanner: it does not check digits."""


def text_features(text: pl.Expr, *, prefix: str = "", vocabulary: Iterable[str] | None = None) -> list[pl.Expr]:
    """Expressions for every descriptor of a text column, named ``prefix`` + name; null where the text is null.

    :param text: a string expression, e.g. ``pl.col("prompt")``.
    :param vocabulary: words of the reference (:func:`learn_vocabulary`); adds ``out_of_vocabulary``, the share of words
        that are not among them.
    """
    characters = text.str.len_chars()
    per_character = 1 / characters.clip(lower_bound=1)
    words = words_of(text)
    count = words.list.len()
    found = {
        "characters": characters,
        "words": count,
        "word_length": characters / count.clip(lower_bound=1),
        "upper_share": text.str.count_matches("[A-Z]") * per_character,
        "digit_share": text.str.count_matches("[0-9]") * per_character,
        "punctuation_share": text.str.count_matches(r"[!-/:-@\[-`{-~]") * per_character,
        "beyond_ascii": (text.str.len_bytes() - characters) * per_character,
        "repetition": 1 - words.list.n_unique() / count.clip(lower_bound=1),
        "personal_data": personal_data(text),
        "refusal": text.str.contains_any(list(REFUSALS), ascii_case_insensitive=True),
        "language": language(text),
    }
    if vocabulary is not None:
        found[OUT_OF_VOCABULARY] = out_of_vocabulary(text, vocabulary)
    return [expression.alias(prefix + name) for name, expression in found.items()]


def feature_kinds(*, prefix: str = "", vocabulary: bool = False) -> dict[str, Kind]:
    """The kind of profile that each column of :func:`text_features` wants."""
    kinds: dict[str, Kind] = {prefix + name: kind for name, kind in TEXT_FEATURES.items()}
    return {**kinds, prefix + OUT_OF_VOCABULARY: "continuous"} if vocabulary else kinds


def words_of(text: pl.Expr) -> pl.Expr:
    """Lower-case words, split at blanks: a list of strings."""
    return text.str.to_lowercase().str.split(" ")


def personal_data(text: pl.Expr) -> pl.Expr:
    """Does the text hold something that looks like personal data? Texts without a digit or an @ are not searched."""
    suspect = text.str.contains("[0-9@]")
    return pl.when(suspect).then(pl.when(suspect).then(text).str.contains(PERSONAL_DATA)).otherwise(suspect)


def language(text: pl.Expr) -> pl.Expr:
    """The language whose stop words are most frequent, else a script (``cyrillic``, ``cjk``, ``arabic``), else ``other``."""
    hits = [text.str.count_matches(rf"(?i)\b(?:{'|'.join(words)})\b") for words in STOP_WORDS.values()]
    most = pl.max_horizontal(*hits)
    best = pl.when(text.is_null()).then(None).when(most == 0).then(pl.lit("other"))
    for name, share in zip(STOP_WORDS, hits, strict=True):
        best = best.when(share == most).then(pl.lit(name))
    return best.otherwise(pl.lit("other"))


def out_of_vocabulary(text: pl.Expr, vocabulary: Iterable[str]) -> pl.Expr:
    """Share of the words (0..1) that the vocabulary does not know."""
    known = pl.Series(sorted(set(vocabulary)), dtype=pl.String)
    return 1 - words_of(text).list.eval(pl.element().is_in(known.implode())).list.mean()


def learn_vocabulary(texts: pl.Series, *, size: int = VOCABULARY_SIZE) -> list[str]:
    """The ``size`` most frequent words of a reference, in alphabetical order. Words met once are left out: they are as
    likely to be personal data as language, and a current window has as many of its own."""
    words = pl.DataFrame({"text": texts}).lazy().select(word=words_of(pl.col("text")).list.explode())
    counted = words.group_by("word").len().filter((pl.col("len") > 1) & (pl.col("word") != ""))
    frequent = counted.sort(["len", "word"], descending=[True, False]).head(size).collect()
    return sorted(frequent["word"].to_list())
