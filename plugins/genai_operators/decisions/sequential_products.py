"""Long products of factors, exact to the last bit however the factors are batched.

An evidence process is a product over thousands of events; its value under- or overflows a float within hundreds. The
usual remedy, sums of logarithms, depends on the machine's ``log``. Here a product is a mantissa in [0.5, 1) and an
integer exponent of two. Scaling by a power of two is exact, and the multiplications happen in the order of the events,
so that the same events give the same bits in one batch or in thousands, on any machine with IEEE-754 arithmetic.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_BITS = 900
"""Bits that a run of factors may grow or shrink between two normalisations; a float holds 1,022 either way."""
_NEGLIGIBLE = -1100
"""A term so many bits below the largest one is zero."""


@dataclass(frozen=True, eq=False)
class Products:
    """J running products, ``mantissa * 2**exponent``. Arrays of shape (J,)."""

    mantissa: Floats
    exponent: Integers

    @classmethod
    def ones(cls, count: int) -> Products:
        """``count`` empty products."""
        return cls(np.full(count, 0.5), np.ones(count, dtype=np.int64))

    def times(self, factors: Floats) -> Products:
        """Multiply by ``factors`` of shape (J, n), column after column."""
        path = self.path(factors)
        return Products(path.mantissa[:, -1].copy(), path.exponent[:, -1].copy())

    def path(self, factors: Floats) -> Path:
        """Every value on the way, the present one first: arrays of shape (J, n + 1)."""
        count, length = factors.shape
        mantissa = np.empty((count, length + 1))
        exponent = np.empty((count, length + 1), dtype=np.int64)
        mantissa[:, 0], exponent[:, 0] = self.mantissa, self.exponent
        run = _run_length(factors)
        for start in range(0, length, run):
            stop = min(start + run, length)
            block = factors[:, start:stop].copy()
            block[:, 0] *= mantissa[:, start]
            np.multiply.accumulate(block, axis=1, out=block)
            fraction, shift = np.frexp(block)
            mantissa[:, start + 1 : stop + 1] = fraction
            exponent[:, start + 1 : stop + 1] = exponent[:, start, None] + shift
        return Path(mantissa, exponent)

    def log(self) -> Floats:
        """Natural logarithms, shape (J,)."""
        logs: Floats = np.log(self.mantissa) + self.exponent * math.log(2.0)
        return logs

    def to_json(self) -> str:
        """All mantissas, then all exponents (32 bits each): exact, and 15 characters a product."""
        return encode_bytes(self.mantissa.astype("<f8").tobytes() + self.exponent.astype("<i4").tobytes())

    @classmethod
    def from_json(cls, record: str) -> Products:
        """Inverse of :meth:`to_json`."""
        data = decode_bytes(record)
        count = len(data) // 12
        mantissa = np.frombuffer(data, dtype="<f8", count=count)
        exponent = np.frombuffer(data, dtype="<i4", offset=8 * count)
        return cls(mantissa.astype(np.float64), exponent.astype(np.int64))


@dataclass(frozen=True, eq=False)
class Path:
    """J products after each of n events, ``mantissa * 2**exponent``. Arrays of shape (J, n + 1)."""

    mantissa: Floats
    exponent: Integers

    def mixture(self, weights: Floats) -> tuple[Floats, Integers]:
        """Weighted sum over the J products at each time, as values of shape (n + 1,) and exponents of two.

        :param weights: shape (J,).
        """
        reference = self.exponent.max(axis=0)
        total = np.zeros(self.mantissa.shape[1])
        for term in self._terms(weights, reference):
            total += term
        return total, reference

    def mixtures(self, weights: Floats, factors: Floats) -> tuple[Floats, Floats, Integers]:
        """The same; and each sum but the last as it were if every product had been multiplied by its factor first.

        :param weights: shape (J,). :param factors: shape (J, n).
        :return: shapes (n + 1,), (n,), and (n + 1,): the exponents of two, of both.
        """
        reference = self.exponent.max(axis=0)
        total, raised = np.zeros(self.mantissa.shape[1]), np.zeros(factors.shape[1])
        for term, factor in zip(self._terms(weights, reference), factors, strict=True):
            total += term
            raised += term[:-1] * factor
        return total, raised, reference

    def _terms(self, weights: Floats, reference: Integers) -> Iterator[Floats]:
        """In this order always: a sum depends on its order."""
        for row, weight in enumerate(weights):
            shift = np.maximum(self.exponent[row] - reference, _NEGLIGIBLE)
            yield np.ldexp(self.mantissa[row], shift.astype(np.int32)) * weight  # of 64 bits a third slower


def _run_length(factors: Floats) -> int:
    if not factors.size:
        return 1
    largest = max(float(factors.max()), 1.0 / float(factors.min()), 2.0)
    return max(1, int(_BITS / math.log2(largest)))


def encode_bytes(data: bytes) -> str:
    """Base 85: five characters for four bytes, none of which JSON escapes."""
    return base64.b85encode(data).decode("ascii")


def decode_bytes(text: str) -> bytes:
    """Inverse of :func:`encode_bytes`."""
    return base64.b85decode(text)


def encode_floats(values: Floats) -> str:
    """Little-endian doubles in base64: exact, and half the size of decimal digits."""
    return base64.b64encode(np.asarray(values, dtype="<f8").tobytes()).decode("ascii")


def decode_floats(text: str) -> Floats:
    """Inverse of :func:`encode_floats`."""
    return np.frombuffer(base64.b64decode(text), dtype="<f8").astype(np.float64)
