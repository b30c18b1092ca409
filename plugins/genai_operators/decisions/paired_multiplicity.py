"""Many tests at once: Holm where a gate decides, Benjamini-Hochberg where a report points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genai_operators.exceptions import DataError


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Adjusted p-values that control the probability of any false rejection, whatever the dependence.

    :param p_values: shape (m,), in [0, 1].
    :return: shape (m,), in the order given; reject where at most the level.
    :raises DataError: a value that is no probability.
    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    p, order = _ordered(p_values, what="holm")
    steps = (len(p) - np.arange(len(p))) * p[order]
    return _restore(np.minimum(np.maximum.accumulate(steps), 1.0), order)


def benjamini_hochberg(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Adjusted p-values that control the false discovery rate under independence or positive dependence.

    :param p_values: shape (m,), in [0, 1].
    :return: shape (m,), in the order given; reject where at most the rate.
    :raises DataError: a value that is no probability.
    Source: Benjamini & Hochberg 1995, "Controlling the false discovery rate".
    """
    p, order = _ordered(p_values, what="benjamini_hochberg")
    steps = p[order] * len(p) / (np.arange(len(p)) + 1)
    return _restore(np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0), order)


def _ordered(p_values: Sequence[float], *, what: str) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    p = np.asarray(p_values, dtype=np.float64)
    wrong = np.flatnonzero(~((p >= 0) & (p <= 1))) if p.ndim == 1 else np.array([0])
    if len(wrong):
        raise DataError(f"{what}: p-values are a list of numbers in [0, 1]; entry {wrong[0]} is {p.ravel()[wrong[0]]}")
    return p, np.argsort(p, kind="stable")


def _restore(adjusted: NDArray[np.float64], order: NDArray[np.intp]) -> NDArray[np.float64]:
    result = np.empty_like(adjusted)
    result[order] = adjusted
    return result
