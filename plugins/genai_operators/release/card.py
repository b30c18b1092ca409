"""The model card of a version: what it was made from, how it was judged, its limits. Measured figures only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genai_operators.decisions.verdict import Verdict, describe, format_number
from genai_operators.report import Page

TASK = "text-generation"


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a card is written from.

    :param recipe: what was trained and how, as the workload got it.
    :param training: figures of the training, e.g. ``loss``; ``evaluation``: of the evaluation.
    :param verdict: of the evaluation; ``None`` if there was none.
    :param references: name -> URI or digest of what it came from.
    """

    model: str
    digest: str
    files: int
    size_bytes: int
    recipe: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    training: Mapping[str, float] = field(default_factory=dict)
    evaluation: Mapping[str, float] = field(default_factory=dict)
    verdict: Verdict | None = None
    references: Mapping[str, str] = field(default_factory=dict)


def build_card(facts: CardFacts) -> str:
    """Markdown with the front matter that model hubs read."""
    parts = [_front_matter(facts), f"# {facts.model}", _introduction(facts)]
    if facts.verdict is not None:
        parts += ["## Evaluation", _verdict(facts.verdict)]
    if facts.evaluation:
        parts.append(_table("figure", facts.evaluation))
    parts += ["## Training", _training(facts)]
    parts += ["## Where it comes from", _table("reference", facts.references)]
    parts += ["## Limits", _LIMITS]
    return "\n\n".join(part for part in parts if part) + "\n"


def card_page(facts: CardFacts, *, version: int) -> Page:
    """The card of a registered version as a report: what the UI opens."""
    page = Page(f"{facts.model} v{version}", f"signed and complete in the registry · digest {facts.digest[:12]}")
    if facts.verdict is not None:
        page.verdict(facts.verdict)
    if facts.evaluation:
        page.heading("Evaluation").table(("figure", ""), sorted(facts.evaluation.items()))
    page.heading("Training").table(("setting", ""), _settings(facts))
    if facts.training:
        page.table(("figure", ""), sorted(facts.training.items()))
    page.heading("Where it comes from").table(("reference", ""), sorted(facts.references.items()))
    page.heading("Files").text(f"{facts.files} files, {format_number(facts.size_bytes)} bytes, weights in safetensors.")
    page.text(f"Digest of the manifest that lists and the signature that covers them: {facts.digest}")
    return page.heading("Limits").text(_LIMITS)


_LIMITS = (
    "The figures hold for the data they were measured on. The model is released by a canary on live traffic and "
    "watched for drift; outside of that it is not known how it behaves."
)


def _front_matter(facts: CardFacts) -> str:
    base = str(facts.recipe.get("base_model", "scratch"))
    lines = ["---", f"model_name: {_yaml(facts.model)}", "library_name: transformers", f"pipeline_tag: {TASK}"]
    if base != "scratch":
        lines.append(f"base_model: {_yaml(base)}")
    lines.append(f"tags: [genai-operators, {_yaml(str(facts.recipe.get('method', 'full')))}]")
    if facts.evaluation:
        lines += ["model-index:", f"- name: {_yaml(facts.model)}", "  results:", "  - task: {type: text-generation}"]
        lines += [f"    dataset: {{name: {_yaml(facts.model + ' evaluation')}, type: private}}", "    metrics:"]
        lines += [
            f"    - {{type: {_yaml(name)}, value: {value!r}}}" for name, value in sorted(facts.evaluation.items())
        ]
    return "\n".join([*lines, "---"])


def _introduction(facts: CardFacts) -> str:
    return (
        f"A plain Hugging Face directory: {facts.files} files, {format_number(facts.size_bytes)} bytes, weights in "
        f"safetensors. `MANIFEST.json` lists every file; its digest is `{facts.digest}`. `model.sig` beside the "
        "directory is an OpenSSF signature over all of them:\n\n"
        "    model_signing verify key --public_key KEY.pem --signature model.sig model/"
    )


def _verdict(verdict: Verdict) -> str:
    checks = [f"- **{check.outcome}** {describe(check)}" for check in verdict.checks]
    return "\n".join([f"**{verdict.outcome}**: {verdict.summary}", "", *checks])


def _training(facts: CardFacts) -> str:
    rows = "\n".join(f"| {key} | `{value}` |" for key, value in _settings(facts))
    table = f"| setting | value |\n|---|---|\n{rows}" if rows else ""
    return "\n\n".join(part for part in (table, _table("figure", facts.training)) if part)


def _settings(facts: CardFacts) -> list[tuple[str, str]]:
    """The recipe and the seed, as JSON, by name."""
    settings = {key: value for key, value in facts.recipe.items() if value is not None}
    if facts.seed is not None:
        settings["seed"] = facts.seed
    return [(key, json.dumps(value)) for key, value in sorted(settings.items())]


def _table(title: str, values: Mapping[str, float | str]) -> str:
    if not values:
        return ""
    rows = [
        f"| {name} | {format_number(value) if isinstance(value, (int, float)) else f'`{value}`'} |"
        for name, value in sorted(values.items())
    ]
    return "\n".join([f"| {title} | |", "|---|---|", *rows])


def _yaml(text: str) -> str:
    """A YAML scalar: JSON strings are YAML."""
    return json.dumps(text)
