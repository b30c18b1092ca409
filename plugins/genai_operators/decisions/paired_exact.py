"""An exact test of a difference of paired rates: its level holds at every n and every share of discordant items.

The score test (Tango 1998) lets up to 6 % of models exactly at the margin pass at a nominal 5 %, where few items are
discordant. Here its statistic only orders the outcomes; the p-value is the largest probability, over all shares of
discordant items, of an outcome at least as extreme. It costs milliseconds and a little power, and needs no
approximation.

Source: Suissa & Shuster 1991, "The 2 x 2 matched-pairs trial: exact unconditional design and analysis", Biometrics 47;
ordering by the score statistic: Sidik 2003, "Exact unconditional tests for testing non-inferiority in matched-pairs
design".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from genai_operators.decisions.paired_rates import score_statistics
from genai_operators.exceptions import DataError

NUISANCES = 80
"""Shares of lost items over which the largest p-value is sought; denser where shares are small."""
REFINEMENTS, REFINED = 2, 9
"""Times that the neighbourhood of the largest is searched again, and in how many shares."""
_IGNORED = 1e-15
_ROUNDING = 1e-10


def exact_p_value(difference: float, *, gained: int, lost: int, n: int) -> float:
    """One-sided p-value of "the difference of paired rates is at most ``difference``".

    :param difference: candidate minus baseline, in (-1, 1): minus the margin for non-inferiority, 0 for superiority.
    :param gained: items that only the candidate has right. ``lost``: only the baseline. ``n``: all items.
    :raises DataError: counts that cannot be, or a difference outside (-1, 1).
    """
    if min(gained, lost) < 0 or gained + lost > n or n < 1 or not -1 < difference < 1:
        raise DataError(
            f"exact_p_value: gained {gained}, lost {lost} of {n} items, difference {difference}; "
            "need gained + lost <= n, n >= 1 and a difference in (-1, 1)"
        )
    observed = float(score_statistics(difference, gained=np.array([gained]), lost=np.array([lost]), n=n)[0])
    return p_value_of_statistic(observed, difference=difference, n=n)


def p_value_of_statistic(observed: float, *, difference: float, n: int) -> float:
    """Largest probability of a score statistic of at least ``observed``, if the difference is ``difference``."""
    most_lost = _most_lost(observed, difference, n)
    lowest, highest = max(0.0, -difference), (1.0 - difference) / 2.0
    shares = lowest + (highest - lowest) * np.linspace(0.0, 1.0, NUISANCES) ** 2
    tails = np.array([_tail(share, share + difference, most_lost, n) for share in shares.tolist()])
    largest = float(tails.max())
    for _ in range(REFINEMENTS):
        place = int(tails.argmax())
        shares = np.linspace(shares[max(place - 1, 0)], shares[min(place + 1, len(shares) - 1)], REFINED)
        tails = np.array([_tail(share, share + difference, most_lost, n) for share in shares.tolist()])
        largest = max(largest, float(tails.max()))
    return largest


def _most_lost(observed: float, difference: float, n: int) -> NDArray[np.int64]:
    """For each number of gained items 0..n the most lost ones that are still as extreme as observed; -1 if none."""
    gained = np.arange(n + 1)
    low, high = np.full(n + 1, -1), n - gained + 1
    while np.any(high - low > 1):
        middle = (low + high) // 2
        extreme = score_statistics(difference, gained=gained, lost=np.maximum(middle, 0), n=n) >= observed - _ROUNDING
        open_ = high - low > 1
        low, high = np.where(open_ & extreme, middle, low), np.where(open_ & ~extreme, middle, high)
    return low


def _tail(lost_share: float, gained_share: float, most_lost: NDArray[np.int64], n: int) -> float:
    """Probability of the extreme outcomes: gained is binomial, lost is binomial among the rest."""
    gained_share = min(max(gained_share, 0.0), 1.0)
    gained = np.arange(n + 1)
    log_weights = special.gammaln(n + 1) - special.gammaln(gained + 1) - special.gammaln(n - gained + 1)
    log_weights += special.xlogy(gained, gained_share) + special.xlog1py(n - gained, -gained_share)
    weights = np.exp(log_weights)
    used = np.flatnonzero((weights > _IGNORED) & (most_lost >= 0))
    if not len(used):
        return 0.0
    rest, most = n - gained[used], most_lost[used]
    share = min(1.0, lost_share / (1.0 - gained_share)) if gained_share < 1.0 else 0.0
    within = np.where(most >= rest, 1.0, special.bdtr(np.minimum(most, rest), rest, share))
    return min(1.0, float(weights[used] @ within))
