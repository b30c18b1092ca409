"""What a drift check says: one line a feature, and one sentence for the whole."""

from __future__ import annotations

import math
from collections.abc import Sequence

from genai_operators.decisions.drift_feature import DriftSettings, FeatureDrift
from genai_operators.decisions.verdict import Check, Outcome

NAMED = 5
"""Features named in the sentence; the checks list all."""


def feature_check(feature: FeatureDrift, settings: DriftSettings) -> Check:
    """A feature as a check of the gate: FAIL = drifted, INCONCLUSIVE (a warning) = too few rows, else PASS."""
    rows = min(feature.reference_rows, feature.current_rows)
    if not feature.enough:
        return Check(
            name=feature.label,
            outcome=Outcome.INCONCLUSIVE,
            observed=None if math.isnan(feature.effect) else feature.effect,
            threshold=settings.minimum_effect,
            n=rows,
            severity="warning",
            message=f"{rows} rows, {settings.minimum_rows} needed",
        )
    return Check(
        name=feature.label,
        outcome=Outcome.FAIL if feature.drifted else Outcome.PASS,
        observed=feature.effect,
        interval=feature.interval,
        threshold=settings.minimum_effect,
        n=rows,
        message=f"share of rows that moved; q = {max(feature.q_value, feature.effect_q_value):.2g}",
    )


def summarise(features: Sequence[FeatureDrift], settings: DriftSettings) -> tuple[Outcome, str]:
    """The gate's outcome and its one sentence."""
    drifted = [feature.label for feature in features if feature.drifted]
    judged = sum(feature.enough for feature in features)
    if drifted:
        shown = ", ".join(drifted[:NAMED]) + (f" and {len(drifted) - NAMED} more" if len(drifted) > NAMED else "")
        return Outcome.FAIL, f"drift in {len(drifted)} of {judged} features: {shown}"
    if not judged:
        rows = max((min(feature.reference_rows, feature.current_rows) for feature in features), default=0)
        return Outcome.INCONCLUSIVE, f"not enough rows to say: {rows} of the {settings.minimum_rows} needed"
    return Outcome.PASS, f"no drift above {settings.minimum_effect:g} of the rows in {judged} features"
