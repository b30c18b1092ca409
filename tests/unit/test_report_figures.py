"""Plots that several verdicts share show exactly what was judged."""

from __future__ import annotations

import pytest

from genai_operators.decisions.verdict import Check, Outcome
from genai_operators.report import svg
from genai_operators.report_figures import OUTCOME_COLOURS, Difference, difference_figure, share_figure


class TestDifferences:
    def test_each_has_its_interval_its_point_and_its_limit(self) -> None:
        judged = Difference(name="exact match", value=0.1, interval=(-0.02, 0.2), threshold=-0.05, outcome=Outcome.PASS)
        shown = Difference(name="valid answers", value=-0.3, interval=(-0.4, -0.2))
        (axes,) = difference_figure([judged, shown], xlabel="candidate minus champion").axes
        _zero, interval, point, limit, other, _ = axes.lines
        assert list(interval.get_xdata()) == [-0.02, 0.2]
        assert list(point.get_xdata()) == [0.1]
        assert list(limit.get_xdata()) == [-0.05, -0.05]
        assert list(other.get_xdata()) == [-0.4, -0.2]
        assert interval.get_color() == OUTCOME_COLOURS[Outcome.PASS] != other.get_color()
        assert [label.get_text() for label in axes.get_yticklabels()] == ["exact match", "valid answers"]


class TestShares:
    def test_each_rule_has_its_share_and_what_it_allows(self) -> None:
        checks = [
            Check(name="no secrets", outcome=Outcome.FAIL, observed=0.02, threshold=0.0, n=600, severity="critical"),
            Check(name="no duplicates", outcome=Outcome.PASS, observed=0.01, threshold=0.05, n=600, severity="warning"),
        ]
        figure = share_figure(checks, xlabel="share of rows")
        (axes,) = figure.axes
        assert [bar.get_width() for bar in axes.patches] == [0.02, 0.01]
        assert [line.get_xdata()[0] for line in axes.lines] == [0.0, 0.05]
        assert [text.get_text() for text in axes.texts] == ["2.00% of 600", "1.00% of 600"]
        assert svg(figure).startswith("<svg")

    @pytest.mark.parametrize("observed", [None, 0.0])
    def test_nothing_wrong_is_drawn_as_nothing(self, observed: float | None) -> None:
        check = Check(name="r", outcome=Outcome.PASS, observed=observed, threshold=0.0, n=10, severity="critical")
        (axes,) = share_figure([check], xlabel="share").axes
        assert axes.patches[0].get_width() == 0.0
        assert axes.get_xlim()[1] > 0
