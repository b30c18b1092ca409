from __future__ import annotations

from genai_operators.spec.changes import changes_between
from genai_operators.spec.model import ModelSpec


def spec(**sections: object) -> dict[str, object]:
    return ModelSpec.model_validate({"data": {"train": "x"}, **sections}).to_json()


class TestChanges:
    def test_an_unchanged_file_has_none(self) -> None:
        assert changes_between(spec(), spec()) == []

    def test_name_the_field_both_values_and_who_feels_it(self) -> None:
        (change,) = changes_between(spec(), spec(train={"seed": 3}))
        assert str(change) == "train.seed: 0 -> 3"
        assert change.effect == "trains and evaluates anew"

    def test_of_a_canary_step_leave_the_live_release_alone(self) -> None:
        before, after = spec(canary={"steps": [{"percent": 5}]}), spec(canary={"steps": [{"percent": 7}]})
        (change,) = changes_between(before, after)
        assert str(change) == "canary.steps[0].percent: 5.0 -> 7.0"
        assert "a live one keeps its plan" in change.effect

    def test_a_removed_step_is_seen(self) -> None:
        steps = [{"percent": 5}, {"percent": 50}]
        gone = changes_between(spec(canary={"steps": steps}), spec(canary={"steps": steps[:1]}))
        assert "canary.steps[1].percent: 50.0 -> -" in map(str, gone)
