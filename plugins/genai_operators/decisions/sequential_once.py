"""What counts once: a burst of failures with one cause, a sticky unit's failures. And how many users met the canary.

An outage of one replica fails hundreds of requests that are not independent; a test that takes them for independent
rolls identical arms back in half of all releases. A failure with a ``cause`` therefore counts as harm once per cause
within the plan's window, measured from the failure that was counted. A sticky unit's failures count once in the whole
release.

Memory is bounded, for the state is stored with every look. Units are remembered as bits of a hash: a unit whose bit was
taken by another one is left out, by a rule that knows nothing of arms, so validity is kept and only a little evidence
is lost. Distinct users are counted by the smallest hashes (exact up to their number, then a sketch).

Source of the sketch: Bar-Yossef et al. 2002, "Counting distinct elements in a data stream".
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint32]

OPEN_INCIDENTS = 32
"""Incidents remembered at one time; further causes share one entry for each guardrail."""
UNIT_BITS = 8192  # 2**(32 - 19), see positions_of
SMALLEST_HASHES = 128


def hash_of(text: str, *, salt: int = 0) -> int:
    """32 bits that are the same on every machine."""
    return (zlib.crc32(text.encode("utf-8"), salt) * 0x9E3779B1) & 0xFFFFFFFF


def hashes_of(units: Sequence[str | None]) -> tuple[Hashes, NDArray[np.bool_]]:
    """Hashes of the units, and where there is one."""
    known = np.array([unit is not None for unit in units], dtype=np.bool_)
    hashes = np.fromiter((0 if unit is None else hash_of(unit) for unit in units), dtype=np.uint32, count=len(units))
    return hashes, known


@dataclass(frozen=True, kw_only=True)
class Incidents:
    """Incidents that are open: (guardrail and cause, hashed; when its counted failure arrived)."""

    window_s: float
    opened: tuple[tuple[int, float], ...] = ()

    def to_json(self) -> list[list[float]]:
        """Plain JSON types, exact."""
        return [[key, arrival] for key, arrival in self.opened]

    @classmethod
    def from_json(cls, record: Iterable[Sequence[float]], *, window_s: float) -> Incidents:
        """Inverse of :meth:`to_json`."""
        return cls(window_s=window_s, opened=tuple((int(key), float(arrival)) for key, arrival in record))


class IncidentBook:
    """Decides, failure by failure in arrival order, whether one opens an incident. Lives for one update."""

    def __init__(self, incidents: Incidents) -> None:
        self._window_s = incidents.window_s
        self._opened = dict(incidents.opened)

    def opens(self, guardrail: int, cause: str, arrival: float) -> bool:
        """True if this failure counts: no failure with its cause was counted within the window before it."""
        for key in [key for key, opened in self._opened.items() if arrival - opened >= self._window_s]:
            del self._opened[key]
        key = hash_of(cause, salt=guardrail + 1)
        if key in self._opened:
            return False
        if len(self._opened) >= OPEN_INCIDENTS:
            key = -1 - guardrail
            if key in self._opened:
                return False
        self._opened[key] = arrival
        return True

    def close(self) -> Incidents:
        """The state to keep."""
        return Incidents(window_s=self._window_s, opened=tuple(self._opened.items()))


class SeenUnits:
    """Bits of the units that were counted; ``None`` until the first unit is seen. Lives for one update."""

    def __init__(self, bits: bytes | None) -> None:
        self._bits = bytearray(bits) if bits is not None else None

    def seen(self, position: int) -> bool:
        """Whether the bit is set."""
        return self._bits is not None and bool(self._bits[position >> 3] & (1 << (position & 7)))

    def remember(self, position: int) -> None:
        """Set the bit."""
        if self._bits is None:
            self._bits = bytearray(UNIT_BITS // 8)
        self._bits[position >> 3] |= 1 << (position & 7)

    def first_of_each(self, hashes: Hashes, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For each request, whether it is the first of its unit; true where there is no unit. Remembers them."""
        first = ~known
        rows = np.flatnonzero(known)
        positions, index = np.unique(positions_of(hashes[rows], guardrail=0), return_index=True)
        for position, row in zip(positions.tolist(), rows[index].tolist(), strict=True):
            first[row] = not self.seen(position)
            self.remember(position)
        return first

    def close(self) -> bytes | None:
        """The state to keep."""
        return None if self._bits is None else bytes(self._bits)


def positions_of(hashes: Hashes, *, guardrail: int) -> NDArray[np.int64]:
    """The bit of each unit; another one for each guardrail, so that all guardrails share one memory."""
    salted = hashes.astype(np.uint64) ^ np.uint64(guardrail * 0x85EBCA6B & 0xFFFFFFFF)
    return ((salted * np.uint64(0xC2B2AE35) & np.uint64(0xFFFFFFFF)) >> np.uint64(19)).astype(np.int64)


def smallest(known: Hashes, more: Hashes) -> Hashes:
    """The smallest distinct hashes of both, sorted, at most :data:`SMALLEST_HASHES`."""
    return np.unique(np.concatenate([known, more]))[:SMALLEST_HASHES]


def distinct(hashes: Hashes) -> tuple[float, float]:
    """Number of distinct units behind the smallest hashes: (estimate, upper bound of about 97.5 %). Exact while few."""
    if len(hashes) < SMALLEST_HASHES:
        return float(len(hashes)), float(len(hashes))
    estimate = (SMALLEST_HASHES - 1) * 2.0**32 / (float(hashes[-1]) + 1.0)
    return estimate, estimate * (1 + 2 / math.sqrt(SMALLEST_HASHES))


def encode_bytes(data: bytes | None) -> str | None:
    """Compressed base64."""
    return None if data is None else base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def decode_bytes(text: str | None) -> bytes | None:
    """Inverse of :func:`encode_bytes`."""
    return None if text is None else zlib.decompress(base64.b64decode(text))


def encode_hashes(hashes: Hashes) -> str:
    """Little-endian 32-bit integers in base64."""
    return base64.b64encode(hashes.astype("<u4").tobytes()).decode("ascii")


def decode_hashes(text: str) -> Hashes:
    """Inverse of :func:`encode_hashes`."""
    return np.frombuffer(base64.b64decode(text), dtype="<u4").astype(np.uint32)
