"""Verdicts combine checks honestly; reports are self-contained."""

from __future__ import annotations

import re

import pytest

from genai_operators.decisions.verdict import Check, Outcome, Severity, Verdict
from genai_operators.report import Page, new_figure


def check(outcome: Outcome, severity: Severity = "critical") -> Check:
    return Check(name=f"{severity} {outcome}", outcome=outcome, severity=severity)


class TestVerdict:
    @pytest.mark.parametrize(
        ("checks", "expected"),
        [
            ([], Outcome.PASS),
            ([check(Outcome.PASS), check(Outcome.SKIPPED)], Outcome.PASS),
            ([check(Outcome.INCONCLUSIVE), check(Outcome.FAIL)], Outcome.FAIL),
            ([check(Outcome.PASS), check(Outcome.INCONCLUSIVE)], Outcome.INCONCLUSIVE),
            ([check(Outcome.FAIL, "warning")], Outcome.WARN),
            ([check(Outcome.FAIL, "info")], Outcome.PASS),
        ],
    )
    def test_combines_checks(self, checks: list[Check], expected: Outcome) -> None:
        assert Verdict.of("gate", checks).outcome is expected

    def test_survives_json(self) -> None:
        verdict = Verdict.of(
            "evaluation",
            [Check(name="exact_match", outcome=Outcome.PASS, observed=0.9, interval=(0.8, 0.95), threshold=0.7, n=100)],
        )
        assert Verdict.from_json(verdict.to_json()) == verdict

    def test_a_record_of_another_version_is_refused(self) -> None:
        with pytest.raises(ValueError, match="version 99"):
            Verdict.from_json({"version": 99})

    def test_text_shows_figure_interval_threshold_and_n(self) -> None:
        text = Verdict.of(
            "drift", [Check(name="psi", outcome=Outcome.FAIL, observed=0.5, interval=(0.4, 0.6), threshold=0.1, n=1200)]
        ).render_text()
        assert "psi = 0.5 [0.4, 0.6] against 0.1 (n = 1,200)" in text

    def test_markdown_is_a_list_as_forms_put_the_lines_of_a_code_block_into_one(self) -> None:
        text = Verdict.of("drift", [check(Outcome.FAIL), check(Outcome.PASS)]).render_markdown()
        assert [line[:7] for line in text.splitlines()[2:]] == ["- fail:", "- pass:"]


class TestPage:
    def test_is_self_contained_and_escapes_what_it_is_given(self) -> None:
        figure = new_figure()
        figure.axes[0].plot([0, 1], [1, 0])
        page = Page("<b>title</b>", "subtitle").verdict(Verdict.of("gate", [check(Outcome.FAIL)]))
        html = page.figure(figure, "caption & more").table(["<i>"], [["<script>", 1.5]]).html()
        assert "<script>" not in html
        assert "&lt;b&gt;title" in html
        # Namespaces and document types are names; nothing is fetched.
        assert not re.search(r'(src|href)="(?!#)', html)
        assert "@import" not in html
        assert "<svg" in html

    def test_the_same_figure_gives_the_same_bytes(self) -> None:
        def draw() -> str:
            figure = new_figure()
            figure.axes[0].bar([1, 2], [3, 4])
            return Page("t").figure(figure).html()

        assert draw() == draw()
