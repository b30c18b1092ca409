"""What a drift check is told, and what it says of one column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from genai_operators.decisions.drift_effects import Effect
from genai_operators.decisions.profile_column import Kind
from genai_operators.exceptions import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """What counts as drift.

    :param minimum_rows: rows a side below which the answer is 'not enough'.
    :param minimum_effect: share of the rows (0..1) that must have moved at least; see
        :mod:`~genai_operators.decisions.drift_displacement`. 0.1 is a shift by 0.18 standard deviations, or a tenth of
        the rows in another category.
    :param false_discovery_rate: expected share of false names among the features named, for one check. A schedule of
        checks passes what it spends on this one (:mod:`~genai_operators.decisions.alpha_spending`).
    :param seed: of the permutations, so that a verdict replays bit for bit.
    :raises ConfigurationError: a value outside its range; the message names it.
    """

    minimum_rows: int = 200
    minimum_effect: float = 0.1
    false_discovery_rate: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.minimum_rows < 2:
            raise ConfigurationError(f"drift minimum_rows is {self.minimum_rows}; at least 2 rows can be compared")
        if not 0 <= self.minimum_effect < 1:
            raise ConfigurationError(f"drift minimum_effect is {self.minimum_effect}; it is a share, 0 <= x < 1")
        if not 0 < self.false_discovery_rate < 1:
            raise ConfigurationError(f"drift false_discovery_rate is {self.false_discovery_rate}; it is in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class FeatureDrift:
    """One column (of one segment) compared.

    :param effect: share of the rows that moved, 0..1; NaN when a side has no row.
    :param interval: of the effect, at the level that its rank among the features leaves it: the lower end is above the
        minimum effect exactly when ``effect_q_value`` is within the false discovery rate.
    :param p_value: of the test of equal distributions (Kolmogorov-Smirnov or chi-square).
    :param q_value: ``p_value`` adjusted by Benjamini-Hochberg over all features and segments.
    :param effect_q_value: likewise for 'the effect is at most the minimum'.
    :param drifted: both significant.
    :param enough: False when either side has fewer rows than the minimum.
    :param measures: customary distances, by name, for the report.
    """

    name: str
    kind: Kind
    segment: str
    effect: float
    interval: tuple[float, float]
    p_value: float
    q_value: float
    effect_p_value: float
    effect_q_value: float
    drifted: bool
    enough: bool
    reference_rows: int
    current_rows: int
    measures: Mapping[str, Effect]

    @property
    def label(self) -> str:
        return f"{self.name} [{self.segment}]" if self.segment else self.name
