from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from genai_operators.decisions.policy_facts import PolicySettings
from genai_operators.operators.policy_question import policy_settings
from genai_operators.spec.policy import Policy


class TestPolicySection:
    def test_the_defaults_are_those_of_the_decision(self) -> None:
        asked = policy_settings(Policy(), minimum_new_rows=100)
        told = PolicySettings()
        for name in ("data_rows", "maximum_age", "cool_down", "block", "longest_block", "budget_window", "retrainings"):
            assert getattr(asked, name) == getattr(told, name), name

    def test_null_is_never(self) -> None:
        never = Policy.model_validate({"maximum_age": None, "maximum_negative_feedback": None, "enough_new_rows": None})
        asked = policy_settings(never, minimum_new_rows=0)
        assert asked.maximum_age > timedelta(days=20_000)
        assert asked.data_rows > 10**9
        assert asked.feedback_margin == 1.0

    def test_a_block_longer_than_the_longest_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="longest_block is shorter than block"):
            Policy.model_validate({"block": "40d"})
