"""How close a model is to being retrained: each fact of the policy beside the threshold that it is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from genai_operators.decisions.paired_rates import wilson
from genai_operators.decisions.policy import FEEDBACK_CONFIDENCE
from genai_operators.decisions.policy_brakes import days
from genai_operators.decisions.policy_facts import Attempt, AttemptOutcome, Facts, PolicySettings

OUT_OF_REACH_ROWS = 10**9
OUT_OF_REACH_AGE = timedelta(days=20_000)
"""A model file without that reason has a threshold that is never met; it is no fact to show."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One fact.

    :param share: of the threshold that is reached, 0 or more; at 1 the fact calls for retraining, a brake holds it.
    :param says: figure and threshold in words. :param brake: does it hold retraining back?
    """

    name: str
    share: float
    says: str
    brake: bool = False


def standings(facts: Facts, history: Sequence[Attempt], settings: PolicySettings) -> list[Standing]:
    """Reasons first, brakes last; what the model file does not ask for is left out.

    :param history: every retraining so far, oldest first.
    """
    found = [Standing(name="drift", share=float(facts.drift), says="alarm running" if facts.drift else "no alarm")]
    if settings.minimum_new_rows:
        found.append(_rows("labelled rows to act on drift or feedback", facts, settings.minimum_new_rows))
    if settings.data_rows < OUT_OF_REACH_ROWS:
        found.append(_rows("labelled rows, a reason by themselves", facts, settings.data_rows))
    allowed = facts.usual_wrong_share + settings.feedback_margin
    if allowed < 1:
        found.append(_feedback(facts, settings, allowed))
    if facts.trained_at is not None and settings.maximum_age < OUT_OF_REACH_AGE:
        age = facts.now - facts.trained_at
        says = f"{days(age)} of {days(settings.maximum_age)}"
        found.append(Standing(name="age of the training", share=age / settings.maximum_age, says=says))
    since = facts.now - settings.budget_window
    used = sum(attempt.at > since and attempt.outcome is not AttemptOutcome.BROKEN for attempt in history)
    name, says = f"retrainings in {days(settings.budget_window)}", f"{used} of {settings.retrainings} allowed"
    found.append(Standing(name=name, share=used / settings.retrainings, says=says, brake=True))
    return found


def _rows(name: str, facts: Facts, needed: int) -> Standing:
    return Standing(name=name, share=facts.new_rows / needed, says=f"{facts.new_rows:,} of {needed:,}")


def _feedback(facts: Facts, settings: PolicySettings, allowed: float) -> Standing:
    name = "answers called wrong"
    if facts.rated < settings.minimum_rated:
        return Standing(name=name, share=0.0, says=f"{facts.rated:,} rated, {settings.minimum_rated:,} needed to say")
    lower = wilson(facts.wrong, n=facts.rated, confidence=FEEDBACK_CONFIDENCE)[0]
    return Standing(name=name, share=lower / allowed, says=f"at least {lower:.1%}, {allowed:.1%} is accepted")
