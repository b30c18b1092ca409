"""Slow answers as bad events: thresholds from the past, fixed before the release, several quantiles averaged.

A test of "the canary is slower" at one threshold sees only what happens around it. Exceedances of several quantiles of
the champion's times (time to first token, longest gap between tokens) become one guardrail each, with equal parts of
one alpha weight; their evidence is averaged, so a shift anywhere is found. Thresholds that are chosen after the release
has begun make every figure false.

*Method*: given the threshold, "slower than it" is a bad event like any other, and the test of
:mod:`~genai_operators.decisions.sequential_harm` compares how often it happens on each arm. *Assumed*: the thresholds
are functions of times before the release alone. They need not be the champion's true quantiles: a champion that became
slower since then exceeds them more often on both arms, and only the ratio counts.

Sources: the averaging of dependent e-processes is that of Vovk & Wang 2021, "E-values: calibration, combination and
applications" (an average of supermartingales with fixed weights is one); quantiles are numpy's linear interpolation
(type 7 of Hyndman & Fan 1996).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genai_operators.decisions.sequential_observations import NOT_APPLICABLE
from genai_operators.decisions.sequential_plan import Guardrail
from genai_operators.exceptions import DataError

QUANTILES = (0.5, 0.9, 0.99)
LEAST_ABOVE = 5
"""So many of the champion's times must lie above a threshold, or its rate is not known at all."""


def latency_guardrails(
    name: str,
    baseline_ms: ArrayLike,
    *,
    quantiles: tuple[float, ...] = QUANTILES,
    margin: float = 1.5,
    alpha_weight: float = 1.0,
) -> dict[float, Guardrail]:
    """One guardrail for each quantile of the champion's times, by its threshold in milliseconds.

    :param name: what is timed, e.g. ``first_token``.
    :param baseline_ms: shape (n,), times of the champion before the release; NaN where there was none. Quantiles with
        the same time are one guardrail, the highest of them, whose rate is nearest.
    :param quantiles: in (0, 1), each at most once.
    :param margin: of the rate of slow answers; see :class:`~genai_operators.decisions.sequential_plan.Guardrail`. The
        margin of a quantile q must stay below ``1 / (1 - q)``, and is lowered to half-way where it does not.
    :param alpha_weight: of all quantiles together.
    :raises DataError: too few times for the highest quantile (the message says how many are needed), or a time that is
        negative or infinite.
    """
    times = _times(name, baseline_ms)
    times = times[~np.isnan(times)]
    if not quantiles or not all(0 < quantile < 1 for quantile in quantiles) or len(set(quantiles)) < len(quantiles):
        raise DataError(f"{name}: quantiles must lie in (0, 1) and differ, got {quantiles}")
    needed = max(_needed(quantile) for quantile in quantiles)
    if len(times) < needed:
        raise DataError(f"{name}: {len(times)} times of the champion; its quantiles {quantiles} need {needed}")
    thresholds = {float(np.quantile(times, quantile)): quantile for quantile in sorted(quantiles)}
    return {
        threshold: quantile_guardrail(name, quantile, margin=margin, alpha_weight=alpha_weight / len(thresholds))
        for threshold, quantile in thresholds.items()
    }


def _times(name: str, times_ms: ArrayLike) -> NDArray[np.float64]:
    times = np.asarray(times_ms, dtype=np.float64)
    wrong = np.flatnonzero(np.isinf(times) | (times < 0))
    if len(wrong):
        raise DataError(
            f"{name}: time {wrong[0]} is {times[wrong[0]]} ms; give finite times, and NaN where there is none"
        )
    return times


def supported_quantiles(times: int, *, quantiles: tuple[float, ...] = QUANTILES) -> tuple[float, ...]:
    """Those whose threshold so many times of the champion can tell."""
    return tuple(quantile for quantile in quantiles if times >= _needed(quantile))


def quantile_guardrail(
    name: str, quantile: float, *, margin: float, alpha_weight: float, ceiling: float | None = None
) -> Guardrail:
    """The guardrail of one threshold.

    :param ceiling: raised to ``margin`` times the champion's rate before the release, which is ``1 - quantile``: below
        that the absolute process would ask for more than the relative one.
    """
    margin = min(margin, (1 + 1 / (1 - quantile)) / 2)
    return Guardrail(
        name=f"{name}_above_p{100 * quantile:g}",
        alpha_weight=alpha_weight,
        margin=margin,
        ceiling=None if ceiling is None else max(ceiling, margin * (1 - quantile)),
    )


def _needed(quantile: float) -> int:
    return math.ceil(round(LEAST_ABOVE / (1 - quantile), 6))


def exceedances(times_ms: ArrayLike, guardrails: dict[float, Guardrail]) -> dict[str, NDArray[np.int8]]:
    """Columns for ``Observations.bad``: 1 above the threshold, 0 at or below, -1 where there is no time.

    :param times_ms: shape (n,); NaN where an answer has no such time (it failed before its first token).
    :raises DataError: a time is negative or infinite.
    """
    times = _times("times", times_ms)
    return {
        guardrail.name: np.where(np.isnan(times), NOT_APPLICABLE, times > threshold).astype(np.int8)
        for threshold, guardrail in guardrails.items()
    }
