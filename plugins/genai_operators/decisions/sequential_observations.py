"""What a canary's verdict is made from: requests in arrival order, with arm, propensity and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genai_operators.exceptions import DataError

NOT_APPLICABLE = -1
"""In a guardrail's column: this request says nothing about it (no feedback was given, the client left)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Observations:
    """Requests whose outcome is final, in the order in which they *arrived*. All arrays have length n.

    Leave out requests whose arm the gateway did not choose (header override), but not those that it sent to the only
    arm with weight: they tell nothing, unless one is on the other arm. Take the *first* assignment of a
    request that was retried on the other arm. A request may only be given once its outcome can no longer change: hold
    everything back that arrived after the oldest unfinished request (:meth:`arrived_before`), or a slow arm looks good.

    :param arrival: seconds since any fixed origin, never decreasing.
    :param canary: the arm that answered.
    :param propensity: probability, in [0, 1], that this request goes to the canary: the weight in force *when it
        arrived*, as the gateway logged it with the request. A weight that is looked up afterwards makes every figure
        here false.
    :param bad: for each guardrail 1 (bad), 0 (good) or -1 (not applicable).
    :param unit: who sent it, for sticky assignment: the first bad event of a unit counts, later ones do not; of very
        many units a sample (:mod:`~genai_operators.decisions.sequential_units`). ``None`` (the whole sequence or one
        entry): requests are assigned one by one.
    :param cause: what the failure of this request would share with others in one outage: the replica that refused the
        connection, the upstream that was down. ``None`` for a failure that is the request's own (the model's code
        raised, the answer did not parse): those count one by one.
    :param cause_propensity: probability that an outage meets the canary, when that is not ``propensity``: the canary's
        share of the replicas. Used for requests with a ``cause`` only.
    :param tokens: tokens generated, for the blast radius. Whole numbers.
    :param cost: money spent, for the blast radius.
    :raises DataError: shapes differ, or a value is not one that can be observed; the message names column and row.
    """

    arrival: NDArray[np.float64]
    canary: NDArray[np.bool_]
    propensity: NDArray[np.float64]
    bad: Mapping[str, NDArray[np.int8]]
    unit: Sequence[str | None] | None = None
    cause: Sequence[str | None] | None = None
    cause_propensity: NDArray[np.float64] | None = None
    tokens: NDArray[np.int64] | None = None
    cost: NDArray[np.float64] | None = None
    _length: int = field(init=False, default=0, repr=False)

    def __post_init__(self) -> None:
        """Bring every column to its type and refuse what cannot have been observed."""
        put = object.__setattr__
        put(self, "arrival", _numbers("arrival", self.arrival))
        put(self, "_length", len(self.arrival))
        put(self, "canary", _booleans(self.canary))
        put(self, "propensity", _numbers("propensity", self.propensity, lowest=0.0, highest=1.0))
        put(self, "bad", {name: _outcomes(name, column) for name, column in self.bad.items()})
        for name, highest in (("cause_propensity", 1.0), ("tokens", np.inf), ("cost", np.inf)):
            column = getattr(self, name)
            if column is not None:
                put(self, name, _numbers(name, column, lowest=0.0, highest=highest))
        self._check_whole_tokens()
        for name, column in self._columns():
            if len(column) != self._length:
                raise DataError(f"observations: {name} has {len(column)} rows, arrival has {self._length}")
        back = np.flatnonzero(np.diff(self.arrival) < 0)
        if len(back):
            row = int(back[0]) + 1
            raise DataError(
                f"observations: row {row} arrived at {self.arrival[row]} before its predecessor at "
                f"{self.arrival[row - 1]}; give requests in arrival order, behind a watermark"
            )

    def _check_whole_tokens(self) -> None:
        if self.tokens is not None and len(fractions := np.flatnonzero(self.tokens % 1)):
            raise DataError(
                f"observations: tokens[{fractions[0]}] is {self.tokens[fractions[0]]}, must be a whole number"
            )

    def __len__(self) -> int:
        """Number of requests."""
        return self._length

    def rows(self, start: int, stop: int) -> Observations:
        """Requests ``start`` to ``stop`` (exclusive), in the same order."""
        return self._select(slice(start, stop))

    def arrived_before(self, watermark: float) -> Observations:
        """Requests that arrived before ``watermark``: the arrival of the oldest request that is still unfinished.

        A caller that knows a largest duration uses *now* minus that duration.
        """
        return self.rows(0, int(np.searchsorted(self.arrival, watermark, side="left")))

    def _select(self, which: slice) -> Observations:
        changes: dict[str, Any] = {
            entry.name: value[which]
            for entry in fields(self)
            if entry.init and entry.name != "bad" and (value := getattr(self, entry.name)) is not None
        }
        return replace(self, **changes, bad={name: column[which] for name, column in self.bad.items()})

    def _columns(self) -> list[tuple[str, Sequence[Any]]]:
        named = [
            (entry.name, getattr(self, entry.name)) for entry in fields(self) if entry.init and entry.name != "bad"
        ]
        named += [(f"bad[{name!r}]", column) for name, column in self.bad.items()]
        return [(name, column) for name, column in named if column is not None]


def _numbers(name: str, column: ArrayLike, *, lowest: float = -np.inf, highest: float = np.inf) -> NDArray[np.float64]:
    values = np.asarray(column, dtype=np.float64)
    if values.ndim != 1:
        raise DataError(f"observations: {name} must have one dimension, has {values.ndim}")
    wrong = np.flatnonzero(~np.isfinite(values) | (values < lowest) | (values > highest))
    if len(wrong):
        allowed = "a finite number" if not np.isfinite(lowest) else f"in [{lowest:g}, {highest:g}]"
        raise DataError(f"observations: {name}[{wrong[0]}] is {values[wrong[0]]}, must be {allowed}")
    return values


def _booleans(column: ArrayLike) -> NDArray[np.bool_]:
    values = np.asarray(column)
    if values.ndim != 1 or (len(values) and values.dtype != np.bool_):
        raise DataError(f"observations: canary must be a boolean array of one dimension, is {values.dtype}")
    return values.astype(np.bool_)


def _outcomes(name: str, column: ArrayLike) -> NDArray[np.int8]:
    values = np.asarray(column)
    wrong = np.flatnonzero(~((values == 0) | (values == 1) | (values == NOT_APPLICABLE)))
    if values.ndim != 1 or len(wrong):
        found = values.ravel()[wrong[0]] if len(wrong) else f"an array of {values.ndim} dimensions"
        row = f"[{wrong[0]}]" if len(wrong) else ""
        raise DataError(
            f"observations: bad[{name!r}]{row} is {found}, must be 1 (bad), 0 (good) or -1 (not applicable)"
        )
    return values.astype(np.int8)
