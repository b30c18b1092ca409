"""What the evaluation concludes from marks. The models' answers are tested in tests/integration."""

from __future__ import annotations

import pytest

from genai_operators.decisions.paired import superiority
from genai_operators.decisions.verdict import Outcome, Verdict
from genai_operators.spec.data import OutputKind
from genai_operators.spec.evaluate import NewDataRule
from genai_operators.workloads.evaluate import EvaluateParams, Item, _changes, _checks, _differences, _report
from genai_operators.workloads.scoring import is_exact_match, is_valid


def items(part: str, right: int, *, of: int, champion: int | None = None, valid: int | None = None) -> list[Item]:
    """``of`` items: the first ``right`` answered right by the candidate, the first ``champion`` by the champion."""
    return [
        Item(
            id=f"{part}-{n}",
            part=part,
            right=n < right,
            valid=n < (of if valid is None else valid),
            champion_right=None if champion is None else n < champion,
            champion_valid=None if champion is None else True,
            constant_right=False,
        )
        for n in range(of)
    ]


def verdict(found: list[Item], **params: object) -> Verdict:
    fields = {"model": "m", "output": "json", **params}
    return Verdict.of("evaluation", _checks(found, EvaluateParams.model_validate(fields)))


class TestFirstModel:
    def test_a_good_one_passes(self) -> None:
        assert verdict(items("old", 290, of=300), minimum_exact_match=0.9).outcome is Outcome.PASS

    def test_below_the_floor_it_fails(self) -> None:
        assert verdict(items("old", 200, of=300), minimum_exact_match=0.9).outcome is Outcome.FAIL

    def test_close_to_the_floor_nothing_is_claimed(self) -> None:
        assert verdict(items("old", 270, of=300), minimum_exact_match=0.9).outcome is Outcome.INCONCLUSIVE

    def test_answers_that_do_not_parse_fail(self) -> None:
        assert verdict(items("old", 0, of=300, valid=150)).outcome is Outcome.FAIL
        assert verdict(items("old", 250, of=300, valid=150), output="text").outcome is Outcome.PASS

    def test_no_better_than_one_constant_answer_is_a_warning(self) -> None:
        assert verdict(items("old", 0, of=300)).outcome is Outcome.WARN

    def test_too_few_items_do_not_pass(self) -> None:
        assert verdict(items("old", 10, of=10), minimum_exact_match=0.5).outcome is Outcome.INCONCLUSIVE


class TestAgainstTheChampion:
    def test_equal_on_old_and_better_on_new(self) -> None:
        found = [*items("old", 290, of=300, champion=290), *items("new", 55, of=60, champion=5)]
        assert verdict(found, rule_on_new=NewDataRule.SUPERIOR).outcome is Outcome.PASS

    def test_worse_on_old_fails_however_good_on_new(self) -> None:
        found = [*items("old", 200, of=300, champion=290), *items("new", 55, of=60, champion=5)]
        assert verdict(found, rule_on_new=NewDataRule.SUPERIOR).outcome is Outcome.FAIL

    @pytest.mark.parametrize(
        ("rule", "outcome"), [(NewDataRule.SUPERIOR, Outcome.INCONCLUSIVE), (NewDataRule.NON_INFERIOR, Outcome.PASS)]
    )
    def test_equal_on_new_is_enough_only_where_the_rule_says_so(self, rule: NewDataRule, outcome: Outcome) -> None:
        found = [*items("old", 290, of=300, champion=290), *items("new", 280, of=300, champion=280)]
        assert verdict(found, rule_on_new=rule).outcome is outcome

    def test_two_claims_of_being_better_are_made_at_the_risk_of_one(self) -> None:
        """Each would do alone; together they are adjusted, and what is far from chance stays proved."""
        new = items("new", 24, of=60, champion=20)
        alone = superiority([n < 24 for n in range(60)], [n < 20 for n in range(60)])
        assert 0.025 < alone.p_value <= 0.05
        with_a_clear_one = verdict([*items("old", 290, of=300, champion=290), *new], rule_on_new=NewDataRule.SUPERIOR)
        assert with_a_clear_one.outcome is Outcome.PASS
        both_close = verdict(
            [*items("old", 4, of=60, champion=4), *new], rule_on_new=NewDataRule.SUPERIOR, output="text"
        )
        assert both_close.outcome is Outcome.INCONCLUSIVE
        check = next(c for c in both_close.checks if c.name == "exact match against the champion, new rows")
        assert "adjusted for 2 claims" in check.message


class TestScoring:
    def test_json_is_compared_as_objects(self) -> None:
        assert is_exact_match('{"a": 1, "b": 2}', '{"b":2,"a":1}', output=OutputKind.JSON)
        assert not is_exact_match('{"a": 1}', '{"a": 2}', output=OutputKind.JSON)
        assert not is_exact_match("nothing", "nothing", output=OutputKind.JSON)

    def test_text_is_compared_without_the_space_around_it(self) -> None:
        assert is_exact_match(" refund\n", "refund", output=OutputKind.TEXT)
        assert not is_exact_match("Refund", "refund", output=OutputKind.TEXT)

    def test_validity(self) -> None:
        assert not is_valid("[1]", output=OutputKind.JSON)
        assert not is_valid("[" * 100_000, output=OutputKind.JSON)
        assert not is_valid("  ", output=OutputKind.TEXT)


class TestPage:
    def test_differences_are_those_that_the_gate_judged(self) -> None:
        found = [*items("old", 290, of=300, champion=285), *items("new", 70, of=80, champion=30)]
        params = EvaluateParams.model_validate({"model": "m", "output": "json", "rule_on_new": "superior"})
        shown = {one.name: one for one in _differences(found, params)}
        for part in ("old", "new"):
            check = next(
                c for c in _checks(found, params) if c.name == f"exact match against the champion, {part} rows"
            )
            drawn = shown[f"exact match, {part} rows"]
            assert (drawn.value, drawn.interval, drawn.threshold) == (check.observed, check.interval, check.threshold)
        assert shown["valid answers, old rows"].threshold is None

    def test_slices_and_metrics_share_one_false_discovery_rate(self) -> None:
        """Gained 5 of 300 old rows and 40 of 80 new ones; validity as before: four tests, each adjusted for all."""
        rows = _changes([*items("old", 290, of=300, champion=285), *items("new", 70, of=80, champion=30)])
        assert [row[:5] for row in rows] == [
            ("old", "exact match", 300, 5, 0), ("old", "valid answers", 300, 0, 0),
            ("new", "exact match", 80, 40, 0), ("new", "valid answers", 80, 0, 0),
        ]  # fmt: skip
        assert [row[5] for row in rows] == ["0.12", "1", "7.3e-12", "1"]  # 2/2^5 * 4/2, and 2/2^40 * 4

    def test_without_a_champion_there_is_nothing_to_compare(self) -> None:
        found, params = items("old", 290, of=300), EvaluateParams.model_validate({"model": "m", "output": "json"})
        assert _differences(found, params) == []
        page = _report(params, verdict=Verdict.of("evaluation", _checks(found, params)), items=found).html()
        assert page.count("<figure>") == 1
